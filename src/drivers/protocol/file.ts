/**
 * A file, on Node. Never import this from anything that a browser loads: it needs node:fs.
 *
 * The length is asked for once and then followed, as for every store: a file that others change
 * while it is open is not supported, and is found out where a read comes up short.
 */

import { constants, fstatSync, type Stats } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import * as v from "valibot";
import { MiB } from "../../base/bytes.ts";
import { size } from "../../base/check.ts";
import { assert, BlockError, throwIfAborted } from "../../base/errors.ts";
import type { BlockState, RequestOptions, StateInfo } from "../../block/driver.ts";
import type { TypedDriver } from "../../block/option-types.ts";
import { RangeLock } from "../../block/range-lock.ts";
import { storeError } from "./errors.ts";
import { FileIo } from "./file-io.ts";
import { Flushes } from "./flushes.ts";

/** What stat() counts in, whatever the file system's own blocks are. */
const STAT_BLOCK_BYTES = 512;

const openOptions = {
  filename: v.string(),
  // Node has one way to read and write files: these are hints, and change nothing that shows.
  aio: v.optional(v.picklist(["threads", "native", "io_uring"])),
  "aio-max-batch": v.optional(size),
  "drop-cache": v.optional(v.boolean()),
  "x-check-cache-dropped": v.optional(v.boolean()),
  /** "auto" keeps nodes of this engine apart; Node cannot lock out others, so "on" is refused. */
  locking: v.optional(v.picklist(["auto", "on", "off"])),
  /** There are none. */
  "pr-manager": v.optional(v.string()),
};
type OpenOptions = v.InferOutput<v.ObjectSchema<typeof openOptions, undefined>>;

const createOptions = {
  filename: v.string(),
  size,
  /** "falloc" and "full" write zeroes, which takes the room for good. */
  preallocation: v.optional(v.picklist(["off", "metadata", "falloc", "full"])),
  // Hints to file systems; Node has no way to give them.
  nocow: v.optional(v.boolean()),
  "extent-size-hint": v.optional(size),
};
type CreateOptions = v.InferOutput<v.ObjectSchema<typeof createOptions, undefined>>;

/** What types are made of: see src/block/option-types.ts. */
interface Types {
  readonly name: "file";
  readonly kind: "protocol";
  readonly roles: Record<never, never>;
  readonly openOptions: typeof openOptions;
  readonly createOptions: typeof createOptions;
}

export function fileDriver(): TypedDriver<Types, OpenOptions, CreateOptions> {
  return {
    name: "file",
    kind: "protocol",
    roles: {},
    openOptions,
    createOptions,
    reopenOptions: ["drop-cache", "x-check-cache-dropped"],

    async open({ world, options, readOnly }) {
      checkHonoured(options);
      const { filename } = options;
      const handle = await openFile(filename, flagsFor(readOnly));
      try {
        const { size, dev, ino } = await statOf(handle, filename);
        const identity = options.locking === "off" ? undefined : `${dev}:${ino}`;
        const io = new FileIo(world.clock);
        return new FileState({ handle, filename, identity, length: size, readOnly, io });
      } catch (error) {
        await handle.close();
        throw storeError(error, `Opening '${filename}'`);
      }
    },

    /** Makes the file, or empties the one that is there. */
    async create({ options: { filename, size, preallocation = "off" }, signal }) {
      if (preallocation === "metadata") {
        throw new BlockError("ENOTSUP", "A file has no metadata that could be preallocated");
      }
      const handle = await openFile(filename, constants.O_RDWR | constants.O_CREAT);
      try {
        await statOf(handle, filename);
        await handle.truncate(0);
        await handle.truncate(size);
        if (preallocation !== "off") await fillWithZeroes(handle, size, signal);
        await handle.sync();
      } catch (error) {
        throw storeError(error, `Creating '${filename}'`);
      } finally {
        await handle.close();
      }
    },
  };
}

