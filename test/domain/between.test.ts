/** A driver is lost between a record and the command that it is about, on either side of it. */

import { afterEach, beforeEach, expect, it } from "vitest";
import { DomainError } from "../../src/domain/errors.ts";
import { BLOCK_COMMIT, BLOCK_JOB_ABORT, SNAPSHOT_CREATE } from "../../src/domain/flags.ts";
import type { DriverRecord } from "../../src/domain/record.ts";
import { MemoryDomainStore } from "../../src/domain/store.ts";
import { QmpError } from "../../src/engine/client.ts";
import {
  ended,
  guest,
  image,
  isReady,
  makeWorld,
  read,
  refusal,
  running,
  settle,
  storeUntil,
  until,
  type World,
  write,
} from "./world.ts";

let world: World;
/** Of this driver no record is kept any more as soon as this is true. */
let isLost: () => boolean;

beforeEach(async () => {
  isLost = () => false;
  world = await makeWorld({ store: storeUntil(() => isLost()) });
});
afterEach(() => world.end());

const demo = () => world.connection.domain("demo");
const paths = async () => (await world.run(demo().info())).disks[0]!.chain.map(({ path }) => path);
const topNode = () => world.engine.exports.get("domain-1-vda").backend.node.name;

/** Lost as soon as the engine has done it, and the next driver comes. */
async function lostAfter(call: () => Promise<unknown>, isDone: () => boolean): Promise<void> {
  isLost = isDone;
  await expect(world.run(call())).rejects.toThrow(DomainError);
  isLost = () => false;
}

/** The call sends everything before a command, the first of its kind or a later one; then the driver is lost. */
async function lostBefore(
  name: string,
  call: () => Promise<unknown>,
  { nth = 1 }: { readonly nth?: number } = {},
): Promise<void> {
  const { client } = world;
  const execute = client.execute.bind(client) as (...args: unknown[]) => Promise<never>;
  let left = nth;
  client.execute = (...args: unknown[]) => {
    if (args[0] === name) left--;
    return left > 0 ? execute(...args) : new Promise<never>(() => {});
  };
  void call();
  while (left > 0) await world.clock.advance(10);
  client.execute = execute;
}

const lostBeforeTransaction = (call: () => Promise<unknown>) => lostBefore("transaction", call);

/** "NODE NAME" of all that have names. */
async function bitmaps(): Promise<string[]> {
  const nodes = await world.run(world.client.execute("query-named-block-nodes", { flat: true }));
  return nodes.flatMap((node) =>
    (node["dirty-bitmaps"] ?? []).flatMap(({ name }) =>
      name ? [`${node["node-name"]} ${name}`] : [],
    ),
  );
}

const snapshot = () => {
  const disks = [{ name: "vda", source: image("snap").source }];
  return demo().snapshotCreate({ disks }, SNAPSHOT_CREATE.DISK_ONLY);
};

it("keeps what a guest writes to a snapshot of which only the engine had heard", async () => {
  await running(world, { vda: ["base"] });
  const before = topNode();
  await lostAfter(snapshot, () => topNode() !== before);
  await world.restart();
  expect(await paths()).toEqual(["/memory/snap", "/memory/base"]);
  expect(world.driver.host.record.domains[0]!.leftovers).toEqual([]);
  const device = await guest(world, demo(), "vda");
  await write(world, device, { 3: 99 });
  const written = await read(world, device);
  await world.run(device.close());
  await world.run(demo().destroy());
  await world.run(demo().create());
  expect(await paths()).toEqual(["/memory/snap", "/memory/base"]);
  expect(await read(world, await guest(world, demo(), "vda"))).toBe(written);
});

it("keeps it also when the domain was being stopped, and when the engine is gone", async () => {
  await running(world, { vda: ["base"] });
  const before = topNode();
  await lostAfter(snapshot, () => topNode() !== before);
  const device = await world.run(world.client.openDevice("domain-1-vda"));
  await write(world, device, { 3: 99 });
  const written = await read(world, device);
  await world.run(device.close());
  await world.driver.close();
  const record = (await world.store.load()) as DriverRecord;
  await world.store.save({
    ...record,
    domains: [{ ...record.domains[0]!, state: "stopping" }],
  });
  await world.restart();
  await world.run(demo().create());
  expect(await paths()).toEqual(["/memory/snap", "/memory/base"]);
  expect(await read(world, await guest(world, demo(), "vda"))).toBe(written);

  await world.run(world.engine.close());
  const kept = new MemoryDomainStore();
  await kept.save(record);
  const second = await makeWorld({ store: kept, stores: world.stores });
  const again = second.connection.domain("demo");
  expect((await second.run(again.info())).state).toBe(5);
  await second.run(again.create());
  expect(await read(second, await guest(second, again, "vda"))).toBe(written);
  await second.end();
});

