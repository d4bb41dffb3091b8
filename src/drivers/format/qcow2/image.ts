/**
 * One opened image, as all of the driver's parts share it. The parts are functions over it:
 *
 *     l2.ts          where is this byte?            refcount.ts   which clusters are free?
 *     allocate.ts    room for a write               epoch.ts      what is written in which order
 *     zeroes.ts      zero writes, discards          resize.ts     larger and smaller disks
 *     compressed.ts  packed clusters                rewrite.ts    the header's names
 *     snapshots.ts   internal snapshots             amend.ts      the image's own properties
 *     encryption.ts  keys, and the cipher of data
 *
 * Whatever changes the image's tables runs inside `mutex`, one at a time. Guest data does not: room
 * for it is made under the mutex, it is written without, and made reachable under the mutex again.
 */

import { writeU32, writeU64 } from "../../../base/bytes.ts";
import { assert, BlockError } from "../../../base/errors.ts";
import { InOrder } from "../../../base/in-order.ts";
import { Mutex } from "../../../base/mutex.ts";
import type { HostZlib } from "../../../base/zlib.ts";
import type { BlockChild } from "../../../block/child.ts";
import type { Children, World } from "../../../block/driver.ts";
import type { Kernel } from "../../../kernel/kernel.ts";
import { markBitmapsInUse } from "./bitmaps.ts";
import type { Encryption } from "./encryption.ts";
import { Epoch } from "./epoch.ts";
import type { Extensions } from "./extensions.ts";
import { Guard } from "./guard.ts";
import { AT, Autoclear, type FeatureWord, type Header, Incompatible } from "./header.ts";
import type { Inflater } from "./inflate.ts";
import type { Layout } from "./layout.ts";
import type { PassesDiscard } from "./open-options.ts";
import { Pages, type Table } from "./pages.ts";
import { Refcounts } from "./refcount.ts";
import type { SnapshotEntry } from "./snapshot-table.ts";
import { Unpacked } from "./unpacked.ts";

export interface ImageInit {
  readonly header: Header;
  readonly extensions: Extensions;
  readonly world: World;
  readonly nodeName: string;
  readonly readOnly: boolean;
  readonly children: Children;
  readonly inflate: Inflater;
  /** Most memory for tables. */
  readonly cacheBytes: number;
  /** What is discarded keeps its clusters ('discard-no-unref'). */
  readonly keepsDiscarded: boolean;
  /** Freed clusters are discarded in the file: see open-options.ts. */
  readonly passesDiscard: PassesDiscard;
}

export class Image {
  readonly nodeName: string;
  readonly readOnly: boolean;
  readonly kernel: Kernel;
  readonly file: BlockChild;
  readonly inflate: Inflater;
  readonly zlib: HostZlib | undefined;
  /** Replaced when the refcounts' width changes, which changes nothing but what counts refcounts. */
  layout: Layout;
  /** True if guest clusters live in the data-file child, each at its guest offset. */
  readonly externalData: boolean;
  readonly keepsDiscarded: boolean;
  readonly passesDiscard: PassesDiscard;
  readonly mutex = new Mutex();
  /** Of clusters that are being packed. */
  readonly packing = new InOrder();
  readonly pages: Pages;
  readonly refcounts: Refcounts;
  readonly epoch: Epoch;
  readonly unpacked: Unpacked;
  /** As in the file now. Replaced, never changed. */
  header: Header;
  extensions: Extensions;
  l1: Table;
  /** Replaced when everything moves: see rebuild.ts. */
  guard: Guard;
  /** As in the file now. */
  snapshots: readonly SnapshotEntry[] = [];
  /** Why `snapshots` is not known: only where the image is read-only. */
  snapshotError: BlockError | null = null;
  /** null: data is as it is. Set once, when the image is opened. */
  encryption: Encryption | null = null;
  /** Something was found that must not be: nothing is written any more. */
  isCorrupt: boolean;
  /** That the bitmaps of a corrupt image are lost has been told. */
  hasGivenUpBitmaps = false;
  /** Next free byte for packed data, and the end of the cluster that it is in; null: none yet. */
  packedTail: { offset: number; end: number } | null = null;
  readonly #children: Children;
  #mayWrite = false;

