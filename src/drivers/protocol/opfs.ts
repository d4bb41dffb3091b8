/**
 * A file of the origin's private file system, through a sync access handle: no copies, no promises,
 * straight between the file and wasm memory. Lives in a dedicated worker only; no browser has sync
 * handles anywhere else.
 *
 * Browsers do not always say no by an exception, so every answer is checked:
 *
 *   write() = 0                   Firefox, quota reached
 *   write() = 2^32 - 8            Chromium, off the record, store full: a negative error code that
 *                                 was cast to unsigned (measured, Chromium 156)
 *   truncate() without effect     Chromium, off the record, store full (the same)
 *
 * Holes are real on disk, but quota is charged by length. Nothing punches holes.
 */

import * as v from "valibot";
import { size } from "../../base/check.ts";
import type { Clock } from "../../base/clock.ts";
import { assert, BlockError, throwIfAborted } from "../../base/errors.ts";
import type { BlockState, RequestOptions, StateInfo } from "../../block/driver.ts";
import type { TypedDriver } from "../../block/option-types.ts";
import { storeError } from "./errors.ts";
import { Flushes } from "./flushes.ts";
import { retryWhileBusy } from "./retry-busy.ts";

/** The part of the platform that lib.dom leaves out, because windows have none of it. */
export interface SyncAccessHandle {
  /** Where there are handles that only read, and more than one of those at once: Chromium. */
  readonly mode?: string;
  read(buf: Uint8Array, options: { at: number }): number;
  write(buf: Uint8Array, options: { at: number }): number;
  truncate(length: number): void;
  getSize(): number;
  flush(): void;
  close(): void;
}

interface SyncAccess {
  createSyncAccessHandle(options?: { mode: "readwrite" | "read-only" }): Promise<SyncAccessHandle>;
}

/** The directory in the root of OPFS that holds our files and nobody else's. */
const DIRECTORY = "blocktab";

/** FILE_ERROR_NO_SPACE of Chromium's base/files/file.h, as write() returns it. */
const CHROMIUM_NO_SPACE = 2 ** 32 - 8;

/** Browsers and the systems below them disagree about all other names. */
const filename = v.pipe(
  v.string(),
  v.check(
    (name) => /^[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}$/.test(name),
    "1 to 200 letters, digits, '.', '_' and '-', not starting with '.'",
  ),
);

const openOptions = { filename };
type OpenOptions = v.InferOutput<v.ObjectSchema<typeof openOptions, undefined>>;

const createOptions = { filename, size };
type CreateOptions = v.InferOutput<v.ObjectSchema<typeof createOptions, undefined>>;

/** What types are made of: see src/block/option-types.ts. */
interface Types {
  readonly name: "opfs";
  readonly kind: "protocol";
  readonly roles: Record<never, never>;
  readonly openOptions: typeof openOptions;
  readonly createOptions: typeof createOptions;
}

/** @param directory the directory in the root of OPFS; made when the first file is */
export function opfsDriver(directory = DIRECTORY): TypedDriver<Types, OpenOptions, CreateOptions> {
  return {
    name: "opfs",
    kind: "protocol",
    roles: {},
    openOptions,
    reopenOptions: [],
    createOptions,

    async open({ options: { filename }, readOnly, world, signal }) {
      const file = await findFile(directory, filename, false);
      const openAs = (readOnly: boolean, signal?: AbortSignal) =>
        retryWhileBusy(world.clock, signal, () => openHandle(file, filename, readOnly));
      const handle = await openAs(readOnly, signal);
      try {
        throwIfAborted(signal);
        return new OpfsImage(handle, filename, readOnly, openAs);
      } catch (error) {
        handle.close();
        throw storeError(error, `Opening '${filename}' in OPFS`);
      }
    },

    /** Makes the file, or empties the one that is there. */
    async create({ options: { filename, size }, world, signal }) {
      const file = await findFile(directory, filename, true);
      const handle = await retryWhileBusy(world.clock, signal, () =>
        openHandle(file, filename, false),
      );
      try {
        throwIfAborted(signal);
        const state = new OpfsState(handle, filename, false, () => Promise.resolve(handle));
        await state.truncate(0);
        await state.truncate(size);
        await state.flush();
      } finally {
        handle.close();
      }
    },
  };
}

/**
 * A file of ours that is no image: made if there is none, for whoever opens it alone.
 *
 * @param directory in the root of OPFS; not that of the images, which are listed
 * @throws BlockError EBUSY if it is open elsewhere and stays so; ENOTSUP, EACCES if there is no OPFS to write
 *   to here
 */
export async function openOpfsFile(
  directory: string,
  filename: string,
  clock: Clock,
): Promise<OpfsState> {
  const file = await findFile(directory, filename, true);
  const openAs = () => retryWhileBusy(clock, undefined, () => openHandle(file, filename, false));
  return new OpfsState(await openAs(), filename, false, openAs);
}

