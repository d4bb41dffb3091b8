/** backupBegin(), checkpoints, and what becomes of their bitmaps. */

import { afterEach, beforeEach, expect, it } from "vitest";
import { sleep } from "../../src/base/clock.ts";
import type { Domain } from "../../src/domain/domain.ts";
import {
  BACKUP_BEGIN,
  BLOCK_COMMIT,
  BLOCK_JOB_ABORT,
  CHECKPOINT_CREATE,
  CHECKPOINT_DELETE,
  CHECKPOINT_LIST,
  JOB_STATS,
  SNAPSHOT_CREATE,
} from "../../src/domain/flags.ts";
import { MemoryDomainStore } from "../../src/domain/store.ts";
import { MemoryStore } from "../../src/drivers/protocol/memory.ts";
import { QmpError } from "../../src/engine/client.ts";
import {
  backupIsOver,
  disk,
  ended,
  guest,
  image,
  isReady,
  makeWorld,
  memory,
  read,
  refusal,
  running,
  settle,
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

async function contentOf(...names: string[]): Promise<string> {
  const other = { name: "reader", disks: [{ ...disk("vda", ...names), readonly: true }] };
  const reader = await world.run(world.connection.define(other));
  await world.run(reader.create());
  const content = await read(world, await guest(world, reader, "vda"));
  await world.run(reader.destroy());
  await world.run(reader.undefine());
  return content;
}

/** A backup in mode push, to its end. @returns the statistics */
async function push(domain: Domain, backup: object, checkpoint: object | null = null) {
  world.events.length = 0;
  await world.run(domain.backupBegin(backup as never, checkpoint as never));
  await until(world, backupIsOver);
  await settle(world);
  return world.run(domain.getJobStats(JOB_STATS.COMPLETED));
}

/** Of all bitmaps. */
async function names() {
  const nodes = await world.run(world.client.execute("query-named-block-nodes", { flat: true }));
  return nodes.flatMap((node) => (node["dirty-bitmaps"] ?? []).map(({ name }) => name));
}

/** What a crash leaves: all that was written. */
function copyOf(store: MemoryStore): MemoryStore {
  const copy = new MemoryStore(store.length);
  for (const [at, page] of store.pages) copy.pages.set(at, page.slice());
  return copy;
}

it("backs up all disks as they are at one moment, into generated names", async () => {
  const domain = await running(world, { vda: ["a"], vdb: ["b"] });
  const device = await guest(world, domain, "vda");
  const before = await read(world, device);
  await world.run(domain.backupBegin({}, { name: "one" }));
  await write(world, device, { 3: 99 });
  await until(world, backupIsOver);
  await settle(world);
  expect([...world.stores.keys()].sort()).toEqual(["a", "a.one", "b", "b.one"]);
  expect(await contentOf("a.one")).toBe(before);
  expect(told(world, "vda")).toEqual([[5, 0]]);
  const stats = await world.run(domain.getJobStats(JOB_STATS.COMPLETED));
  expect(stats).toMatchObject({ type: 3, operation: 9, success: true });
  // Read once, they are gone.
  expect(await world.run(domain.getJobStats(JOB_STATS.COMPLETED))).toEqual({ type: 0 });
  expect(await world.run(domain.getJobStats())).toEqual({ type: 0 });
});

it("K01 removes both targets when a disk fails, and frees the domain", async () => {
  const domain = await running(world, { vda: ["a"], vdb: ["b"] }, 2 * 1024 * 1024);
  const disks = [
    { name: "vda", format: "raw", target: memory("small") },
    { name: "vdb", target: memory("b.copy") },
  ];
  const stats = await push(domain, { disks });
  expect(stats).toMatchObject({ type: 4, success: false });
  expect(stats.errmsg).toContain("full");
  expect([...world.stores.keys()].sort()).toEqual(["a", "b"]);
  expect(told(world, "vda")).toEqual([[5, 1]]);
  expect(world.events.filter(backupIsOver)).toHaveLength(1);
  expect(await world.run(domain.listBlockJobs())).toEqual([]);
  // The domain is free again.
  expect(await push(domain, {})).toMatchObject({ type: 3 });
});

it("K02 makes checkpoint and backup at once, or neither", async () => {
  const domain = await running(world, { vda: ["a"], vdb: ["b"] });
  // The second disk has such a bitmap already: the transaction fails after the first.
  const bitmap = { node: "libvirt-2-format", name: "one" };
  await world.run(world.client.execute("block-dirty-bitmap-add", bitmap));
  const call = domain.backupBegin({}, { name: "one" });
  expect(await refusal(world, call)).toBe("OPERATION_FAILED");
  expect(await world.run(domain.listAllCheckpoints())).toEqual([]);
  expect([...world.stores.keys()].sort()).toEqual(["a", "b"]);
  const nodes = await world.run(world.client.execute("query-named-block-nodes", { flat: true }));
  expect(nodes).toHaveLength(4);
  const bitmaps = nodes.flatMap((node) => node["dirty-bitmaps"] ?? []);
  expect(bitmaps.map(({ name }) => name)).toEqual(["one"]);
  await world.run(world.client.execute("block-dirty-bitmap-remove", bitmap));
  await push(domain, {}, { name: "one" });
  const [made] = await world.run(domain.listAllCheckpoints());
  expect(made).toMatchObject({ name: "one", disks: [{ bitmap: "one" }, { bitmap: "one" }] });
});

it("backs up what has changed since a checkpoint, and nothing else", async () => {
  const domain = await running(world, { vda: ["a"] });
  const device = await guest(world, domain, "vda");
  await push(domain, {}, { name: "one" });
  await write(world, device, { 2: 50, 9: 51 });
  const stats = await push(domain, { incremental: "one" }, { name: "two" });
  expect(stats).toMatchObject({ type: 3, disk_total: 128 * 1024 });
  const after = await read(world, device);
  expect(await contentOf("a.two", "a.one")).toBe(after);
  await write(world, device, { 4: 60 });
  await push(domain, { incremental: "two" }, { name: "three" });
  expect(await contentOf("a.three", "a.two", "a.one")).toBe(await read(world, device));
  const missing = domain.backupBegin({ incremental: "zero" });
  expect(await refusal(world, missing)).toBe("NO_DOMAIN_CHECKPOINT");
});

it("takes away the bitmap of a backup whose engine has ended, but none that is a checkpoint's", async () => {
  const domain = await running(world, { vda: ["a"] });
  await push(domain, {}, { name: "one" });
  const stray = { node: "libvirt-1-format", name: "backup-vda", persistent: true, disabled: true };
  await world.run(world.client.execute("block-dirty-bitmap-add", stray));
  const target = (name: string) => ({ disks: [{ name: "vda", target: memory(name) }] });
  expect(await push(domain, { incremental: "one", ...target("x") })).toMatchObject({ type: 3 });
  expect(await names()).toEqual(["one"]);
  await world.run(domain.checkpointCreate({ name: "backup-vda" }));
  const { node, name } = stray;
  await world.run(world.client.execute("block-dirty-bitmap-disable", { node, name }));
  const refused = domain.backupBegin({ incremental: "one", ...target("y") });
  expect(await refusal(world, refused)).toBe("OPERATION_FAILED");
  expect((await names()).sort()).toEqual(["backup-vda", "one"]);
});

it("ends a backup though one whose engine has ended left its bitmap in an image below the top", async () => {
  const domain = await running(world, { vda: ["a"] });
  await push(domain, {}, { name: "one" });
  const stray = { node: "libvirt-1-format", name: "backup-vda", persistent: true, disabled: true };
  await world.run(world.client.execute("block-dirty-bitmap-add", stray));
  const disks = [{ name: "vda", source: memory("b") }];
  await world.run(domain.snapshotCreate({ disks }, SNAPSHOT_CREATE.DISK_ONLY));
  const device = await guest(world, domain, "vda");
  await write(world, device, { 9: 9 });
  expect(await push(domain, { incremental: "one" }, { name: "two" })).toMatchObject({ type: 3 });
  expect(await contentOf("b.two", "a.one")).toBe(await read(world, device));
  expect((await names()).sort()).toEqual(["backup-vda", "one", "one", "two"]);
  await world.restart();
  // It goes when its image is the top again.
  const again = world.connection.domain("demo");
  await world.run(again.blockCommit("vda", null, null, 0, BLOCK_COMMIT.ACTIVE));
  await until(world, isReady("vda"));
  await world.run(again.blockJobAbort("vda", BLOCK_JOB_ABORT.PIVOT));
  await settle(world);
  expect(await push(again, { incremental: "two" }, { name: "three" })).toMatchObject({ type: 3 });
  expect((await names()).sort()).toEqual(["one", "three", "two"]);
});

it("ends a backup whose bitmap cannot be taken away now, and the next one takes it away", async () => {
  const domain = await running(world, { vda: ["a"] });
  await push(domain, {}, { name: "one" });
  const { client } = world;
  const execute = client.execute.bind(client) as (...args: unknown[]) => Promise<never>;
  const refused = new QmpError({ class: "GenericError", desc: "The bitmap is in use" });
  client.execute = async (...args: unknown[]) => {
    const isTidying = JSON.stringify(args).includes("block-dirty-bitmap-remove");
    if (isTidying) throw refused;
    return execute(...args);
  };
  expect(await push(domain, { incremental: "one" }, { name: "two" })).toMatchObject({ type: 3 });
  expect((await names()).sort()).toEqual(["backup-vda", "one", "two"]);
  // As long as it cannot, none is begun, and nothing is made.
  const next = domain.backupBegin({ incremental: "two" }, { name: "three" });
  expect(await refusal(world, next)).toBe("OPERATION_FAILED");
  expect([...world.stores.keys()].sort()).toEqual(["a", "a.one", "a.two"]);
  client.execute = execute;
  expect(await push(domain, { incremental: "two" }, { name: "three" })).toMatchObject({ type: 3 });
  expect((await names()).sort()).toEqual(["one", "three", "two"]);
});

it("leaves a checkpoint its bitmap when a pull whose own has that name ends", async () => {
  const domain = await running(world, { vda: ["a"] });
  await push(domain, {}, { name: "backup-vda" });
  await world.run(domain.backupBegin({ mode: "pull", incremental: "backup-vda" }));
  world.events.length = 0;
  await world.run(domain.abortJob());
  await until(world, backupIsOver);
  await settle(world);
  expect(await names()).toEqual(["backup-vda"]);
});

it("K03 refuses an incremental backup from bitmaps that cannot be relied on", async () => {
  const domain = await running(world, { vda: ["a"] });
  await push(domain, {}, { name: "one" });
  const bitmap = { node: "libvirt-1-format", name: "one" };
  const refuse = async (why: string) => {
    world.events.length = 0;
    await expect(world.run(domain.backupBegin({ incremental: "one" }))).rejects.toMatchObject({
      code: "CHECKPOINT_INCONSISTENT",
      number: 109,
      message: `Bitmap 'one' of disk 'vda' ${why}`,
    });
  };
  await world.run(world.client.execute("block-dirty-bitmap-disable", bitmap));
  await refuse("does not record");
  await world.run(world.client.execute("block-dirty-bitmap-enable", bitmap));
  // A gap: the image in the middle has none.
  const overlay = (name: string) => ({ disks: [{ name: "vda", source: memory(name) }] });
  await world.run(domain.snapshotCreate(overlay("b"), SNAPSHOT_CREATE.DISK_ONLY));
  await world.run(domain.snapshotCreate(overlay("c"), SNAPSHOT_CREATE.DISK_ONLY));
  const chain = (await world.run(domain.info())).disks[0]!.chain;
  const middle = { node: chain[1]!.node!, name: "one" };
  const nodes = await world.run(world.client.execute("query-named-block-nodes", { flat: true }));
  const has = nodes.filter((node) => node["dirty-bitmaps"]?.some(({ name }) => name === "one"));
  expect(has).toHaveLength(3);
  const reopen = (ro: boolean) =>
    world.run(
      world.client.execute("blockdev-reopen", {
        options: [
          {
            driver: "qcow2",
            "node-name": middle.node,
            file: middle.node.replace("format", "storage"),
            backing: chain[2]!.node,
            "read-only": ro,
          },
        ],
      } as never),
    );
  await reopen(false);
  await world.run(world.client.execute("block-dirty-bitmap-remove", middle));
  await reopen(true);
  await refuse("has a gap");
  expect(await world.run(domain.listBlockJobs())).toEqual([]);
  // A bitmap that is missing cannot be deleted with its checkpoint either: there is a way out.
  const { METADATA_ONLY } = CHECKPOINT_DELETE;
  await world.run(domain.checkpointDelete("one", METADATA_ONLY));
  expect(await world.run(domain.listAllCheckpoints())).toEqual([]);
});

it("K03 refuses one from a bitmap that a lost engine has left inconsistent, until it is deleted", async () => {
  const first = await running(world, { vda: ["a"] });
  await push(first, {}, { name: "one" });
  // Stored when the image is closed, and in use since it is written again.
  await world.run(first.destroy());
  await world.run(first.create());
  await write(world, await guest(world, first, "vda"), { 3: 9 });
  const left = new Map([...world.stores].map(([name, store]) => [name, copyOf(store)]));
  const kept = await world.store.load();
  await world.end();
  const store = new MemoryDomainStore();
  await store.save(kept as object);
  world = await makeWorld({ stores: left, store });
  const domain = world.connection.domain("demo");
  await world.run(domain.create());
  const disks = [{ name: "vda", target: memory("inc") }];
  const incremental = () => domain.backupBegin({ incremental: "one", disks });
  await expect(world.run(incremental())).rejects.toMatchObject({
    code: "CHECKPOINT_INCONSISTENT",
    message: expect.stringMatching(/'one'.*'vda'.*inconsistent/),
  });
  expect(world.stores.has("inc")).toBe(false);
  await world.run(domain.checkpointDelete("one"));
  await push(domain, { disks }, { name: "one" });
  const again = { incremental: "one", disks: [{ name: "vda", target: memory("inc2") }] };
  expect(await push(domain, again)).toMatchObject({ type: 3, disk_total: 0 });
});

it.each(["active", "middle"] as const)(
  "K04 keeps incremental backups right over a snapshot and a commit (%s)",
  async (which) => {
    const domain = await running(world, { vda: ["a"] });
    const device = await guest(world, domain, "vda");
    await push(domain, {}, { name: "one" });
    await write(world, device, { 2: 50 });
    const overlay = (name: string) => ({ disks: [{ name: "vda", source: memory(name) }] });
    await world.run(domain.snapshotCreate(overlay("b"), SNAPSHOT_CREATE.DISK_ONLY));
    await write(world, device, { 5: 51 });
    if (which === "middle") {
      await world.run(domain.snapshotCreate(overlay("c"), SNAPSHOT_CREATE.DISK_ONLY));
      await write(world, device, { 6: 52 });
      await world.run(domain.blockCommit("vda", null, "/memory/b"));
      await until(world, ended("vda"));
    } else {
      await world.run(domain.blockCommit("vda", null, null, 0, BLOCK_COMMIT.ACTIVE));
      await until(world, isReady("vda"));
      await write(world, device, { 7: 53 });
      await world.run(domain.blockJobAbort("vda", BLOCK_JOB_ABORT.PIVOT));
    }
    await write(world, device, { 8: 54 });
    await settle(world);
    await push(domain, { incremental: "one", disks: [{ name: "vda", target: memory("inc") }] });
    expect(await contentOf("inc", "a.one")).toBe(await read(world, device));
  },
);

it.each(["active", "middle"] as const)(
  "K04 gives the base of a commit the bitmaps that it had not (%s)",
  async (which) => {
    const domain = await running(world, { vda: ["a"] });
    const device = await guest(world, domain, "vda");
    const overlay = (name: string) => ({ disks: [{ name: "vda", source: memory(name) }] });
    await world.run(domain.snapshotCreate(overlay("b"), SNAPSHOT_CREATE.DISK_ONLY));
    await push(domain, {}, { name: "one" });
    await write(world, device, { 5: 51 });
    if (which === "middle") {
      await world.run(domain.snapshotCreate(overlay("c"), SNAPSHOT_CREATE.DISK_ONLY));
      await write(world, device, { 6: 52 });
      await world.run(domain.blockCommit("vda", null, "/memory/b"));
      await until(world, ended("vda"));
    } else {
      await world.run(domain.blockCommit("vda", null, null, 0, BLOCK_COMMIT.ACTIVE));
      await until(world, isReady("vda"));
      await world.run(domain.blockJobAbort("vda", BLOCK_JOB_ABORT.PIVOT));
    }
    await write(world, device, { 8: 54 });
    await settle(world);
    await push(domain, { incremental: "one", disks: [{ name: "vda", target: memory("inc") }] });
    expect(await contentOf("inc", "b.one")).toBe(await read(world, device));
  },
);

it("carries the bitmaps over to a copy", async () => {
  const domain = await running(world, { vda: ["a"] });
  const device = await guest(world, domain, "vda");
  await push(domain, {}, { name: "one" });
  await write(world, device, { 2: 50 });
  await world.run(domain.blockCopy("vda", image("copy")));
  await until(world, isReady("vda"));
  await write(world, device, { 3: 51 });
  // The guest is not held up until the copy has the bitmaps: what it writes before that counts, too.
  const { client } = world;
  const { execute } = client;
  const { backend } = world.engine.exports.get("domain-1-vda");
  const before = backend.node;
  let written: Promise<void> | null = null;
  client.execute = (async (...args: Parameters<typeof execute>) => {
    if (backend.node !== before) {
      written ??= backend.write(new Uint8Array(64 * 1024).fill(53), 7 * 64 * 1024);
      await written;
    }
    return execute.apply(client, args);
  }) as typeof execute;
  await world.run(domain.blockJobAbort("vda", BLOCK_JOB_ABORT.PIVOT));
  client.execute = execute;
  expect(written).not.toBeNull();
  await write(world, device, { 4: 52 });
  await push(domain, { incremental: "one", disks: [{ name: "vda", target: memory("inc") }] });
  expect(await contentOf("inc", "a.one")).toBe(await read(world, device));
});

it("shows a client of a pull what was, until it says that it is done", async () => {
  const domain = await running(world, { vda: ["a"] });
  const device = await guest(world, domain, "vda");
  const before = await read(world, device);
  await world.run(domain.backupBegin({ mode: "pull" }, { name: "one" }));
  await write(world, device, { 0: 88, 2: 50 });
  const exports = await world.run(world.client.execute("query-block-exports"));
  const { id } = exports.find((one) => one.id.startsWith("backup-vda"))!;
  const then = await world.run(world.client.openDevice(id));
  expect(await read(world, then)).toBe(before);
  const stillIn = await world.run(domain.getJobStats());
  expect(stillIn).toMatchObject({ type: 2, operation: 9 });
  await world.run(sleep(world.clock, 1500));
  const later = await world.run(domain.getJobStats());
  expect(later.time_elapsed! - stillIn.time_elapsed!).toBe(1500);
  expect(await refusal(world, domain.blockPull("vda"))).toBe("OPERATION_UNSUPPORTED");
  await world.run(domain.abortJob());
  await until(world, backupIsOver);
  await settle(world);
  const stats = await world.run(domain.getJobStats(JOB_STATS.COMPLETED));
  expect(stats).toMatchObject({ type: 3, success: true });
  expect([...world.stores.keys()]).toEqual(["a"]);
  expect(await refusal(world, domain.abortJob())).toBe("OPERATION_INVALID");
});

it("backs up into none of the domain's own images", async () => {
  const domain = await running(world, { vda: ["a", "base"], vdb: ["b"] });
  for (const name of ["a", "base", "b"]) {
    const backup = { disks: [{ name: "vda", target: memory(name) }] };
    const begun = domain.backupBegin(backup, null, BACKUP_BEGIN.REUSE_EXTERNAL);
    expect(await refusal(world, begun)).toBe("INVALID_ARG");
  }
});

it("leaves nothing of a pull whose server cannot be started, and tells of no end of it", async () => {
  const domain = await running(world, { vda: ["a"] });
  const server = { transport: "unix", socket: "/nowhere" } as const;
  world.events.length = 0;
  const begun = domain.backupBegin({ mode: "pull", server }, { name: "one" });
  expect(await refusal(world, begun)).toBe("OPERATION_FAILED");
  await settle(world);
  expect(world.events).toEqual([]);
  expect(await world.run(domain.listAllCheckpoints())).toEqual([]);
  expect(await world.run(domain.getJobStats(JOB_STATS.COMPLETED))).toEqual({ type: 0 });
  expect([...world.stores.keys()]).toEqual(["a"]);
});

it("says that a pull has failed whose disks cannot be shown", async () => {
  const domain = await running(world, { vda: ["a"], vdb: ["b"] });
  const other = { driver: "memory", "node-name": "other", size: 512 } as const;
  await world.run(world.client.execute("blockdev-add", other));
  // The images of the disks are 1 and 2.
  const taken = { type: "message-port", id: "backup-vdb-4", "node-name": "other" } as const;
  await world.run(world.client.execute("block-export-add", taken));
  const begun = domain.backupBegin({ mode: "pull" });
  expect(await refusal(world, begun)).toBe("OPERATION_FAILED");
  await until(world, backupIsOver);
  await settle(world);
  const stats = await world.run(domain.getJobStats(JOB_STATS.COMPLETED));
  expect(stats).toMatchObject({
    type: 4,
    success: false,
    errmsg: expect.stringContaining(taken.id),
  });
});

it("redefines checkpoints, parents first, none of which comes from itself", async () => {
  const domain = await running(world, { vda: ["a"] });
  const { REDEFINE, REDEFINE_VALIDATE } = CHECKPOINT_CREATE;
  const redefine = (name: string, parent?: string) =>
    domain.checkpointCreate({ name, ...(parent && { parent }), creationTime: 5 }, REDEFINE);
  for (const [name, parent] of [["c"], ["b", "c"]] as const)
    await world.run(redefine(name, parent));
  for (const [name, parent] of [
    ["x", "x"],
    ["c", "b"],
    ["c", "c"],
    ["y", "nobody"],
  ] as const) {
    expect(await refusal(world, redefine(name, parent))).toBe("INVALID_ARG");
  }
  // Another root: it is not the current one.
  await world.run(redefine("a"));
  const names = async (flags: number) =>
    (await world.run(domain.listAllCheckpoints(flags))).map(({ name }) => name);
  expect((await names(0)).sort()).toEqual(["a", "b", "c"]);
  expect((await names(CHECKPOINT_LIST.ROOTS)).sort()).toEqual(["a", "c"]);
  const order = await names(CHECKPOINT_LIST.TOPOLOGICAL);
  expect(order.indexOf("c")).toBeLessThan(order.indexOf("b"));
  const children = async (name: string, flags: number) =>
    (await world.run(domain.checkpointListAllChildren(name, flags))).map((one) => one.name);
  // A parent is for those that are redefined; else it is the current one.
  await world.run(domain.checkpointCreate({ name: "d", parent: "d" }));
  expect((await world.run(domain.checkpointGetDesc("d"))).parent).toBe("b");
  expect(await children("c", 0)).toEqual(["b"]);
  const { DESCENDANTS, LEAVES, TOPOLOGICAL } = CHECKPOINT_LIST;
  expect(await children("c", DESCENDANTS | TOPOLOGICAL)).toEqual(["b", "d"]);
  expect(await children("c", DESCENDANTS | LEAVES)).toEqual(["d"]);
  expect(await children("d", DESCENDANTS)).toEqual([]);
  expect((await world.run(domain.checkpointGetParent("d"))).name).toBe("b");
  for (const call of [
    () => domain.checkpointGetParent("c"),
    () => domain.checkpointGetParent("nobody"),
    () => domain.checkpointListAllChildren("nobody"),
  ]) {
    expect(await refusal(world, call())).toBe("NO_DOMAIN_CHECKPOINT");
  }
  // One that is there: what it was is replaced, and it is where it was.
  const again = { name: "b", parent: "c", creationTime: 6, description: "again" };
  await world.run(domain.checkpointCreate(again, REDEFINE));
  expect(await world.run(domain.checkpointGetDesc("b"))).toMatchObject(again);
  await world.run(domain.checkpointCreate({ name: "e" }));
  expect((await world.run(domain.checkpointGetDesc("e"))).parent).toBe("d");
  await world.run(domain.checkpointDelete("e"));
  const validated = REDEFINE | REDEFINE_VALIDATE;
  const missing = domain.checkpointCreate({ name: "f", creationTime: 5 }, validated);
  expect(await refusal(world, missing)).toBe("CHECKPOINT_INCONSISTENT");
  for (const part of [{ name: "g" }, { creationTime: 5 }])
    expect(await refusal(world, domain.checkpointCreate(part, REDEFINE))).toBe("XML_ERROR");
  const { CHILDREN, METADATA_ONLY } = CHECKPOINT_DELETE;
  await world.run(domain.checkpointDelete("c", CHILDREN | METADATA_ONLY));
  expect(await names(0)).toEqual(["a"]);
});

it("deletes checkpoints with their bitmaps, and children with their parents", async () => {
  const domain = await running(world, { vda: ["a"] });
  for (const name of ["one", "two", "three"]) await world.run(domain.checkpointCreate({ name }));
  const names = async () =>
    (await world.run(domain.listAllCheckpoints())).map(({ name, parent }) => [name, parent]);
  await world.run(domain.checkpointDelete("two"));
  expect(await names()).toEqual([
    ["one", undefined],
    ["three", "one"],
  ]);
  expect(await refusal(world, domain.checkpointDelete("two"))).toBe("NO_DOMAIN_CHECKPOINT");
  expect(await refusal(world, domain.checkpointCreate({ name: "one" }))).toBe("OPERATION_FAILED");
  const { CHILDREN, CHILDREN_ONLY } = CHECKPOINT_DELETE;
  const both = domain.checkpointDelete("one", CHILDREN | CHILDREN_ONLY);
  expect(await refusal(world, both)).toBe("INVALID_ARG");
  expect(await names()).toHaveLength(2);
  await world.run(domain.checkpointDelete("one", CHILDREN));
  const nodes = await world.run(world.client.execute("query-named-block-nodes", { flat: true }));
  expect(nodes.flatMap((node) => node["dirty-bitmaps"] ?? [])).toEqual([]);
});