  constructor(init: ImageInit) {
    const { header, children } = init;
    assert(children.file, "a qcow2 image has a file");
    this.nodeName = init.nodeName;
    this.readOnly = init.readOnly;
    this.keepsDiscarded = init.keepsDiscarded;
    this.passesDiscard = init.passesDiscard;
    this.kernel = init.world.kernel;
    this.zlib = init.world.zlib;
    this.file = children.file;
    this.inflate = init.inflate;
    this.layout = header.layout;
    this.externalData = (header.incompatible.lo & Incompatible.externalData) !== 0;
    this.header = header;
    this.extensions = init.extensions;
    this.#children = children;
    this.isCorrupt = (header.incompatible.lo & Incompatible.corrupt) !== 0;
    this.l1 = { kind: "l1", offset: header.l1Offset, bytes: header.l1Entries * 8 };
    this.pages = new Pages(this.file, this.kernel, this.layout.clusterBytes, init.cacheBytes);
    this.guard = new Guard(this.layout.clusterBytes);
    this.refcounts = new Refcounts(this);
    this.epoch = new Epoch(this);
    this.unpacked = new Unpacked(this.layout.clusterBytes);
  }

  get dataFile(): BlockChild | undefined {
    return this.#children["data-file"];
  }

  get backing(): BlockChild | undefined {
    return this.#children.backing;
  }

  /** True unless it is certain that unallocated clusters read as zeroes, now and later. */
  get mayHaveBacking(): boolean {
    return this.backing !== undefined || this.extensions.backingName !== null;
  }

  get isRawExternal(): boolean {
    return this.externalData && (this.header.autoclear.lo & Autoclear.rawExternalData) !== 0;
  }

  l2Table(offset: number): Table {
    return { kind: "l2", offset, bytes: this.layout.clusterBytes };
  }

  /**
   * Called under the mutex before anything is changed. The first time it clears, in the file, the
   * autoclear bits that our writes would make untrue: those we do not know, and that of bitmaps that
   * could not be marked in use.
   *
   * @throws BlockError EIO on an image known to be corrupt
   */
  async beginChange(): Promise<void> {
    assert(!this.readOnly, "a read-only image is not changed");
    this.checkUsable();
    if (this.#mayWrite) return;
    const { autoclear } = this.header;
    let kept = this.externalData ? (autoclear.lo & Autoclear.rawExternalData) >>> 0 : 0;
    if (autoclear.lo & Autoclear.bitmaps && (await markBitmapsInUse(this))) {
      kept |= Autoclear.bitmaps;
      await this.file.flush();
    }
    if (autoclear.hi !== 0 || autoclear.lo !== kept) {
      await this.writeAutoclear({ hi: 0, lo: kept });
    }
    this.#mayWrite = true;
  }

  /** Everything is in the file, the bitmaps too: the next change begins anew. Under the mutex. */
  endChange(): void {
    this.#mayWrite = false;
  }

  /** Changes the word in the file, and flushes it. */
  async writeAutoclear({ hi, lo }: FeatureWord): Promise<void> {
    const bytes = new Uint8Array(8);
    writeU32(bytes, 0, hi);
    writeU32(bytes, 4, lo);
    await this.file.write(bytes, AT.autoclear);
    await this.file.flush();
    this.header = { ...this.header, autoclear: { hi, lo } };
  }

  get hasBegunChanging(): boolean {
    return this.#mayWrite;
  }

  checkUsable(): void {
    if (!this.isCorrupt) return;
    throw new BlockError(
      "EIO",
      `The image of node '${this.nodeName}' is corrupt and is not written any more; repair it first`,
    );
  }

  /**
   * Stops all further writing and says so in the file, as far as it still takes writes.
   *
   * @returns the error to throw: what was found, and if the mark could not be set, that
   */
  async markCorrupt(found: BlockError): Promise<BlockError> {
    if (this.isCorrupt || this.readOnly) return found;
    this.isCorrupt = true;
    if (this.header.version === 2) return found;
    const { incompatible } = this.header;
    const word = { hi: incompatible.hi, lo: (incompatible.lo | Incompatible.corrupt) >>> 0 };
    this.header = { ...this.header, incompatible: word };
    const bytes = new Uint8Array(8);
    writeU64(bytes, 0, word.hi * 2 ** 32 + word.lo);
    try {
      await this.file.write(bytes, AT.incompatible);
      await this.file.flush();
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
      return new BlockError(
        found.errno,
        `${found.message}; the image could not be marked corrupt: ${error.message}`,
        { cause: found },
      );
    }
    return found;
  }
}