/** Exported for its test: no browser gives all the strange answers on demand. */
export class OpfsState implements BlockState {
  readonly limits = { requestAlignment: 1, clusterSize: 0, growable: true };
  /** null: lost while it was exchanged for another one. */
  #handle: SyncAccessHandle | null;
  readonly #filename: string;
  #readOnly: boolean;
  readonly #openAs: (readOnly: boolean) => Promise<SyncAccessHandle>;
  /** Followed, not asked for: in Firefox each getSize() crosses processes. */
  #length: number;

  /** @param openAs opens another handle of the same file, which is closed meanwhile */
  constructor(
    handle: SyncAccessHandle,
    filename: string,
    readOnly: boolean,
    openAs: (readOnly: boolean) => Promise<SyncAccessHandle>,
  ) {
    this.#handle = handle;
    this.#filename = filename;
    this.#readOnly = readOnly;
    this.#openAs = openAs;
    this.#length = handle.getSize();
  }

  getLength(): number {
    return this.#length;
  }

  async pread(buf: Uint8Array, offset: number, { signal }: RequestOptions = {}): Promise<void> {
    throwIfAborted(signal);
    const attempted = `Reading ${buf.length} bytes at ${offset} of '${this.#filename}' in OPFS`;
    let rest = buf;
    while (rest.length > 0) {
      const at = offset + buf.length - rest.length;
      const count = this.#try(attempted, () => this.#live().read(rest, { at }));
      if (!(count > 0 && count <= rest.length)) {
        throw new BlockError("EIO", `${attempted} failed: the browser read ${count} bytes`);
      }
      rest = rest.subarray(count);
    }
  }