it("drops the overlay of a snapshot of which the engine has never heard", async () => {
  await running(world, { vda: ["base"] });
  await lostBeforeTransaction(snapshot);
  await world.restart();
  expect(await paths()).toEqual(["/memory/base"]);
  const nodes = await world.run(world.client.execute("query-named-block-nodes", { flat: true }));
  expect(nodes.map((node) => node["node-name"]).sort()).toEqual([
    "libvirt-1-format",
    "libvirt-1-storage",
  ]);
  const [record] = world.driver.host.record.domains;
  expect(record!.leftovers).toEqual([]);
  expect(record!.disks[0]).not.toHaveProperty("overlay");
  await world.run(demo().snapshotCreate({ name: "next" }, SNAPSHOT_CREATE.DISK_ONLY));
  expect(await paths()).toEqual(["/memory/base.next", "/memory/base"]);
});

it("forgets a checkpoint of which the engine has never heard", async () => {
  await running(world, { vda: ["base"] });
  await lostBeforeTransaction(() => demo().checkpointCreate({ name: "one" }));
  expect(await world.run(demo().listAllCheckpoints())).toEqual([]);
  expect(await refusal(world, demo().checkpointGetDesc("one"))).toBe("NO_DOMAIN_CHECKPOINT");
  await world.restart();
  expect(world.driver.host.record.domains[0]!.checkpoints).toEqual([]);
  await world.run(demo().checkpointCreate({ name: "one" }));
  await world.run(demo().checkpointDelete("one"));
});

it("keeps a checkpoint of which only the engine had heard", async () => {
  await running(world, { vda: ["base"] });
  const { node } = world.engine.exports.get("domain-1-vda").backend;
  await lostAfter(
    () => demo().checkpointCreate({ name: "one" }),
    () => !node.bitmaps.isEmpty,
  );
  await world.restart();
  const [checkpoint] = await world.run(demo().listAllCheckpoints());
  expect(checkpoint).toMatchObject({ name: "one" });
  expect(checkpoint).not.toHaveProperty("pending");
  await world.run(demo().checkpointDelete("one"));
});

it("decides on a checkpoint when its domain starts, if it had stopped before anybody knew", async () => {
  await running(world, { vda: ["base"] });
  await lostBeforeTransaction(() => demo().checkpointCreate({ name: "one" }));
  await world.driver.close();
  const record = (await world.store.load()) as DriverRecord;
  await world.store.save({ ...record, domains: [{ ...record.domains[0]!, state: "stopping" }] });
  await world.restart();
  expect(await world.run(demo().listAllCheckpoints())).toEqual([]);
  await world.run(demo().create());
  await world.run(demo().checkpointCreate({ name: "one" }));
});

it("deletes a checkpoint to the end, wherever the driver was lost over it", async () => {
  await running(world, { vda: ["base"] });
  for (const nth of [1, 2, 3]) {
    await world.run(demo().checkpointCreate({ name: "one" }));
    const disks = [{ name: "vda", source: image(`snap-${nth}`).source }];
    await world.run(demo().snapshotCreate({ disks }, SNAPSHOT_CREATE.DISK_ONLY));
    expect(await bitmaps()).toHaveLength(2);
    const remove = () => demo().checkpointDelete("one");
    const { nodes } = world.engine.graph;
    if (nth < 3) await lostBefore("transaction", remove, { nth });
    else await lostAfter(remove, () => nodes.every((node) => node.bitmaps.isEmpty));
    expect(await bitmaps()).toHaveLength(3 - nth);
    await world.restart();
    expect(await world.run(demo().listAllCheckpoints())).toEqual([]);
    expect(await bitmaps()).toEqual([]);
  }
});

it("leaves no image below the top writable, though the driver was lost before it was read-only again", async () => {
  await running(world, { vda: ["base"] });
  await world.run(demo().checkpointCreate({ name: "one" }));
  await world.run(snapshot());
  const below = world.engine.graph.get((await bitmaps())[1]!.split(" ")[0]!);
  await lostBefore("blockdev-reopen", () => demo().checkpointDelete("one"), { nth: 2 });
  expect(below.readOnly).toBe(false);
  expect(await bitmaps()).toEqual([]);
  await world.restart();
  expect(below.readOnly).toBe(true);
  expect(await world.run(demo().listAllCheckpoints())).toEqual([]);
});

