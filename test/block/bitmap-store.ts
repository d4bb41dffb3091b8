/** A store in memory that keeps dirty bitmaps as images do: words of bits, by name. */

import { BlockError } from "../../src/base/errors.ts";
import type { BitmapStore, BlockDriver } from "../../src/block/driver.ts";
import { memoryDriver } from "../../src/drivers/protocol/memory.ts";

export interface KeptBitmap {
  readonly granularity: number;
  readonly enabled: boolean;
  readonly inconsistent: boolean;
  readonly words: Uint8Array;
}

/** The driver "keeper", for as many as `most` bitmaps; `kept` outlives the nodes. */
export function keeperDriver(most = 3) {
  const memory = memoryDriver() as BlockDriver;
  const kept = new Map<string, KeptBitmap>();
  const bitmapStore: BitmapStore = {
    list: async () =>
      [...kept].map(([name, { words, ...rest }]) => ({
        name,
        ...rest,
        load: async (into) => into.bits.deserialize(0, words),
      })),
    checkRoom(name, _granularity, others) {
      if (others >= most) throw new BlockError("ENOSPC", `No room for a bitmap '${name}'`);
    },
    markInUse: async () => {},
    async store(bitmaps) {
      kept.clear();
      for (const { name, granularity, enabled, inconsistent, bits } of bitmaps) {
        const words = new Uint8Array(Math.ceil(bits.size / 64) * 8);
        bits.serialize(0, words);
        kept.set(name ?? "", { granularity, enabled, inconsistent, words });
      }
    },
  };
  const driver: BlockDriver = {
    ...memory,
    name: "keeper",
    async open(context) {
      const state = await memory.open(context);
      return {
        limits: state.limits,
        getLength: () => state.getLength!(),
        pread: (buf, offset, options) => state.pread!(buf, offset, options),
        pwrite: (buf, offset, options) => state.pwrite!(buf, offset, options),
        truncate: (length) => state.truncate!(length),
        reopen: (readOnly) => state.reopen!(readOnly),
        bitmapStore,
      };
    },
  };
  return { driver, kept };
}
