import { expect, it } from "vitest";
import { MiB } from "../../../src/base/bytes.ts";
import type { BlockDriver } from "../../../src/block/driver.ts";
import { Graph } from "../../../src/block/graph.ts";
import { Perm } from "../../../src/block/permissions.ts";
import { nullDriver } from "../../../src/drivers/protocol/null.ts";
import { testWorld } from "../../world.ts";

async function open(options: object) {
  const world = await testWorld();
  const drivers = [nullDriver("null-co"), nullDriver("null-aio")] as BlockDriver[];
  const graph = new Graph(world, drivers);
  await graph.add({ driver: "null-co", "node-name": "n", ...options });
  const backend = graph.openBackend(graph.get("n"), {
    name: "",
    description: "a user",
    permissions: { take: Perm.all, share: Perm.all },
  });
  return { world, backend, graph };
}

it("is 1 GiB unless it is told, in whole sectors", async () => {
  expect((await open({})).backend.length).toBe(1024 * MiB);
  expect((await open({ size: 1000, driver: "null-aio" })).backend.length).toBe(1024);
});

it("keeps nothing, and shows nothing that a buffer held before", async () => {
  const { backend } = await open({ size: MiB });
  await backend.write(new Uint8Array(4096).fill(7), 0);
  const buf = new Uint8Array(4096).fill(9);
  await backend.read(buf, 0);
  expect(buf.every((byte) => byte === 0)).toBe(true);
  await expect(backend.truncate(2 * MiB)).rejects.toMatchObject({ errno: "ENOTSUP" });
});

it("tells that it reads as zeroes only if it was told so", async () => {
  for (const zero of [true, false]) {
    const { backend } = await open({ size: MiB, "read-zeroes": zero });
    expect(await backend.edge.status(0, MiB)).toMatchObject({ bytes: MiB, zero });
  }
});

it("takes its latency for every request, and lets go at once of who is called off", async () => {
  const { backend, world } = await open({ size: MiB, "latency-ns": 5_000_000 });
  const began = world.clock.now();
  await world.clock.runUntil(backend.read(new Uint8Array(512), 0));
  await world.clock.runUntil(backend.flush());
  expect(world.clock.now() - began).toBe(10);
  const stop = new AbortController();
  const read = backend.read(new Uint8Array(512), 0, { signal: stop.signal });
  stop.abort();
  await expect(read).rejects.toMatchObject({ errno: "ECANCELED" });
  expect(world.clock.now() - began).toBe(10);
});
