/**
 * A store in memory that remembers everything done to it, so that the disk can be put together as
 * a power cut at any moment could have left it; and that can be told to fail.
 *
 *     write write FLUSH write write write ✂
 *     └── certain ──┘      └ any subset, torn at sectors ┘
 */

import { BlockError, type Errno } from "../../../src/base/errors.ts";
import type { Random } from "../../../src/base/random.ts";
import type { BlockDriver } from "../../../src/block/driver.ts";

const SECTOR_BYTES = 512;

export type LogEntry =
  | { readonly kind: "write"; readonly offset: number; readonly bytes: Uint8Array }
  | { readonly kind: "truncate"; readonly length: number }
  | { readonly kind: "flush" }
  | { readonly kind: "mark"; readonly mark: number };

export class LogStore {
  readonly log: LogEntry[] = [];
  /** The n-th change from now on fails, and `failures` - 1 after it. 0: none. */
  failAt = 0;
  failures = 1;
  failWith: Errno = "ENOSPC";
  /** Of the largest buffer that somebody had for reading: a measure of what claims can do. */
  largestRead = 0;
  readonly #content: Content;
  #changes = 0;

  constructor(bytes: Uint8Array) {
    this.#content = new Content(bytes);
  }

  get bytes(): Uint8Array {
    return this.#content.bytes;
  }

  get changes(): number {
    return this.#changes;
  }

  apply(entry: LogEntry): void {
    this.#changes++;
    const late = this.#changes - this.failAt;
    if (this.failAt > 0 && late >= 0 && late < this.failures) {
      throw new BlockError(this.failWith, `The store fails at change ${this.#changes}, as planned`);
    }
    this.log.push(entry);
    this.#content.apply(entry);
  }
}

/** Bytes that grow without being copied every time. */
class Content {
  #room: Uint8Array;
  #length: number;

  constructor(bytes: Uint8Array) {
    this.#room = bytes.slice();
    this.#length = bytes.length;
  }

  get bytes(): Uint8Array {
    return this.#room.subarray(0, this.#length);
  }

  apply(entry: LogEntry): void {
    if (entry.kind === "truncate") this.#resize(entry.length);
    if (entry.kind !== "write") return;
    this.#resize(Math.max(this.#length, entry.offset + entry.bytes.length));
    this.#room.set(entry.bytes, entry.offset);
  }

  #resize(length: number): void {
    if (length > this.#room.length) {
      const room = new Uint8Array(length * 2);
      room.set(this.bytes);
      this.#room = room;
    }
    if (length < this.#length) this.#room.fill(0, length, this.#length);
    this.#length = length;
  }
}

export function logStoreDriver(store: LogStore): BlockDriver {
  return {
    name: "log-store",
    kind: "protocol",
    roles: {},
    openOptions: {},
    open: async () => ({
      limits: { requestAlignment: 1, clusterSize: 0, growable: true },
      getLength: () => store.bytes.length,
      async pread(buf, offset) {
        await Promise.resolve();
        store.largestRead = Math.max(store.largestRead, buf.length);
        buf.fill(0);
        buf.set(store.bytes.subarray(offset, offset + buf.length));
      },
      async pwrite(buf, offset) {
        await Promise.resolve();
        store.apply({ kind: "write", offset, bytes: buf.slice() });
      },
      /** The worst that may become of what is discarded: all of it is gone, at once. */
      async pdiscard(offset, bytes) {
        await Promise.resolve();
        store.apply({ kind: "write", offset, bytes: new Uint8Array(bytes) });
      },
      async truncate(length) {
        store.apply({ kind: "truncate", length });
      },
      async flush() {
        await Promise.resolve();
        store.apply({ kind: "flush" });
      },
      reopen: async () => {},
    }),
  };
}

/**
 * What could be on disk if the power went at entry `end` of the log.
 *
 * @param honest false: flushes mean nothing. To see that a test would notice
 */
export function crashState(
  start: Uint8Array,
  log: readonly LogEntry[],
  end: number,
  random: Random,
  honest = true,
): Uint8Array {
  let certain = 0;
  if (honest) for (let i = 0; i < end; i++) if (log[i]!.kind === "flush") certain = i;
  const content = new Content(start);
  const share = random.below(5);
  for (let i = 0; i < end; i++) {
    const entry = log[i]!;
    if (i < certain || share === 4) content.apply(entry);
    else if (random.below(4) < share) tear(content, entry, random);
  }
  return content.bytes;
}

/** One in six writes is done in part only: each of its sectors or not. */
function tear(content: Content, entry: LogEntry, random: Random): void {
  if (entry.kind !== "write" || random.below(6) > 0) {
    content.apply(entry);
    return;
  }
  const end = entry.offset + entry.bytes.length;
  for (let at = entry.offset; at < end; ) {
    const next = Math.min(end, at - (at % SECTOR_BYTES) + SECTOR_BYTES);
    const bytes = entry.bytes.subarray(at - entry.offset, next - entry.offset);
    if (random.below(2)) content.apply({ kind: "write", offset: at, bytes });
    at = next;
  }
}