/** @throws BlockError ENOTSUP, ENOENT for what would be a lie if it were taken */
function checkHonoured({ locking, "pr-manager": manager }: OpenOptions): void {
  if (locking === "on") {
    throw new BlockError("ENOTSUP", "'locking' cannot be 'on': Node has no way to lock a file");
  }
  if (manager === undefined) return;
  throw new BlockError("ENOENT", `There is no persistent reservation manager '${manager}'`);
}

async function fillWithZeroes(
  handle: FileHandle,
  size: number,
  signal: AbortSignal | undefined,
): Promise<void> {
  const zeroes = new Uint8Array(1 * MiB);
  for (let at = 0; at < size; ) {
    throwIfAborted(signal);
    const { bytesWritten } = await handle.write(zeroes, 0, Math.min(zeroes.length, size - at), at);
    if (bytesWritten === 0) throw new BlockError("ENOSPC", `No room after ${at} of ${size} bytes`);
    at += bytesWritten;
  }
}

function flagsFor(readOnly: boolean): number {
  return readOnly ? constants.O_RDONLY : constants.O_RDWR;
}

/** A pipe does not keep us waiting for somebody at its other end; files do not mind. */
const AT_ONCE = constants.O_NONBLOCK ?? 0;

async function openFile(filename: string, flags: number): Promise<FileHandle> {
  // Node throws a plain TypeError for it.
  if (filename.includes("\0")) throw new BlockError("EINVAL", "A file name cannot hold a NUL");
  try {
    return await open(filename, flags | AT_ONCE, 0o644);
  } catch (error) {
    throw storeError(error, `Opening '${filename}'`);
  }
}

/** @throws BlockError EINVAL if it is a directory, a device or a pipe: their length means nothing */
async function statOf(handle: FileHandle, filename: string): Promise<Stats> {
  const stat = await handle.stat();
  if (!stat.isFile()) throw new BlockError("EINVAL", `'${filename}' is not a regular file`);
  return stat;
}

interface FileInit {
  readonly handle: FileHandle;
  readonly filename: string;
  readonly identity: string | undefined;
  readonly length: number;
  readonly readOnly: boolean;
  readonly io: FileIo;
}

