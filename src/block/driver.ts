/**
 * What a block driver is.
 *
 * A driver makes *states*: a state is one opened image, store or filter, and a node of the graph
 * wraps exactly one state. Three kinds, by what is below them:
 *
 *   protocol   nothing below: bytes of a store                 (opfs, indexeddb, blob, http, …)
 *   format     a protocol below, a guest disk above            (raw, qcow2)
 *   filter     a node below, the same disk above, other manners (copy-on-read, throttle, …)
 *
 * A state is a table with holes: src/block/io.ts has a correct answer for everything optional.
 * Every request comes through io.ts, which promises the driver:
 *
 *   1. 0 <= offset, 0 < bytes, and offset + bytes <= getLength(); only pwrite() and pwriteZeroes() of
 *      a state with limits.growable may be asked to go past the end
 *   2. offset and bytes are multiples of limits.requestAlignment, for zero writes and discards of
 *      limits.clusterSize where there is one (the end of the disk counts as aligned)
 *   3. nothing that would write is asked of a read-only state
 *   4. while a request that changes a cluster (clusterSize granule) is under way, no other request
 *      touches that cluster: the changes of one cluster never overlap, nor do reads of it see them
 *      half done. Requests to different clusters do overlap
 *   5. no request is in flight during truncate(), changeBackingFile() and close()
 *
 * and the driver promises io.ts:
 *
 *   6. a request does all of its bytes or throws BlockError; there are no short reads and writes
 *   7. after a write has resolved, any later read sees it; after flush() has resolved, a crash does
 *      not take it back
 *   8. a buffer is borrowed until the promise settles; nobody keeps it
 *   9. a request ends soon after options.signal is raised: done, or with ECANCELED
 *  10. names found inside an image are labels: a driver never opens anything by such a name
 *
 * Offsets and lengths are bytes everywhere, as `number`: exact up to 2^53, checked once where an
 * image header or a QMP argument is parsed.
 */

import type { Clock } from "../base/clock.ts";
import type { Random } from "../base/random.ts";
import type { Trace } from "../base/trace.ts";
import type { HostZlib } from "../base/zlib.ts";
import type { Kernel } from "../kernel/kernel.ts";
import type { CheckRequest, CheckResult } from "./check.ts";
import type { BlockChild } from "./child.ts";
import type { DebugPoints } from "./debug.ts";
import type { DirtyBitmap } from "./dirty-bitmap.ts";
import type { ChildPermissions } from "./permissions.ts";
import type { Secrets } from "./secrets.ts";
import type { ThrottleGroups } from "./throttle-group.ts";
import type { WriteIntents } from "./write-intents.ts";

/** What is otherwise reached for, as a parameter: time, chance, the wasm kernels, what the host can. */
export interface World {
  readonly clock: Clock;
  readonly random: Random;
  readonly kernel: Kernel;
  /** Which of its points are on may change at any time. */
  readonly trace: Trace;
  /** Where the host has it: a browser has none that packs as QEMU wants it. */
  readonly zlib?: HostZlib;
  /** Of an engine that is to know after a crash where its images were written. */
  readonly intents?: WriteIntents;
}

/** What a node may hold on to below itself. `file` is also the child of a filter. */
export type ChildRole = "file" | "data-file" | "backing" | "target" | "log";

export type Children = Readonly<Partial<Record<ChildRole, BlockChild>>>;

/** Manners of one request (QEMU: BdrvRequestFlags). */
export interface RequestOptions {
  /** Raised when nobody wants the answer any more. */
  readonly signal?: AbortSignal;
  /** A write that does not change what the node reads as, such as a copy from the backing file. */
  readonly unchanged?: boolean;
  /** A zero write that may free the clusters it covers. */
  readonly mayUnmap?: boolean;
  /** A zero write that fails with ENOTSUP where it would have to write zeroes out. */
  readonly noFallback?: boolean;
  /** A read that also copies what it finds below this node into this node. */
  readonly copyOnRead?: boolean;
  /** A write that this bitmap does not record, because the bitmap's owner sees to it by itself. */
  readonly unrecorded?: DirtyBitmap;
}

/** How much of a disk that grows gets its place at once (QEMU: PreallocMode). */
export type Preallocation = "off" | "metadata" | "falloc" | "full";

/** Manners of one change of length. */
export interface TruncateOptions {
  /** Of the new bytes; "off" if not given, and for a disk that does not grow. */
  readonly preallocation?: Preallocation;
  readonly signal?: AbortSignal;
}

export interface BlockLimits {
  /** Granule of offset and length of every request; a power of two, 1 if any will do. */
  readonly requestAlignment: number;
  /** Granule in which this state allocates; 0 if it does not care. qcow2: the cluster size. */
  readonly clusterSize: number;
  /** Parts of a cluster are decided on their own: a whole one does not become zeroes for one of them. */
  readonly hasSubclusters?: boolean;
  /** Writing past the end makes the store longer. */
  readonly growable: boolean;
}