it("touches no image that a commit of the lost driver writes to, which ends just then", async () => {
  const domain = await running(world, { vda: ["top", "c", "b", "a", "base"] });
  const before = await read(world, await guest(world, domain, "vda"));
  const { BANDWIDTH_BYTES } = BLOCK_COMMIT;
  await world.run(domain.blockCommit("vda", "/memory/base", "/memory/a", 1, BANDWIDTH_BYTES));
  const [job] = await world.run(domain.listBlockJobs());
  const { graph } = world.engine;
  const { chain } = (await world.run(domain.info())).disks[0]!;
  const [, c, b, , base] = chain.map(({ node }) => graph.get(node!));
  // The overlay, as it is while the commit writes the new name into its header; the other one is left over.
  for (const node of [c!, b!]) await world.run(graph.reopen(node, { readOnly: false }));
  const { client } = world;
  const execute = client.execute.bind(client) as (...args: unknown[]) => Promise<never>;
  client.execute = async (...args: unknown[]) => {
    if (args[0] === "blockdev-reopen" && !base!.readOnly) {
      await execute("block-job-set-speed", { device: job!.name, speed: 0 });
      await client.waitForJob(job!.name, "concluded");
    }
    return execute(...args);
  };
  await world.restart();
  client.execute = execute;
  await until(world, ended("vda"));
  expect(c!.readOnly).toBe(true);
  expect(b!.children.get("backing")!.node.name).toBe(base!.name);
  expect(await paths()).toEqual(["/memory/top", "/memory/c", "/memory/b", "/memory/base"]);
  expect(await read(world, await guest(world, demo(), "vda"))).toBe(before);
});

it("gives the child of two checkpoints that were half deleted the parent of both", async () => {
  await running(world, { vda: ["base"] });
  for (const name of ["zero", "one", "two", "three"]) {
    await world.run(demo().checkpointCreate({ name }));
  }
  await world.run(snapshot());
  const { client } = world;
  const execute = client.execute.bind(client) as (...args: unknown[]) => Promise<never>;
  client.execute = (...args: unknown[]) => {
    if (args[0] !== "blockdev-reopen") return execute(...args);
    return Promise.reject(new QmpError({ class: "GenericError", desc: "It is in use" }));
  };
  for (const name of ["one", "two"]) {
    expect(await refusal(world, demo().checkpointDelete(name))).toBe("OPERATION_FAILED");
  }
  client.execute = execute;
  await world.restart();
  const left = await world.run(demo().listAllCheckpoints());
  expect(left.map(({ name, parent }) => [name, parent])).toEqual([
    ["zero", undefined],
    ["three", "zero"],
  ]);
});

it("makes no incremental backup from a checkpoint that could not be deleted to the end", async () => {
  await running(world, { vda: ["base"] });
  await world.run(demo().checkpointCreate({ name: "one" }));
  await world.run(snapshot());
  // The image below is in use in a way that forbids to write to it.
  const below = world.engine.graph.get((await bitmaps())[1]!.split(" ")[0]!);
  expect(below.readOnly).toBe(true);
  const { client } = world;
  const execute = client.execute.bind(client) as (...args: unknown[]) => Promise<never>;
  client.execute = (...args: unknown[]) => {
    if (args[0] !== "blockdev-reopen") return execute(...args);
    return Promise.reject(new QmpError({ class: "GenericError", desc: "It is in use" }));
  };
  expect(await refusal(world, demo().checkpointDelete("one"))).toBe("OPERATION_FAILED");
  await world.restart();
  const incremental = demo().backupBegin({ incremental: "one" });
  expect(await refusal(world, incremental)).toBe("CHECKPOINT_INCONSISTENT");
  client.execute = execute;
  await world.run(demo().checkpointDelete("one"));
  expect(await bitmaps()).toEqual([]);
  expect(await world.run(demo().listAllCheckpoints())).toEqual([]);
});

it("drops a job of which the engine has never heard, and tells of no end", async () => {
  await running(world, { vda: ["base"] });
  await lostBefore("blockdev-mirror", () => demo().blockCopy("vda", image("copy")));
  world.events.length = 0;
  await world.restart();
  await settle(world);
  expect(await world.run(demo().listBlockJobs())).toEqual([]);
  expect(world.events).toEqual([]);
  const [record] = world.driver.host.record.domains;
  expect(record).toMatchObject({ jobs: [], leftovers: [] });
  const nodes = await world.run(world.client.execute("query-named-block-nodes", { flat: true }));
  expect(nodes).toHaveLength(2);
});