class FileState implements BlockState {
  readonly limits = { requestAlignment: 1, clusterSize: 0, growable: true };
  /** Node cannot lock files against other programs; other nodes of this one are seen by it. */
  readonly identity: string | undefined;
  #handle: FileHandle;
  readonly #filename: string;
  #readOnly: boolean;
  #length: number;
  /** Writers share it; who makes the file longer has it alone, or he would cut off their ends. */
  readonly #end = new RangeLock();
  readonly #io: FileIo;
  readonly #flushes = new Flushes(() =>
    this.#try(`Flushing '${this.#filename}'`, () => this.#handle.datasync()),
  );

  constructor({ handle, filename, identity, length, readOnly, io }: FileInit) {
    this.#handle = handle;
    this.identity = identity;
    this.#filename = filename;
    this.#length = length;
    this.#readOnly = readOnly;
    this.#io = io;
  }

  getLength(): number {
    return this.#length;
  }

  async pread(buf: Uint8Array, offset: number, { signal }: RequestOptions = {}): Promise<void> {
    for (let done = 0; done < buf.length; ) {
      throwIfAborted(signal);
      const bytes = await this.#transfer("Reading", "read", buf, done, offset);
      if (bytes === 0) {
        const attempted = this.#attempted("Reading", buf, offset);
        throw new BlockError("EIO", `${attempted} failed: the file has become shorter`);
      }
      done += bytes;
    }
  }

  async pwrite(buf: Uint8Array, offset: number, { signal }: RequestOptions = {}): Promise<void> {
    assert(!this.#readOnly, "nothing writes to a read-only file");
    const held = await this.#end.acquire(0, Number.POSITIVE_INFINITY, false, signal);
    try {
      await this.#write(buf, offset, signal);
    } finally {
      this.#end.release(held);
    }
  }

  async #write(buf: Uint8Array, offset: number, signal: AbortSignal | undefined): Promise<void> {
    for (let done = 0; done < buf.length; ) {
      throwIfAborted(signal);
      const bytes = await this.#transfer("Writing", "write", buf, done, offset);
      if (bytes === 0) {
        const attempted = this.#attempted("Writing", buf, offset);
        throw new BlockError("ENOSPC", `${attempted} failed: nothing written`);
      }
      done += bytes;
      // After each piece: a request that fails half way has made the file longer all the same.
      this.#length = Math.max(this.#length, offset + done);
    }
  }

  /** The rest of a buffer. @returns how much of it was done */
  async #transfer(
    what: string,
    call: "read" | "write",
    buf: Uint8Array,
    done: number,
    offset: number,
  ): Promise<number> {
    const rest = done === 0 ? buf : buf.subarray(done);
    try {
      return await this.#io[call](this.#handle, rest, offset + done);
    } catch (error) {
      throw storeError(error, this.#attempted(what, buf, offset));
    }
  }

  #attempted(what: string, buf: Uint8Array, offset: number): string {
    return `${what} ${buf.length} bytes at ${offset} of '${this.#filename}'`;
  }

  /** Past the end by a hole; Node has no call that punches one in the middle. */
  async pwriteZeroes(offset: number, bytes: number): Promise<void> {
    const held = await this.#end.acquire(0, Number.POSITIVE_INFINITY, true);
    try {
      if (offset < this.#length) throw new BlockError("ENOTSUP", "No cheap way to write zeroes");
      await this.truncate(offset + bytes);
    } finally {
      this.#end.release(held);
    }
  }

  async truncate(length: number): Promise<void> {
    assert(!this.#readOnly, "nothing writes to a read-only file");
    await this.#try(`Resizing '${this.#filename}' to ${length} bytes`, () =>
      this.#handle.truncate(length),
    );
    this.#length = length;
  }

  async flush(): Promise<void> {
    if (!this.#readOnly) await this.#flushes.done();
  }

  async reopen(readOnly: boolean): Promise<void> {
    if (readOnly === this.#readOnly) return;
    await this.flush();
    const handle = await openFile(this.#filename, flagsFor(readOnly));
    const attempted = `Opening '${this.#filename}' once more`;
    try {
      await this.#checkSame(handle, attempted);
    } catch (error) {
      await handle.close();
      throw storeError(error, attempted);
    }
    const old = this.#handle;
    this.#handle = handle;
    this.#readOnly = readOnly;
    // All that was written is on disk, and the new handle is in use: nothing hangs on the old one.
    await this.#try(attempted, () => old.close()).catch((error: unknown) => {
      if (!(error instanceof BlockError)) throw error;
    });
  }

  /** @throws BlockError ESTALE if the name now leads to another file, or a changed one */
  async #checkSame(handle: FileHandle, attempted: string): Promise<void> {
    const [found, known] = [await handle.stat(), await this.#handle.stat()];
    const isSame = found.ino === known.ino && found.dev === known.dev;
    if (isSame && found.size === this.#length) return;
    throw new BlockError("ESTALE", `${attempted} failed: it is not the file that it was`);
  }

  async close(): Promise<void> {
    await this.#try(`Closing '${this.#filename}'`, () => this.#handle.close());
  }

  info(): StateInfo {
    return {
      filename: this.#filename,
      ...this.#room(),
      "format-specific": { type: "file", data: {} },
    };
  }

  /** What the file takes up, holes left out; nothing where the system does not tell. */
  #room(): Pick<StateInfo, "actual-size"> {
    try {
      return { "actual-size": fstatSync(this.#handle.fd).blocks * STAT_BLOCK_BYTES };
    } catch {
      return {};
    }
  }

  async #try<T>(attempted: string, call: () => Promise<T>): Promise<T> {
    try {
      return await call();
    } catch (error) {
      throw storeError(error, attempted);
    }
  }
}