/** Where a run of the disk is; `bytes` > 0 from the asked offset, may be less than asked. */
export type Mapping =
  /** As it is, in the child `role` from `offset` on. */
  | { kind: "data"; bytes: number; role: "file" | "data-file"; offset: number }
  /** Decided here, reads as zeroes. `offset`: a cluster is kept in reserve for it there. */
  | { kind: "zero"; bytes: number; offset?: number }
  /** Not decided here: the backing file shows through, zeroes where there is none. `offset` as above. */
  | { kind: "unallocated"; bytes: number; offset?: number }
  /** Decided here, packed: only readEncoded() of the state can make it out. */
  | { kind: "encoded"; bytes: number };

/**
 * Room for one run of a write, made before the data goes there:
 *
 *      |<-- headBytes -->|<------- bytes ------->|<-- tailBytes -->|
 *      +-----------------+-----------------------+-----------------+
 *      | copied by io.ts |   the guest's data    | copied by io.ts |
 *      +-----------------+-----------------------+-----------------+
 *                        ^ the asked guest offset, `offset` in the child `role`
 *
 * io.ts writes all three parts, then calls commit(), which makes the room reachable; after a failed
 * write it calls abort() instead, exactly one of the two. Head and tail are guest bytes that the
 * new clusters take over from what the disk reads as now.
 */
export interface Allocation {
  readonly bytes: number;
  readonly role: "file" | "data-file";
  readonly offset: number;
  readonly headBytes: number;
  readonly tailBytes: number;
  commit(): Promise<void>;
  abort(): Promise<void>;
}

/** One run of a store: `bytes` > 0 with one answer; `zero` means it is known to read as zeroes. */
export interface StoreStatus {
  readonly bytes: number;
  readonly zero: boolean;
}

/** What query-named-block-nodes tells of an image (QEMU: ImageInfo in qapi/block-core.json). */
export interface StateInfo {
  readonly filename?: string;
  readonly "cluster-size"?: number;
  readonly "actual-size"?: number;
  /** null: there is none to tell of. */
  readonly "dirty-flag"?: boolean | null;
  readonly encrypted?: boolean;
  readonly compressed?: boolean;
  readonly "backing-filename"?: string;
  readonly "backing-filename-format"?: string;
  readonly "format-specific"?: { readonly type: string; readonly data: object };
}

/** What the data of an encrypted image goes through. Whole sectors of 512 bytes, in place. */
export interface SectorCipher {
  /** @param offset where the bytes are in the child: the same data is another at another place */
  encrypt(buf: Uint8Array, offset: number): void;
  /** @throws BlockError EACCES if the image was opened without its key */
  decrypt(buf: Uint8Array, offset: number): void;
}

/** One opened image, store or filter. */
export interface BlockState {
  readonly limits: BlockLimits;
  /**
   * Of a store that may be open more than once: what its bytes are. Nodes with one identity count as
   * one where users take and share permissions (QEMU: the locks of block/file-posix.c).
   */
  readonly identity?: unknown;
  /** Length of the disk in bytes. A filter leaves it out and has its child's. */
  getLength?(): number;

  // Bytes. Stores have these; filters have those they are about.
  pread?(buf: Uint8Array, offset: number, options: RequestOptions): Promise<void>;
  pwrite?(buf: Uint8Array, offset: number, options: RequestOptions): Promise<void>;
  /** Without it a store is all data. */
  storeStatus?(offset: number, bytes: number): Promise<StoreStatus>;

  // Maps. Formats have these instead of pread and pwrite: they say where, io.ts does the I/O.
  map?(offset: number, bytes: number, options: RequestOptions): Promise<Mapping>;
  /** Reads a run that map() called encoded. */
  readEncoded?(buf: Uint8Array, offset: number, options: RequestOptions): Promise<void>;
  /** All that map() calls data, and that goes where allocate() says, is encrypted by this. */
  readonly cipher?: SectorCipher | undefined;
  /** Room for a write of up to `bytes` bytes at `offset`; may serve fewer, at least one. */
  allocate?(offset: number, bytes: number, options: RequestOptions): Promise<Allocation>;
  /** Writes one whole cluster packed, or as it is where packing does not make it smaller. */
  pwriteCompressed?(buf: Uint8Array, offset: number): Promise<void>;

