/** Loops over disks of which all is known at once: nothing that they wait for takes time. */

import { expect, it } from "vitest";
import { SystemClock } from "../../src/base/clock.ts";
import type { BlockBackend } from "../../src/block/backend.ts";
import type { BlockDriver } from "../../src/block/driver.ts";
import { Graph } from "../../src/block/graph.ts";
import { Perm } from "../../src/block/permissions.ts";
import { compareDisks } from "../../src/img/compare-loop.ts";
import { convertDisk } from "../../src/img/convert-loop.ts";
import { takeOverDifferences } from "../../src/img/rebase-loop.ts";
import { Sources } from "../../src/img/sources.ts";
import { testWorld } from "../world.ts";

const BYTES = 2 ** 40;

/** Every other sector is a hole: two thousand million runs. */
const striped: BlockDriver = {
  name: "striped",
  kind: "protocol",
  roles: {},
  openOptions: {},
  async open() {
    return {
      limits: { requestAlignment: 1, clusterSize: 0, growable: false },
      getLength: () => BYTES,
      pread: async (buf) => void buf.fill(0),
      storeStatus: async (offset, bytes) => ({
        bytes: Math.min(bytes, 512 - (offset % 512)),
        zero: Math.floor(offset / 512) % 2 === 0,
      }),
    };
  },
};

type Loop = (disk: BlockBackend, signal: AbortSignal) => Promise<unknown>;

const loops: [string, Loop][] = [
  [
    "convert",
    async (disk, signal) => {
      const failure = await convertDisk({
        sources: new Sources([disk]),
        target: disk,
        length: BYTES,
        compress: false,
        sparse: 4096,
        isZero: true,
        backingLength: null,
        parallel: 8,
        outOfOrder: false,
        rate: 0,
        progress: async () => {},
        clock: disk.node.world.clock,
        signal,
      });
      throw failure?.error;
    },
  ],
  [
    "compare",
    (disk, signal) =>
      compareDisks({
        a: disk,
        b: disk,
        strict: false,
        progress: async () => {},
        onLengths: async () => {},
        signal,
      }),
  ],
  [
    "rebase",
    (disk, signal) =>
      takeOverDifferences({
        image: disk,
        backing: null,
        inChain: null,
        compress: false,
        progress: async () => {},
        signal,
      }),
  ],
];

it.each(loops)("%s is called off by whoever waits for his turn meanwhile", async (_name, loop) => {
  const graph = new Graph(await testWorld({ clock: new SystemClock() }), [striped] as never);
  const node = await graph.add({ driver: "striped", "node-name": "striped", "read-only": true });
  const permissions = { take: Perm.consistentRead, share: Perm.all };
  const disk = graph.openBackend(node, { name: "", description: "the test", permissions });
  const call = new AbortController();
  setTimeout(() => call.abort(), 50);
  await expect(loop(disk, call.signal)).rejects.toMatchObject({ errno: "ECANCELED" });
  await graph.closeBackend(disk);
});
