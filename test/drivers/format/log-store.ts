/**
 * A store in memory that remembers everything done to it, so that the disk can be put together as
 * a power cut at any moment could have left it (test/crash/states.ts); and that can be told to fail.
 */

import { BlockError, type Errno } from "../../../src/base/errors.ts";
import type { BlockDriver } from "../../../src/block/driver.ts";
import { Content, type Entry } from "../../crash/log.ts";

type Change =
  | { readonly kind: "write"; readonly offset: number; readonly bytes: Uint8Array }
  | { readonly kind: "truncate"; readonly length: number }
  | { readonly kind: "flush" };

const FILE = "store";

export class LogStore {
  readonly log: Entry[] = [];
  /** The n-th change from now on fails, and `failures` - 1 after it. 0: none. */
  failAt = 0;
  failures = 1;
  failWith: Errno = "ENOSPC";
  /** Of the largest buffer that somebody had for reading: a measure of what claims can do. */
  largestRead = 0;
  readonly #content: Content;
  #changes = 0;

  constructor(bytes: Uint8Array) {
    this.#content = new Content(bytes.slice());
  }

  get bytes(): Uint8Array {
    return this.#content.bytes;
  }

  get changes(): number {
    return this.#changes;
  }

  apply(change: Change): void {
    this.#changes++;
    const late = this.#changes - this.failAt;
    if (this.failAt > 0 && late >= 0 && late < this.failures) {
      throw new BlockError(this.failWith, `The store fails at change ${this.#changes}, as planned`);
    }
    const flush = this.#changes;
    if (change.kind === "flush") this.log.push({ kind: "flush-begin", file: FILE, flush });
    const entry = { ...change, file: FILE, flush };
    this.log.push(entry);
    this.#content.apply(entry);
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