  // Both.
  /** @throws BlockError ENOTSUP if there is no cheap way: io.ts then writes zeroes */
  pwriteZeroes?(offset: number, bytes: number, options: RequestOptions): Promise<void>;
  /** Without it nothing happens, which is a legal discard. */
  pdiscard?(offset: number, bytes: number, options: RequestOptions): Promise<void>;
  /** Without it: ENOTSUP. New bytes read as zeroes. For stores io.ts preallocates. */
  truncate?(length: number, options?: TruncateOptions): Promise<void>;
  /** Makes all that was written last, here and in the children. A filter may leave it out. */
  flush?(): Promise<void>;
  /** Writes back what is still in memory and lets go of the store, also where that fails. Called once. */
  close?(): Promise<void>;
  /** Records another backing file's name, or none. Labels only: nothing is opened. */
  changeBackingFile?(name: string | null, format: string | null): Promise<void>;
  /**
   * The same image with another right to write; the graph has drained it and flushed it. All or
   * nothing: after a failure the state is as before. Without it: ENOTSUP, except for filters, which
   * have nothing to change.
   *
   * @param options if given: the driver's own options from now on, checked, as open() gets them; its
   *   `file` may be another node than before, so what is known of that must be read anew
   */
  reopen?(readOnly: boolean, options?: unknown): Promise<void>;
  /** Gives up all that this layer decides, so that what is below shows through. The node is drained. */
  makeEmpty?(): Promise<void>;
  /** Changes the image's own properties (x-blockdev-amend); `options` are checked. */
  amend?(options: unknown, request: AmendRequest): Promise<void>;
  /**
   * Looks for what is wrong with the image, and mends it as far as the request says; the node is
   * drained. Without it: ENOTSUP. See check.ts.
   *
   * @throws BlockError ECANCELED; what makes any further looking pointless, such as a table that cannot
   *   be read at all
   */
  check?(request: CheckRequest): Promise<CheckResult>;
  /**
   * Asked before somebody copies all of the disk. Without it: it is plausible.
   *
   * @throws BlockError EIO if the file cannot hold what the image claims: see qcow2/plausible.ts
   */
  checkPlausible?(): Promise<void>;
  /** Disk states kept inside the image. Without it: none can be. */
  readonly snapshots?: SnapshotStore;
  /** Dirty bitmaps kept inside the image. Without it none of a node's can be persistent. */
  readonly bitmapStore?: BitmapStore;
  /** The disk as it was at some moment, for snapshot-access above (QEMU: preadv_snapshot). */
  readonly snapshotAccess?: SnapshotAccess;
  /**
   * Somebody waits for the requests that are on their way through here: hold none of them back any
   * more. Calls nest; each is followed by one drainedEnd().
   */
  drainedBegin?(): void;
  drainedEnd?(): void;
  /** Of a filter: asked before the status of a run is told. @throws BlockError */
  checkStatus?(offset: number, bytes: number): Promise<void>;
  /** Where tests stop and break requests (blkdebug): see debug.ts. */
  readonly debug?: DebugPoints;
  info?(): StateInfo;
}

export interface AmendRequest {
  readonly force: boolean;
  readonly secrets?: Secrets;
  readonly signal?: AbortSignal;
}

/** One internal snapshot (QEMU: SnapshotInfo). Sizes in bytes. */
export interface SnapshotInfo {
  /** Decimal, unique in the image. */
  readonly id: string;
  /** The tag. */
  readonly name: string;
  readonly vmStateBytes: number;
  readonly dateSeconds: number;
  readonly dateNanoseconds: number;
  readonly clockNanoseconds: number;
  readonly diskBytes: number;
  /** Instructions executed, where a virtual machine counted them. */
  readonly icount?: number;
}

/** When a snapshot was taken. */
export interface SnapshotMoment {
  readonly seconds: number;
  readonly nanoseconds: number;
  readonly icount?: number;
}

/** All of these are asked for with the node drained. */
export interface SnapshotStore {
  list(): readonly SnapshotInfo[];
  /** @throws BlockError EEXIST, ENOSPC, EIO */
  create(name: string, taken: SnapshotMoment): Promise<SnapshotInfo>;
  /** Makes the disk what it was. @throws BlockError ENOENT, EINVAL */
  apply(id: string): Promise<void>;
  /** @throws BlockError ENOENT */
  delete(id: string): Promise<void>;
  /**
   * The disk reads as it was, and is as long as it was, until it is closed. Of read-only images.
   *
   * @throws BlockError ENOENT, EINVAL
   */
  load(id: string): void;
}

/** A dirty bitmap as an image keeps it. */
export interface StoredBitmap {
  readonly name: string;
  readonly granularity: number;
  /** Recording is to go on when the image is opened for writing. */
  readonly enabled: boolean;
  /** Somebody had it in memory and did not put it back: it cannot be relied on. */
  readonly inconsistent: boolean;
  /** Fills an empty bitmap. */
  load(into: DirtyBitmap): Promise<void>;
}

