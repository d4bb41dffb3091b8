/**
 * The smallest format that has everything io.ts deals with: clusters that are allocated anywhere in
 * its file, zero clusters, and a backing file. Its table lives in memory only. A test of io.ts can
 * see with it what a driver is promised, without qcow2 in between.
 */

import * as v from "valibot";
import { assert, BlockError } from "../../src/base/errors.ts";
import type { BlockDriver } from "../../src/block/driver.ts";

interface TinyOptions {
  readonly size: number;
  readonly "cluster-size": number;
  /** The header cannot be written. */
  readonly sealed?: boolean;
}

export const tinyFormat: BlockDriver<TinyOptions> = {
  name: "tiny",
  kind: "format",
  roles: { file: true, backing: false },
  openOptions: {
    size: v.number(),
    "cluster-size": v.number(),
    sealed: v.exactOptional(v.boolean()),
  },

  async open({ options, children, world }) {
    const clusterSize = options["cluster-size"];
    const { file } = children;
    assert(file, "tiny has a file");
    const table = new Map<number, "zero" | number>();
    /** Clusters with an allocation under way: io.ts promises that there is one at most. */
    const changing = new Set<number>();
    let end = 0;
    let { size } = options;
    let label: string | null = null;

    return {
      limits: { requestAlignment: 1, clusterSize, growable: false },
      getLength: () => size,

      async map(offset, bytes) {
        await world.clock.yield();
        const index = Math.floor(offset / clusterSize);
        assert(!changing.has(index), "nobody reads a cluster that is changing");
        const inCluster = offset % clusterSize;
        const run = Math.min(bytes, clusterSize - inCluster);
        const place = table.get(index);
        if (place === undefined) return { kind: "unallocated", bytes: run };
        if (place === "zero") return { kind: "zero", bytes: run };
        return { kind: "data", bytes: run, role: "file", offset: place + inCluster };
      },

      async allocate(offset, bytes) {
        await world.clock.yield();
        const index = Math.floor(offset / clusterSize);
        const inCluster = offset % clusterSize;
        const run = Math.min(bytes, clusterSize - inCluster);
        const place = table.get(index);
        assert(!changing.has(index), "one change of a cluster at a time");
        if (typeof place === "number") {
          const nothing = async () => {};
          return {
            bytes: run,
            role: "file",
            offset: place + inCluster,
            headBytes: 0,
            tailBytes: 0,
            commit: nothing,
            abort: nothing,
          };
        }
        // io.ts reads the old content of this cluster for head and tail, so map() must go on.
        const host = end;
        end += clusterSize;
        return {
          bytes: run,
          role: "file",
          offset: host + inCluster,
          headBytes: inCluster,
          tailBytes: clusterSize - inCluster - run,
          async commit() {
            changing.add(index);
            await world.clock.yield();
            table.set(index, host);
            changing.delete(index);
          },
          async abort() {},
        };
      },

      async pwriteZeroes(offset, bytes) {
        for (let at = offset; at < offset + bytes; at += clusterSize) {
          const index = Math.floor(at / clusterSize);
          assert(at % clusterSize === 0, "zero writes come in whole clusters");
          table.set(index, "zero");
        }
      },

      /** Whole clusters only. What a longer backing file would show of the new ones is hidden. */
      async truncate(length) {
        assert(length >= size && size % clusterSize === 0, "tiny only grows, by whole clusters");
        const shown = Math.min(length, children.backing?.length ?? 0);
        for (let at = size; at < shown; at += clusterSize) table.set(at / clusterSize, "zero");
        await world.clock.yield();
        size = length;
      },

      async changeBackingFile(name) {
        if (options.sealed) throw new BlockError("EIO", "The header cannot be written");
        label = name;
      },
      info: () => (label === null ? {} : { "backing-filename": label }),
      flush: () => file.flush(),
      reopen: async () => {},
    };
  },
};
