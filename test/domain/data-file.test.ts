/** Images of a chain whose bytes are in a data file of their own. */

import { afterEach, beforeEach, expect, it } from "vitest";
import type { Domain } from "../../src/domain/domain.ts";
import { MemoryStore } from "../../src/drivers/protocol/memory.ts";
import {
  backupIsOver,
  ended,
  guest,
  MiB,
  makeWorld,
  memory,
  read,
  told,
  until,
  type World,
  write,
} from "./world.ts";

let world: World;
beforeEach(async () => {
  world = await makeWorld();
});
afterEach(() => world.end());

/** [base] <── [mid] <── [top], each with its data in `….data`. */
async function chain(): Promise<Domain> {
  const { client, run, stores } = world;
  let backingStore = null;
  for (const name of ["base", "mid", "top"]) {
    const dataStore = memory(`${name}.data`);
    for (const store of [name, dataStore.name]) stores.set(store, new MemoryStore(0));
    await run(client.execute("blockdev-add", { ...memory(name), "node-name": "file" } as never));
    await run(client.execute("blockdev-add", { ...dataStore, "node-name": "data" } as never));
    const label = backingStore && { "backing-file": "below", "backing-fmt": "qcow2" };
    const options = { driver: "qcow2", file: "file", "data-file": "data", size: MiB, ...label };
    await run(client.execute("blockdev-create", { "job-id": "new", options } as never));
    await run(client.waitForJob("new", "concluded"));
    expect(await run(client.execute("query-jobs"))).not.toHaveProperty("0.error");
    await run(client.execute("job-dismiss", { id: "new" }));
    for (const node of ["file", "data"])
      await run(client.execute("blockdev-del", { "node-name": node }));
    backingStore = { format: "qcow2", source: memory(name), dataStore, backingStore };
  }
  const disks = [{ target: "vda", ...backingStore! }];
  const domain = await run(world.connection.define({ name: "demo", disks } as never));
  await run(domain.create());
  return domain;
}

async function isWritable(node: string): Promise<boolean> {
  const nodes = await world.run(world.client.execute("query-named-block-nodes", { flat: true }));
  return !nodes.find((one) => one["node-name"] === node)!.ro;
}

it("commits into an image with a data file, and carries the bitmaps of checkpoints over to it", async () => {
  const domain = await chain();
  const device = await guest(world, domain, "vda");
  await write(world, device, { 1: 10 });
  await world.run(domain.checkpointCreate({ name: "one" }));
  await write(world, device, { 2: 20 });
  const before = await read(world, device);
  const overlay = { disks: [{ name: "vda", source: memory("over") }] };
  await world.run(domain.snapshotCreate(overlay, 16));
  await world.run(domain.blockCommit("vda", "/memory/base", "/memory/top"));
  await until(world, ended("vda"));
  expect(told(world, "vda")).toEqual([[3, 0]]);
  expect(await read(world, device)).toBe(before);
  const base = (await world.run(domain.info())).disks[0]!.chain[1]!.node!;
  expect(await isWritable(base)).toBe(false);
  expect(await isWritable(base.replace("format", "data"))).toBe(false);
  await write(world, device, { 3: 30 });
  const disks = [{ name: "vda", target: memory("inc") }];
  await world.run(domain.backupBegin({ incremental: "one", disks }));
  await until(world, backupIsOver);
  expect(await world.run(domain.getJobStats(1))).toMatchObject({ type: 3, disk_total: 2 * 65536 });
});