export interface BitmapStore {
  /** What the image holds. */
  list(): Promise<readonly StoredBitmap[]>;
  /** @throws BlockError ENOTSUP, EINVAL, ENOSPC if a bitmap like this could not be kept */
  checkRoom(name: string, granularity: number, others: number): void;
  /** The image's copies are not to be relied on from now on: says so in the image. */
  markInUse(): Promise<void>;
  /** Makes these, and no others, the image's bitmaps. The node is drained, or on its way out. */
  store(bitmaps: readonly DirtyBitmap[]): Promise<void>;
}

/** The disk at one moment, kept by a copy-before-write filter. */
export interface SnapshotAccess {
  /** @throws BlockError EACCES for what is not part of the snapshot, or if it is broken */
  pread(buf: Uint8Array, offset: number, options: RequestOptions): Promise<void>;
  status(offset: number, bytes: number): Promise<StoreStatus>;
  /** Nobody will read this part of the snapshot any more. */
  pdiscard(offset: number, bytes: number): Promise<void>;
}

export interface OpenContext<Options> {
  readonly world: World;
  /** Of the graph; missing where a driver is used without one. */
  readonly throttleGroups?: ThrottleGroups;
  /** Of the graph; without it no id of a secret is known. */
  readonly secrets?: Secrets;
  /** The driver's own options, already checked by its schema. */
  readonly options: Options;
  /** For error texts. */
  readonly nodeName: string;
  readonly readOnly: boolean;
  /** What blockdev-add named or nested, by role; a role that was not given is missing. */
  readonly children: Children;
  /**
   * The image is opened to be checked, and for nothing else: it opens also where its marks, or what is
   * wrong with it, forbid all other use (QEMU: BDRV_O_CHECK).
   */
  readonly forCheck?: boolean;
  /**
   * Only what the image says of itself will be asked for, none of the disk's bytes: children that hold
   * some, and keys, may be missing (QEMU: BDRV_O_NO_IO).
   */
  readonly noIo?: boolean;
  readonly signal?: AbortSignal;
}

export interface CreateContext<Options> {
  readonly world: World;
  readonly secrets?: Secrets;
  readonly options: Options;
  /** For formats: the node to write the new image into, opened for writing and resizing. */
  readonly file?: BlockChild;
  /** Where the new image keeps its data, if elsewhere: gets the disk's length. Without it a name will do. */
  readonly dataFile?: BlockChild;
  readonly signal?: AbortSignal;
}

/** One member of a driver's options; `schema` is a valibot schema. See src/block/options.ts. */
export interface BlockDriver<OpenOptions = never, CreateOptions = never> {
  /** QMP name, the value of "driver" in blockdev-add. Kebab-case, and the file's name. */
  readonly name: string;
  readonly kind: "protocol" | "format" | "filter";
  /** Roles that blockdev-add must (true) or may (false) give. */
  readonly roles: Readonly<Partial<Record<ChildRole, boolean>>>;
  /** What its nodes hold ends with the engine: nothing would be there if one was opened again. */
  readonly isVolatile?: boolean;
  /** It is about the very nodes that it stands on: what takes their place does not get it as a user. */
  readonly staysAtChildren?: boolean;
  /** What blockdev-add calls a role where that is not the role's own name (blkdebug: `image`). */
  readonly roleMembers?: Readonly<Partial<Record<ChildRole, string>>>;
  /** How sure the driver is that these first bytes are its own: 0 no, 100 certain. */
  probe?(head: Uint8Array): number;
  /** valibot entries of the driver's own members of blockdev-add, without roles and base options. */
  readonly openOptions: OptionEntries;
  /** Those of openOptions that blockdev-reopen may change. Without it: it does not reopen at all. */
  readonly reopenOptions?: readonly string[];
  /** Those of reopenOptions that say which bytes of its file the disk is made of. */
  readonly windowOptions?: readonly string[];
  open(context: OpenContext<OpenOptions>): Promise<BlockState>;
  /** valibot entries of the driver's own members of blockdev-create. */
  readonly createOptions?: OptionEntries;
  /** Makes a new, empty image and lets go of it again. A format is given `file`. */
  create?(context: CreateContext<CreateOptions>): Promise<void>;
  /** valibot entries of the driver's own members of x-blockdev-amend. */
  readonly amendOptions?: OptionEntries;
  /**
   * What it needs of, and shares on, a child. Without it: the defaults in permissions.ts.
   *
   * @param options the driver's own, as open() gets them
   */
  childPermissions?(
    role: ChildRole,
    above: ChildPermissions,
    readOnly: boolean,
    options: OpenOptions,
  ): ChildPermissions;
}

/** Name -> valibot schema. Typed loosely here so that this floor need not know the library. */
export type OptionEntries = Readonly<Record<string, import("valibot").GenericSchema>>;