  async pwrite(buf: Uint8Array, offset: number, { signal }: RequestOptions = {}): Promise<void> {
    throwIfAborted(signal);
    assert(!this.#readOnly, "nothing writes to a read-only file");
    assert(buf.length > 0, "a buffer in wasm memory is not detached while it is written");
    const attempted = `Writing ${buf.length} bytes at ${offset} of '${this.#filename}' in OPFS`;
    let rest = buf;
    try {
      while (rest.length > 0) {
        const at = offset + buf.length - rest.length;
        const count = this.#try(attempted, () => this.#live().write(rest, { at }));
        if (count > rest.length || count < 0) {
          const errno = count === CHROMIUM_NO_SPACE ? "ENOSPC" : "EIO";
          throw new BlockError(errno, `${attempted} failed: the browser answered ${count}`);
        }
        if (count === 0) throw new BlockError("ENOSPC", `${attempted} failed: no space left`);
        rest = rest.subarray(count);
      }
    } catch (error) {
      // How much of it got there is anyone's guess.
      this.#length = this.#try(attempted, () => this.#live().getSize());
      throw error;
    }
    this.#length = Math.max(this.#length, offset + buf.length);
  }

  /** Past the end by a hole. There is no call that punches one in the middle. */
  async pwriteZeroes(offset: number, bytes: number): Promise<void> {
    if (offset < this.#length) throw new BlockError("ENOTSUP", "No cheap way to write zeroes");
    await this.truncate(offset + bytes);
  }

  async truncate(length: number): Promise<void> {
    assert(!this.#readOnly, "nothing writes to a read-only file");
    const attempted = `Resizing '${this.#filename}' in OPFS to ${length} bytes`;
    const before = this.#length;
    this.#try(attempted, () => this.#live().truncate(length));
    this.#length = this.#try(attempted, () => this.#live().getSize());
    if (this.#length !== length) {
      const errno = length > before ? "ENOSPC" : "EIO";
      throw new BlockError(errno, `${attempted} failed: it is ${this.#length} bytes long`);
    }
  }

  async flush(): Promise<void> {
    if (this.#readOnly) return;
    this.#try(`Flushing '${this.#filename}' in OPFS`, () => this.#live().flush());
  }

  /**
   * Exchanges the handle where there are two kinds, so that others may read what nobody writes any
   * more. A handle that writes stands no other beside it: for a moment the file is nobody's.
   */
  async reopen(readOnly: boolean): Promise<void> {
    if (readOnly === this.#readOnly) return;
    await this.flush();
    const attempted = `Opening '${this.#filename}' in OPFS once more`;
    const old = this.#live();
    if ("mode" in old) {
      this.#try(attempted, () => old.close());
      this.#handle = null;
      try {
        this.#handle = await this.#openAs(readOnly);
      } catch (error) {
        if (!(error instanceof BlockError)) throw error;
        this.#handle = await this.#openAs(this.#readOnly);
        this.#checkSame(attempted);
        throw error;
      }
      this.#checkSame(attempted);
    }
    this.#readOnly = readOnly;
  }

  /** Somebody else may have had the file in between. */
  #checkSame(attempted: string): void {
    const handle = this.#live();
    if (this.#try(attempted, () => handle.getSize()) === this.#length) return;
    this.#handle = null;
    handle.close();
    throw new BlockError("ESTALE", `${attempted} failed: it was changed in between`);
  }

  /** @throws BlockError ESTALE if the file could not be had again after a reopen */
  #live(): SyncAccessHandle {
    if (this.#handle) return this.#handle;
    throw new BlockError(
      "ESTALE",
      `The file '${this.#filename}' in OPFS was lost while it was opened once more: close its node ` +
        "and open it again",
    );
  }

  async close(): Promise<void> {
    this.#handle?.close();
  }

  info(): StateInfo {
    return { filename: this.#filename };
  }

  #try<T>(attempted: string, call: () => T): T {
    try {
      return call();
    } catch (error) {
      throw storeError(error, attempted);
    }
  }
}

/** Nobody writes all of an image again when a flush has failed, as is done with a record. */
export class OpfsImage extends OpfsState {
  readonly #flushes = new Flushes(() => super.flush());

  override flush(): Promise<void> {
    return this.#flushes.done();
  }
}

/**
 * Our files in OPFS, by name. Works in a window, too.
 *
 * @returns size in bytes, as of now
 */
export async function listOpfs(
  directory = DIRECTORY,
): Promise<{ readonly filename: string; readonly size: number }[]> {
  try {
    const root = await opfsRoot();
    const files = [];
    const entries = (await root.getDirectoryHandle(directory, { create: true })).values();
    for await (const entry of entries) {
      if (entry.kind !== "file") continue;
      const size = await sizeOf(entry as FileSystemFileHandle);
      if (size !== null) files.push({ filename: entry.name, size });
    }
    return files.sort((a, b) => (a.filename < b.filename ? -1 : 1));
  } catch (error) {
    throw storeError(error, "Listing the files in OPFS");
  }
}

/** In bytes; null if it has been removed since it was listed. */
async function sizeOf(file: FileSystemFileHandle): Promise<number | null> {
  try {
    return (await file.getFile()).size;
  } catch (error) {
    if (error instanceof DOMException && error.name === "NotFoundError") return null;
    throw error;
  }
}

/** @throws BlockError EBUSY while it is open anywhere, ENOENT if there is none */
export async function removeOpfs(filename: string, directory = DIRECTORY): Promise<void> {
  try {
    const root = await opfsRoot();
    await (await root.getDirectoryHandle(directory, { create: true })).removeEntry(filename);
  } catch (error) {
    const reason = storeError(error, `Deleting '${filename}' in OPFS`);
    throw reason.errno === "EBUSY" ? openElsewhere(filename, error) : reason;
  }
}

/**
 * The bytes of a file, backed by the disk and not by memory: for a download. Whoever holds it must
 * see to it that nobody writes meanwhile, or reading it fails.
 */
export async function opfsFile(filename: string, directory = DIRECTORY): Promise<File> {
  return (await findFile(directory, filename, false)).getFile();
}

async function opfsRoot(): Promise<FileSystemDirectoryHandle> {
  if (globalThis.navigator?.storage?.getDirectory === undefined) {
    throw new BlockError(
      "ENOTSUP",
      "There is no OPFS here: it needs a page from https or localhost, and a browser that has it",
    );
  }
  // Said before anything is made. Windows have no such handles in any browser.
  const isWorker = "DedicatedWorkerGlobalScope" in globalThis;
  if (isWorker && !("createSyncAccessHandle" in FileSystemFileHandle.prototype)) {
    throw new BlockError("ENOTSUP", "OPFS has no sync access handles here, which images need");
  }
  return navigator.storage.getDirectory();
}

async function findFile(
  directory: string,
  filename: string,
  create: boolean,
): Promise<FileSystemFileHandle> {
  try {
    const root = await opfsRoot();
    const folder = await root.getDirectoryHandle(directory, { create: true });
    return await folder.getFileHandle(filename, { create });
  } catch (error) {
    throw storeError(error, `${create ? "Creating" : "Opening"} '${filename}' in OPFS`);
  }
}

/** @throws BlockError EBUSY if the file is open elsewhere, ENOTSUP where there are no such handles */
async function openHandle(
  file: FileSystemFileHandle,
  filename: string,
  readOnly: boolean,
): Promise<SyncAccessHandle> {
  if (!("createSyncAccessHandle" in file)) {
    throw new BlockError(
      "ENOTSUP",
      `Opening '${filename}' in OPFS failed: only dedicated workers have sync access handles, ` +
        "and not in every browser",
    );
  }
  try {
    // Where there are no modes the option is ignored, and even readers exclude each other.
    const mode = readOnly ? "read-only" : "readwrite";
    return await (file as unknown as SyncAccess).createSyncAccessHandle({ mode });
  } catch (error) {
    const reason = storeError(error, `Opening '${filename}' in OPFS`);
    if (reason.errno !== "EBUSY") throw reason;
    throw openElsewhere(filename, error);
  }
}

function openElsewhere(filename: string, cause: unknown): BlockError {
  return new BlockError(
    "EBUSY",
    `The file '${filename}' in OPFS is open elsewhere: close the other tab that uses it, ` +
      "or restart the browser",
    { cause },
  );
}