it("drops a backup of which the engine has never heard, and the checkpoint that was to come with it", async () => {
  await running(world, { vda: ["base"] });
  await lostBeforeTransaction(() => demo().backupBegin({}, { name: "one" }));
  world.events.length = 0;
  await world.restart();
  await settle(world);
  expect(world.events).toEqual([]);
  const [record] = world.driver.host.record.domains;
  expect(record).toMatchObject({ jobs: [], backup: null, checkpoints: [], leftovers: [] });
  // The image that had been made for it stays: it might be anybody's.
  const disks = [{ name: "vda", target: image("again").source }];
  await world.run(demo().backupBegin({ disks }, { name: "one" }));
  await until(world, () => world.events.some(({ event }) => event === "job-completed"));
  expect(await bitmaps()).toEqual(["libvirt-1-format one"]);
});

it("keeps the checkpoint of a backup that had begun, though nobody knows its job any more", async () => {
  await running(world, { vda: ["base"] });
  const { node } = world.engine.exports.get("domain-1-vda").backend;
  await lostAfter(
    () => demo().backupBegin({}, { name: "one" }),
    () => !node.bitmaps.isEmpty,
  );
  await world.clock.advance(5000);
  for (const { id } of await world.run(world.client.execute("query-jobs"))) {
    await world.run(world.client.execute("job-dismiss", { id }));
  }
  await world.restart();
  expect(await world.run(demo().listAllCheckpoints())).toMatchObject([{ name: "one" }]);
  expect(world.driver.host.record.domains[0]).toMatchObject({ jobs: [], backup: null });
});

it("shows clients of a pull what the driver that began it was lost before showing", async () => {
  await running(world, { vda: ["a"], vdb: ["b"] });
  const begin = () => demo().backupBegin({ mode: "pull" });
  await lostBefore("block-export-add", begin, { nth: 2 });
  const shown = async () => {
    const exports = await world.run(world.client.execute("query-block-exports"));
    return exports.flatMap(({ id }) => (id.startsWith("backup-") ? [id.slice(0, 10)] : [])).sort();
  };
  expect(await shown()).toEqual(["backup-vda"]);
  await world.restart();
  expect(await shown()).toEqual(["backup-vda", "backup-vdb"]);
  await world.run(demo().abortJob());
  await until(world, () => world.events.some(({ event }) => event === "job-completed"));
  await settle(world);
  expect(await shown()).toEqual([]);
});

it("goes on with a backup whose record is from before there were serials", async () => {
  await running(world, { vda: ["base"] });
  const node = () => world.engine.exports.get("domain-1-vda").backend.node;
  await lostAfter(
    () => demo().backupBegin({}, { name: "one" }),
    () => node().driver.name === "copy-before-write" || node().parents.size > 1,
  );
  await world.driver.close();
  const record = (await world.store.load()) as DriverRecord;
  const [domain] = record.domains;
  const { serial: _, ...backup } = domain!.backup!;
  await world.store.save({ ...record, domains: [{ ...domain, backup }] });
  await world.restart();
  expect(world.driver.host.record.broken).toEqual([]);
  await until(world, () => world.events.some(({ event }) => event === "job-completed"));
});

it("gives a domain its devices back when a shutdown was lost half way", async () => {
  const domain = await running(world, { vda: ["a"], vdb: ["b"] });
  const device = await guest(world, domain, "vda");
  const before = await read(world, device);
  await world.run(device.close());
  await settle(world);
  await lostAfter(
    () => demo().shutdown(),
    () => true,
  );
  expect(await world.run(world.client.execute("query-block-exports"))).toEqual([]);
  await world.restart();
  expect((await world.run(demo().info())).state).toBe(1);
  expect(await read(world, await guest(world, demo(), "vda"))).toBe(before);
  await guest(world, demo(), "vdb");
});

it("takes a pivot that has not failed for a switch when there is no device to tell", async () => {
  const domain = await running(world, { vda: ["base"] });
  const before = await read(world, await guest(world, domain, "vda"));
  await world.run(domain.blockCopy("vda", image("copy")));
  await until(world, isReady("vda"));
  const isOver = () => world.driver.host.record.domains[0]!.jobs[0]!.state === "completed";
  await lostAfter(() => domain.blockJobAbort("vda", BLOCK_JOB_ABORT.PIVOT), isOver);
  await world.run(world.client.execute("block-export-del", { id: "domain-1-vda", mode: "hard" }));
  await world.restart();
  expect(await paths()).toEqual(["/memory/copy"]);
  expect(await read(world, await guest(world, demo(), "vda"))).toBe(before);
});
