/** A memory store with a switch: while `fault` is set, what it says fails. */

import { BlockError, type Errno } from "../../src/base/errors.ts";
import type { BlockDriver, RequestOptions } from "../../src/block/driver.ts";
import { memoryDriver } from "../../src/drivers/protocol/memory.ts";

export interface Fault {
  readonly op: "read" | "write" | "flush" | "reopen";
  readonly errno: Errno;
  /** Only requests that touch this byte; all if left out. */
  readonly offset?: number;
  /** So many requests go well before that. */
  after?: number;
}

export interface FaultyDriver extends BlockDriver {
  fault: Fault | null;
  /** Told of every read and write before it is done, which waits for the answer. */
  hear: ((op: "read" | "write", offset: number, bytes: number) => Promise<void> | void) | null;
}

export function faultyDriver(name: string): FaultyDriver {
  const memory = memoryDriver() as BlockDriver;
  const self = {
    ...memory,
    name,
    fault: null as Fault | null,
    hear: null as FaultyDriver["hear"],
    async open(context: never) {
      const state = await memory.open(context);
      const trip = (op: Fault["op"], offset: number, bytes: number) => {
        const { fault } = self;
        if (fault?.op !== op) return;
        const at = fault.offset;
        if (at !== undefined && (at < offset || at >= offset + bytes)) return;
        if (fault.after !== undefined && fault.after-- > 0) return;
        throw new BlockError(fault.errno, `Injected ${op} error`);
      };
      return {
        ...state,
        limits: state.limits,
        getLength: () => state.getLength!(),
        async pread(buf: Uint8Array, offset: number, options: RequestOptions) {
          await self.hear?.("read", offset, buf.length);
          trip("read", offset, buf.length);
          return state.pread!(buf, offset, options);
        },
        async pwrite(buf: Uint8Array, offset: number, options: RequestOptions) {
          await self.hear?.("write", offset, buf.length);
          trip("write", offset, buf.length);
          return state.pwrite!(buf, offset, options);
        },
        truncate: (length: number) => state.truncate!(length),
        async flush() {
          trip("flush", 0, 0);
          return state.flush!();
        },
        async reopen(readOnly: boolean) {
          trip("reopen", 0, 0);
          return state.reopen!(readOnly);
        },
        close: () => state.close!(),
      };
    },
  };
  return self as FaultyDriver;
}
