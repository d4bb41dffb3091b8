/** Two who want the same cluster copied, and a copy that fails between them. */

import { expect, it } from "vitest";
import { KiB } from "../../src/base/bytes.ts";
import { BlockError } from "../../src/base/errors.ts";
import { BlockCopy } from "../../src/block/block-copy.ts";
import type { BlockDriver, RequestOptions } from "../../src/block/driver.ts";
import { Graph } from "../../src/block/graph.ts";
import { Perm } from "../../src/block/permissions.ts";
import { memoryDriver } from "../../src/drivers/protocol/memory.ts";
import { testWorld } from "../world.ts";

const CLUSTER = 64 * KiB;
/** More turns than a failed read needs to become known to all. */
const TURNS = 40;

/** A store whose first read fails, and not before it is told to. */
function failingOnce() {
  const memory = memoryDriver() as BlockDriver;
  let fail!: () => void;
  let first: Promise<void> | null = new Promise<void>((_, reject) => {
    fail = () => reject(new BlockError("EIO", "The first read fails"));
  });
  const driver = {
    ...memory,
    name: "failing-once",
    async open(context: never) {
      const state = await memory.open(context);
      return {
        limits: state.limits,
        getLength: () => state.getLength!(),
        async pread(buf: Uint8Array, offset: number, options: RequestOptions) {
          const before = first;
          first = null;
          await before;
          await state.pread!(buf, offset, options);
        },
        pwrite: (buf: Uint8Array, offset: number, options: RequestOptions) =>
          state.pwrite!(buf, offset, options),
      };
    },
  };
  return { driver, fail: () => fail() };
}

it("lets no write go on whose old content was not copied, whenever a copy of somebody else's fails", async () => {
  for (let turns = 0; turns < TURNS; turns++) {
    const { driver, fail } = failingOnce();
    const graph = new Graph(await testWorld(), [memoryDriver(), driver] as never);
    const backend = async (name: string) => {
      const node = await graph.add({ driver: name, "node-name": name, size: CLUSTER } as never);
      const permissions = { take: Perm.consistentRead | Perm.write, share: Perm.all };
      return graph.openBackend(node, { name: "", description: name, permissions });
    };
    const source = await backend("failing-once");
    const target = await backend("memory");
    await source.write(new Uint8Array(CLUSTER).fill(7), 0);
    const copy = new BlockCopy({
      source: source.edge,
      target: target.edge,
      clusterSize: CLUSTER,
    });

    const task = copy.take(0, CLUSTER, CLUSTER);
    const failing = copy.run(task!).catch((error) => error);
    for (let i = 0; i < TURNS; i++) await null;
    fail();
    for (let i = 0; i < turns; i++) await null;
    await copy.copy(0, CLUSTER);

    expect(await failing).toBeInstanceOf(BlockError);
    expect(copy.dirty.count, `after ${turns} turns`).toBe(0);
    const copied = new Uint8Array(CLUSTER);
    await target.read(copied, 0);
    expect(copied[0], `after ${turns} turns`).toBe(7);
  }
});
