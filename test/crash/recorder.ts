/**
 * Files in memory, and one log of all that is done to them. One log for all files, because an operation on two of them (a commit, an external data file) is
 * right or wrong by their common order. Bytes as they were asked for, not whole sectors, because a
 * file of a browser takes single bytes, and a header field that is written alone can be lost alone.
 * Lengths, because files grow and shrink. The log of blklogwrites has none of the three, and its format
 * is not ours to change.
 */

import * as v from "valibot";
import { BlockError } from "../../src/base/errors.ts";
import type { Random } from "../../src/base/random.ts";
import type { DebugPoints } from "../../src/block/debug.ts";
import type { BlockDriver } from "../../src/block/driver.ts";
import { Content, type Entry, type Files, type LogSource } from "./log.ts";

export class Recorder implements LogSource {
  /** Since record(). */
  readonly log: Entry[] = [];
  /** The files as they were at record(). */
  starts = new Map<string, Uint8Array<ArrayBuffer>>();
  /** Is told what somebody has read. */
  onRead: ((bytes: Uint8Array, offset: number) => void) | null = null;
  readonly #files = new Map<string, Content>();
  #isOn = false;

  add(name: string, bytes: Uint8Array<ArrayBuffer> = new Uint8Array(0)): void {
    this.#files.set(name, new Content(bytes));
  }

  /** A new file, durable at once: whoever makes one writes to it afterwards. */
  make(name: string, length: number): void {
    if (this.has(name)) this.remove(name);
    this.add(name, new Uint8Array(length));
    this.starts.set(name, new Uint8Array(length));
  }

  /** As if it had never been. @returns what was in it */
  remove(name: string): Uint8Array<ArrayBuffer> {
    const { bytes } = this.#file(name);
    this.#files.delete(name);
    this.starts.delete(name);
    this.log.splice(0, this.log.length, ...this.log.filter(({ file }) => file !== name));
    return bytes;
  }

  has(name: string): boolean {
    return this.#files.has(name);
  }

  /** All files as they are now. */
  files(): Files {
    return new Map([...this.#files].map(([name, { bytes }]) => [name, bytes]));
  }

  bytesOf(name: string): Uint8Array<ArrayBuffer> {
    return this.#file(name).bytes;
  }

  /** From here on. What was done before counts as durable. */
  record(): void {
    this.starts = new Map([...this.#files].map(([name, { bytes }]) => [name, bytes.slice()]));
    this.#isOn = true;
  }

  apply(entry: Entry): void {
    this.#file(entry.file).apply(entry);
    if (this.#isOn) this.log.push(entry);
  }

  #file(name: string): Content {
    const content = this.#files.get(name);
    if (!content) throw new Error(`there is no file '${name}'`);
    return content;
  }
}

/**
 * The files as a protocol driver. What a request does happens a few turns after it was made, so that
 * requests that are made together happen in any order.
 */
export function recordedDriver(recorder: Recorder, random: Random | null): BlockDriver {
  let flushes = 0;
  const someTurns = async () => {
    for (let turns = random?.below(4) ?? 0; turns >= 0; turns--) await null;
  };
  return {
    name: "recorded",
    kind: "protocol",
    roles: {},
    openOptions: { filename: v.string() },
    createOptions: { filename: v.string(), size: v.number() },
    async create({ options }) {
      const { filename, size } = options as { filename: string; size: number };
      recorder.make(filename, size);
    },
    async open({ options }) {
      const { filename: file } = options as { filename: string };
      if (!recorder.has(file)) throw new BlockError("ENOENT", `There is no file '${file}'`);
      return {
        limits: { requestAlignment: 1, clusterSize: 0, growable: true },
        getLength: () => recorder.bytesOf(file).length,
        async pread(buf, offset) {
          await someTurns();
          buf.fill(0);
          buf.set(recorder.bytesOf(file).subarray(offset, offset + buf.length));
          recorder.onRead?.(buf, offset);
        },
        async pwrite(buf, offset) {
          await someTurns();
          recorder.apply({ kind: "write", file, offset, bytes: buf.slice() });
        },
        async truncate(length) {
          await someTurns();
          recorder.apply({ kind: "truncate", file, length });
        },
        async flush() {
          const flush = flushes++;
          recorder.apply({ kind: "flush-begin", file, flush });
          await someTurns();
          recorder.apply({ kind: "flush", file, flush });
        },
        reopen: async () => {},
        info: () => ({ filename: file }),
        debug: {
          ...noBreakpoints,
          event: async (step) => recorder.apply({ kind: "step", file, step }),
        },
      };
    },
  };
}

const noBreakpoints: Omit<DebugPoints, "event"> = {
  addBreak() {},
  removeBreak: () => false,
  resume: () => false,
  isSuspended: () => false,
  suspended: async () => {},
};
