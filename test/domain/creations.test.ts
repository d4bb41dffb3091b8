/** A driver is lost while the engine makes an image for it. */

import { afterEach, beforeEach, expect, it } from "vitest";
import type { BlockDriver } from "../../src/block/driver.ts";
import type { DriverRecord } from "../../src/domain/record.ts";
import { Life, memoryGround } from "./lives.ts";
import { disk, image, isReady, makeWorld, running, settle, until, type World } from "./world.ts";

let world: World;
beforeEach(async () => {
  world = await makeWorld();
});
afterEach(() => world.end());

const demo = () => world.connection.domain("demo");
const jobs = () => world.run(world.client.execute("query-jobs"));
const nodes = () => world.run(world.client.execute("query-named-block-nodes", { flat: true }));

/** What is made with the driver waits. @returns lets it go on */
function hold(name: "memory" | "qcow2"): () => void {
  const driver = world.engine.graph.driver(name) as { create: NonNullable<BlockDriver["create"]> };
  const { create } = driver;
  let open = () => {};
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  driver.create = async (context) => {
    await opened;
    return create.call(driver as BlockDriver, context);
  };
  return () => {
    driver.create = create;
    open();
  };
}

/** The driver asks for a copy, and hears nothing of the end of the nth job that makes it. */
async function lostOver(nth: number): Promise<void> {
  const { client } = world;
  const { waitForJob } = client;
  let left = nth;
  const lost = new Promise<void>((resolve) => {
    client.waitForJob = (...args) => {
      left--;
      if (left > 0) return waitForJob.apply(client, args);
      resolve();
      return new Promise(() => {});
    };
  });
  void demo().blockCopy("vda", image("copy"));
  await world.run(lost);
  client.waitForJob = waitForJob;
}

for (const [nth, name] of [
  [1, "memory"],
  [2, "qcow2"],
] as const) {
  for (const isAtWork of [true, false]) {
    const when = isAtWork ? "is at work still" : "has ended";
    it(`leaves neither job nor file of an image in the making (driver '${name}'), whose job ${when}`, async () => {
      await running(world, { vda: ["a"] });
      const before = (await nodes()).length;
      const release = hold(name);
      await lostOver(nth);
      if (!isAtWork) release();
      await settle(world);
      expect(await jobs()).toMatchObject([{ status: isAtWork ? "running" : "concluded" }]);
      await world.restart();
      if (isAtWork) {
        expect(await jobs()).toHaveLength(1);
        release();
        await settle(world);
      }
      expect(await jobs()).toEqual([]);
      expect(await nodes()).toHaveLength(before);
      expect([...world.stores.keys()]).toEqual(["a"]);
      const record = (await world.store.load()) as DriverRecord;
      expect(record.domains[0]).toMatchObject({ leftovers: [], making: [] });
      await world.run(demo().blockCopy("vda", image("copy")));
      await until(world, isReady("vda"));
    });
  }
}

it("keeps a file that was there before, though the driver was lost over the look at it", async () => {
  await running(world, { vda: ["a"], vdb: ["copy"] });
  await world.run(demo().destroy());
  await world.run(demo().undefine());
  const definition = { name: "demo", disks: [disk("vda", "a")] };
  await world.run(world.connection.define(definition as never));
  await world.run(demo().create());
  const { client } = world;
  const { execute } = client;
  const lost = new Promise<void>((resolve) => {
    client.execute = (async (...args: Parameters<typeof execute>) => {
      const result = await execute.apply(client, args);
      if (!JSON.stringify(args).includes('"copy"')) return result;
      resolve();
      return new Promise(() => {});
    }) as typeof execute;
  });
  void demo().blockCopy("vda", image("copy"));
  await world.run(lost);
  client.execute = execute;
  await world.restart();
  expect([...world.stores.keys()]).toEqual(["a", "copy"]);
  expect(await nodes()).toHaveLength(2);
});

it("ends a domain over an image in the making, and dismisses its job", async () => {
  await running(world, { vda: ["a"] });
  const release = hold("memory");
  await lostOver(1);
  await world.restart();
  const destroyed = demo().destroy();
  await settle(world);
  release();
  await world.run(destroyed);
  expect(await jobs()).toEqual([]);
  expect(await nodes()).toEqual([]);
});

it("keeps a file that an engine has made that is gone, too: it may be another one by now", async () => {
  const ground = memoryGround();
  const first = new Life(0);
  const { journal } = ground;
  const save: typeof journal.save = async (record) => {
    await journal.save(record);
    // The first life ends as soon as the file's node is on record.
    const isOpen = JSON.stringify(record).includes('"node-name":"libvirt-2-storage"');
    if (isOpen) first.ticks.last = first.ticks.count;
  };
  await first.begin({ ...ground, journal: { load: () => journal.load(), save } });
  const source = ground.source("a");
  const { client } = first;
  const disks = [{ target: "vda", format: "raw" as const, source }];
  const options = { driver: "opfs", filename: "a", size: 65536 };
  await first.lasts(client.execute("blockdev-create", { "job-id": "a", options } as never));
  await first.lasts(client.waitForJob("a", "concluded"));
  await first.lasts(client.execute("job-dismiss", { id: "a" }));
  await first.lasts(first.connection.define({ name: "demo", disks }));
  const domain = first.connection.domain("demo");
  await first.lasts(domain.create());
  void domain.blockCopy("vda", { format: "qcow2", source: ground.source("copy") });
  while (!first.ticks.isOver) await first.clock.advance(1);
  const second = new Life(1000);
  await second.begin(ground);
  expect([...ground.images().keys()]).toContain("copy");
  expect(await second.client.execute("query-jobs")).toEqual([]);
  const record = (await ground.domains.load()) as DriverRecord;
  expect(record.domains[0]).toMatchObject({ state: "running", leftovers: [], making: [] });
  await second.driver.close();
  await second.clock.runUntil(second.engine.close());
});
