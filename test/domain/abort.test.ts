/** blockJobAbort(), copies, commits, and their ends. */

import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, beforeEach, expect, it } from "vitest";
import type { BlockDriver } from "../../src/block/driver.ts";
import type { Domain } from "../../src/domain/domain.ts";
import { BLOCK_COMMIT, BLOCK_COPY, BLOCK_JOB_ABORT, BLOCK_PULL } from "../../src/domain/flags.ts";
import { withJob, withUnlocked } from "../../src/domain/locks/with-job.ts";
import { MemoryStore, memoryDriver } from "../../src/drivers/protocol/memory.ts";
import {
  disk,
  ended,
  guest,
  image,
  isReady,
  KiB,
  makeImage,
  makeWorld,
  memoryBehind,
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

const SLOW = 64 * 1024;
const { ASYNC, PIVOT } = BLOCK_JOB_ABORT;
const { ACTIVE, DELETE, SHALLOW } = BLOCK_COMMIT;

const paths = async (domain: Domain) =>
  (await world.run(domain.info())).disks[0]!.chain.map(({ path }) => path);

/** What an image that nobody has open reads as, under a domain of its own. */
async function contentOf(...names: string[]): Promise<string> {
  const chain = disk("vda", ...names);
  const other = { name: "reader", disks: [{ ...chain, readonly: true }] };
  const reader = await world.run(world.connection.define(other));
  await world.run(reader.create());
  const content = await read(world, await guest(world, reader, "vda"));
  await world.run(reader.destroy());
  await world.run(reader.undefine());
  return content;
}

it("B01 waits for the end of an aborted pull, and leaves the chain as it was", async () => {
  const domain = await running(world);
  const device = await guest(world, domain, "vda");
  const before = await read(world, device);
  const chain = await paths(domain);
  await world.run(domain.blockPull("vda", SLOW, BLOCK_PULL.BANDWIDTH_BYTES));
  // At the very moment at which it resolves.
  const { record } = world.driver.entry("demo");
  const names = () => [
    ...record.jobs.map(({ name }) => name),
    ...[...world.engine.jobs.all()].map(({ id }) => id),
  ];
  const left = domain.blockJobAbort("vda").then(names);
  expect(await world.run(left)).toEqual([]);
  expect(told(world, "vda")).toEqual([[1, 2]]);
  expect((await world.run(domain.getBlockJobInfo("vda"))).result).toBe(0);
  expect(await world.run(world.client.execute("query-jobs"))).toEqual([]);
  expect(await paths(domain)).toEqual(chain);
  expect(await read(world, device)).toEqual(before);
  await world.run(domain.blockPull("vda"));
  await until(world, (event) => ended("vda")(event) && told(world, "vda").length === 2);
  expect(told(world, "vda")).toEqual([
    [1, 2],
    [1, 0],
  ]);
  expect(await read(world, device)).toEqual(before);
});

it("B02 returns at once with ASYNC, and CANCELED follows", async () => {
  const domain = await running(world);
  await world.run(domain.blockCopy("vda", image("copy"), { bandwidth: SLOW }));
  await world.run(domain.blockJobAbort("vda", ASYNC));
  await until(world, ended("vda"));
  expect(told(world, "vda")).toEqual([[2, 2]]);
  expect(await paths(domain)).toEqual(["/memory/top", "/memory/mid", "/memory/base"]);
  // It had never been whole.
  await settle(world);
  expect(world.stores.has("copy")).toBe(false);
});

it("B03 refuses a second abort, and one without a job", async () => {
  const domain = await running(world);
  expect(await refusal(world, domain.blockJobAbort("vda"))).toBe("INVALID_ARG");
  expect(await refusal(world, domain.blockJobSetSpeed("vda", 1))).toBe("INVALID_ARG");
  await world.run(domain.blockPull("vda", SLOW, BLOCK_PULL.BANDWIDTH_BYTES));
  const first = domain.blockJobAbort("vda", ASYNC);
  const second = refusal(world, domain.blockJobAbort("vda"));
  expect(await second).toBe("OPERATION_INVALID");
  await first;
  await until(world, ended("vda"));
});

it("B04 refuses a pivot before READY, and the job goes on", async () => {
  const domain = await running(world);
  await world.run(domain.blockCopy("vda", image("copy"), { bandwidth: SLOW }));
  expect(await refusal(world, domain.blockJobAbort("vda", PIVOT))).toBe("BLOCK_COPY_ACTIVE");
  expect((await world.run(domain.getBlockJobInfo("vda"))).info.type).toBe(2);
  await world.run(domain.blockJobAbort("vda"));
  await world.run(domain.blockPull("vda", SLOW, BLOCK_PULL.BANDWIDTH_BYTES));
  expect(await refusal(world, domain.blockJobAbort("vda", PIVOT))).toBe("BLOCK_COPY_ACTIVE");
});

it("B05 wants ACTIVE for the active layer, and for it alone, before it does anything", async () => {
  const domain = await running(world);
  const chain = await paths(domain);
  const refused = [
    () => domain.blockCommit("vda", null, null),
    () => domain.blockCommit("vda", null, "/memory/mid", 0, ACTIVE),
    () => domain.blockCommit("vda", null, "/memory/base"),
    () => domain.blockCommit("vda", "/memory/top", "/memory/mid"),
    () => domain.blockCommit("vda", "/memory/base", null, 0, ACTIVE | SHALLOW),
  ];
  for (const call of refused) expect(await refusal(world, call())).toBe("INVALID_ARG");
  expect(await world.run(world.client.execute("query-jobs"))).toEqual([]);
  expect(await paths(domain)).toEqual(chain);
});

it("B06 keeps a copy that was ready as it was when it was aborted", async () => {
  const domain = await running(world);
  const device = await guest(world, domain, "vda");
  await world.run(domain.blockCopy("vda", image("copy")));
  await until(world, isReady("vda"));
  const { info } = await world.run(domain.getBlockJobInfo("vda"));
  expect(info.cur).toBe(info.end);
  await write(world, device, { 2: 77 });
  const atAbort = await read(world, device);
  await world.run(domain.blockJobAbort("vda"));
  await write(world, device, { 3: 78 });
  expect(told(world, "vda")).toEqual([
    [2, 3],
    [2, 2],
  ]);
  expect(await paths(domain)).toEqual(["/memory/top", "/memory/mid", "/memory/base"]);
  expect(await contentOf("copy")).toEqual(atAbort);
});

it("B06 keeps the overlay of an aborted active commit", async () => {
  const domain = await running(world);
  const device = await guest(world, domain, "vda");
  const before = await read(world, device);
  await world.run(domain.blockCommit("vda", null, null, 0, ACTIVE));
  await until(world, isReady("vda"));
  await world.run(domain.blockJobAbort("vda"));
  expect(await paths(domain)).toEqual(["/memory/top", "/memory/mid", "/memory/base"]);
  expect(await read(world, device)).toEqual(before);
});

it("B07 has writes after READY in both images until the pivot", async () => {
  const domain = await running(world);
  const device = await guest(world, domain, "vda");
  const flags = BLOCK_COPY.SYNCHRONOUS_WRITES;
  await world.run(domain.blockCopy("vda", image("copy", null, "raw"), {}, flags));
  await until(world, isReady("vda"));
  await write(world, device, { 2: 77, 15: 79 });
  const before = await read(world, device);
  await world.run(domain.blockJobAbort("vda", PIVOT));
  expect(await paths(domain)).toEqual(["/memory/copy"]);
  expect(await read(world, device)).toEqual(before);
  await write(world, device, { 1: 80 });
  const after = await read(world, device);
  await world.run(device.close());
  await world.run(domain.destroy());
  // What it was before the pivot, and what it is now.
  expect(await contentOf("top", "mid", "base")).toEqual(before);
  await world.run(domain.create());
  expect(await read(world, await guest(world, domain, "vda"))).toEqual(after);
});

it("B08 B09 tells READY and the end, each once and in order, however late they are read", async () => {
  const domain = await running(world);
  // Both come while somebody else has the domain's turn.
  await world.run(domain.blockCommit("vda", null, "/memory/mid"));
  await until(world, ended("vda"));
  await world.run(domain.blockCommit("vda", null, null, 0, ACTIVE));
  await until(world, isReady("vda"));
  const [job] = await world.run(domain.listBlockJobs());
  // Standby and back: ready again, in the engine's words.
  await world.run(world.client.execute("job-pause", { id: job!.name }));
  await world.run(world.client.execute("job-resume", { id: job!.name }));
  await settle(world);
  await world.run(domain.blockJobAbort("vda", PIVOT));
  await settle(world);
  expect(told(world, "vda")).toEqual([
    [3, 0],
    [4, 3],
    [4, 0],
  ]);
  expect(await paths(domain)).toEqual(["/memory/base"]);
});

it("B09 tells READY although the job was over before the driver could look", async () => {
  const domain = await running(world);
  const flags = ACTIVE | BLOCK_COMMIT.BANDWIDTH_BYTES;
  await world.run(domain.blockCommit("vda", null, null, 1, flags));
  const [job] = await world.run(domain.listBlockJobs());
  // Somebody has the domain's turn, and another client of the engine is fast.
  const { object } = world.driver.entry("demo");
  let open!: () => void;
  const gate = new Promise<void>((resolve) => {
    open = resolve;
  });
  const held = world.driver.locks.call("somebody", (ctx) =>
    withJob(ctx, object, { class: "modify" }, () => withUnlocked(ctx, object, () => gate)),
  );
  const ready = world.client.waitForJob(job!.name, "ready");
  await world.run(world.client.execute("block-job-set-speed", { device: job!.name, speed: 0 }));
  await world.run(ready);
  await world.run(world.client.execute("job-complete", { id: job!.name }));
  await settle(world);
  expect(told(world, "vda")).toEqual([]);
  open();
  await held;
  await until(world, ended("vda"));
  expect(told(world, "vda")).toEqual([
    [4, 3],
    [4, 0],
  ]);
  // Nobody had asked us for the pivot, and it is true: the disk is where the graph has it.
  expect(await paths(domain)).toEqual(["/memory/base"]);
});

it("B10 tells why a copy failed, and removes what is of no use", async () => {
  const domain = await running(world);
  const device = await guest(world, domain, "vda");
  const before = await read(world, device);
  await world.run(domain.blockCopy("vda", image("small", null, "raw")));
  await until(world, ended("vda"));
  await settle(world);
  const event = world.events.find(({ event }) => event === "block-job-2");
  expect(event).toMatchObject({ type: 2, status: 1, error: expect.stringContaining("full") });
  expect(world.stores.has("small")).toBe(false);
  expect(await read(world, device)).toEqual(before);
  // What was there before is left alone.
  await makeImage(world, "small", { format: "raw" });
  world.events.length = 0;
  const reuse = BLOCK_COPY.REUSE_EXT;
  await world.run(domain.blockCopy("vda", image("small", null, "raw"), {}, reuse));
  await until(world, ended("vda"));
  expect(world.stores.has("small")).toBe(true);
  expect(await paths(domain)).toEqual(["/memory/top", "/memory/mid", "/memory/base"]);
});

it("commits images in the middle, and relinks what is above them", async () => {
  const domain = await running(world, { vda: ["top", "upper", "lower", "base"] });
  const device = await guest(world, domain, "vda");
  const before = await read(world, device);
  await world.run(domain.blockCommit("vda", "/memory/lower", "vda[1]"));
  await until(world, ended("vda"));
  expect(await paths(domain)).toEqual(["/memory/top", "/memory/lower", "/memory/base"]);
  expect(await read(world, device)).toEqual(before);
  expect(world.stores.has("upper")).toBe(true);
});

it("B12 removes the images that were committed, those alone, and only on success", async () => {
  const domain = await running(world, { vda: ["top", "upper", "lower", "base"] });
  const device = await guest(world, domain, "vda");
  const before = await read(world, device);
  await world.run(domain.blockCommit("vda", null, "/memory/upper", 0, DELETE));
  await until(world, ended("vda"));
  expect([...world.stores.keys()].sort()).toEqual(["base", "top"]);
  await world.run(domain.blockCommit("vda", null, null, 0, ACTIVE | DELETE));
  await until(world, isReady("vda"));
  await world.run(domain.blockJobAbort("vda"));
  expect([...world.stores.keys()].sort()).toEqual(["base", "top"]);
  expect(await read(world, device)).toEqual(before);
  await world.run(domain.blockCommit("vda", null, null, 0, ACTIVE | DELETE));
  await until(world, (event) => isReady("vda")(event) && told(world, "vda").length === 4);
  await world.run(domain.blockJobAbort("vda", PIVOT));
  expect([...world.stores.keys()]).toEqual(["base"]);
  expect(await read(world, device)).toEqual(before);
});

it("B12 removes no image that another domain has", async () => {
  const domain = await running(world);
  const other = { name: "other", disks: [{ target: "vda", ...image("mid", image("base")) }] };
  await world.run(world.connection.define(other));
  const call = domain.blockCommit("vda", null, "/memory/mid", 0, DELETE);
  expect(await refusal(world, call)).toBe("OPERATION_INVALID");
  expect(await world.run(world.client.execute("query-jobs"))).toEqual([]);
});

it("B12 removes no image that another disk has, be it open or only defined, then or by the end", async () => {
  const domain = await running(world);
  await makeImage(world, "other", { backing: "mid" });
  const define = (...disks: object[]) =>
    world.run(world.connection.define({ name: "demo", disks } as never));
  const [own, other] = [disk("vda", "top", "mid", "base"), disk("vdb", "other", "mid", "base")];
  const remove = (flags = 0) => domain.blockCommit("vda", null, "/memory/mid", 1, DELETE | flags);
  await define(own, other);
  expect(await refusal(world, remove())).toBe("OPERATION_INVALID");
  // Another image is to be at the top from the next start on.
  await define({ ...other, target: "vda" });
  expect(await refusal(world, remove())).toBe("OPERATION_INVALID");
  await define(own);
  await world.run(remove(BLOCK_COMMIT.BANDWIDTH_BYTES));
  await define(own, other);
  await world.run(domain.blockJobSetSpeed("vda", 0));
  const warning = expect.stringMatching(/'\/memory\/mid'.*disk 'vdb' of domain 'demo' has it/);
  expect(await until(world, ended("vda"))).toMatchObject({ status: 0, warning });
  expect([...world.stores.keys()].sort()).toEqual(["base", "mid", "other", "top"]);
  expect(await paths(domain)).toEqual(["/memory/top", "/memory/base"]);
});

it("copies shallowly onto the chain that is there", async () => {
  const domain = await running(world);
  const device = await guest(world, domain, "vda");
  const before = await read(world, device);
  await world.run(domain.blockCopy("vda", image("copy"), {}, BLOCK_COPY.SHALLOW));
  await until(world, isReady("vda"));
  await world.run(domain.blockJobAbort("vda", PIVOT));
  expect(await paths(domain)).toEqual(["/memory/copy", "/memory/mid", "/memory/base"]);
  expect(await read(world, device)).toEqual(before);
  await makeImage(world, "r", { format: "raw" });
  for (const flags of [BLOCK_COPY.SHALLOW, BLOCK_COPY.SHALLOW | BLOCK_COPY.REUSE_EXT]) {
    const raw = domain.blockCopy("vda", image("r", null, "raw"), {}, flags);
    expect(await refusal(world, raw)).toBe("CONFIG_UNSUPPORTED");
  }
});

it("writes over no file that is there, but into one that it is told to reuse", async () => {
  const domain = await running(world);
  await makeImage(world, "mine", { content: { 1: 99 } });
  const before = await contentOf("mine");
  expect(await refusal(world, domain.blockCopy("vda", image("mine")))).toBe("CONFIG_UNSUPPORTED");
  expect(await refusal(world, domain.blockCopy("vda", image("base")))).toBe("INVALID_ARG");
  expect(await contentOf("mine")).toEqual(before);
  await world.run(domain.blockCopy("vda", image("mine"), {}, BLOCK_COPY.REUSE_EXT));
  await until(world, isReady("vda"));
  await world.run(domain.blockJobAbort("vda"));
  expect(await contentOf("mine")).toEqual(await read(world, await guest(world, domain, "vda")));
});

it("refuses a destination that nobody can write to, by name and without asking its server", async () => {
  let requests = 0;
  const server = createServer((_, response) => {
    requests++;
    response.writeHead(503).end();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    const domain = await running(world);
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/copy.qcow2`;
    const destination = { format: "qcow2", source: { driver: "http", url } } as const;
    for (const [flags, code] of [
      [0, "CONFIG_UNSUPPORTED"],
      [BLOCK_COPY.REUSE_EXT, "OPERATION_FAILED"],
    ] as const) {
      const call = world.run(domain.blockCopy("vda", destination, {}, flags));
      await expect(call).rejects.toMatchObject({ code, message: expect.stringContaining(url) });
    }
    expect(requests).toBe(0);
    expect(world.driver.host.record.domains[0]!.leftovers).toEqual([]);
  } finally {
    server.close();
  }
});

it("fails a copy onto an image of another size, which stays as it is", async () => {
  const domain = await running(world);
  await makeImage(world, "mine", { size: 512 * KiB, content: { 1: 99 } });
  const before = await contentOf("mine");
  await world.run(domain.blockCopy("vda", image("mine"), {}, BLOCK_COPY.REUSE_EXT));
  const { error } = (await until(world, ended("vda"))) as { error?: string };
  expect(error).toContain("different sizes");
  expect(told(world, "vda")).toEqual([[2, 1]]);
  expect(await paths(domain)).toEqual(["/memory/top", "/memory/mid", "/memory/base"]);
  expect(await contentOf("mine")).toEqual(before);
});

it("refuses a granularity that is no power of two", async () => {
  const domain = await running(world);
  const call = domain.blockCopy("vda", image("copy"), { granularity: 3000 });
  expect(await refusal(world, call)).toBe("INVALID_ARG");
  expect(world.stores.has("copy")).toBe(false);
});

it("L19 answers for info and speed while an abort waits for a store that is stuck", async () => {
  let letGo = () => {};
  const held = new Promise<void>((resolve) => {
    letGo = resolve;
  });
  let isStuck = false;
  await world.end();
  const { stores } = world;
  world = await makeWorld({ stores, drivers: [stuck(() => (isStuck ? held : Promise.resolve()))] });
  const domain = await running(world);
  const destination = { format: "raw" as const, source: { driver: "stuck", name: "copy" } };
  world.stores.set("copy", new MemoryStore(1024 * 1024));
  isStuck = true;
  await world.run(domain.blockCopy("vda", destination, {}, BLOCK_COPY.REUSE_EXT));
  await settle(world);
  const device = await guest(world, domain, "vda");
  let isOver = false;
  const abort = domain.blockJobAbort("vda").then(() => {
    isOver = true;
  });
  await world.clock.advance(40_000);
  expect(isOver).toBe(false);
  expect(await world.run(domain.getBlockJobInfo("vda"))).toMatchObject({ result: 1 });
  await world.run(domain.blockJobSetSpeed("vda", 5));
  expect((await world.run(domain.getBlockJobInfo("vda"))).info.bandwidth).toBe(5);
  expect(await refusal(world, domain.blockJobAbort("vda"))).toBe("OPERATION_INVALID");
  await world.run(device.read(0, 512));
  letGo();
  await world.run(abort);
  expect(told(world, "vda").at(-1)).toEqual([2, 2]);
  await world.run(device.close());
});

it("L19 answers for info and speed while an image of another domain does not open", async () => {
  let letGo = () => {};
  const held = new Promise<void>((resolve) => {
    letGo = resolve;
  });
  const { stores } = world;
  await world.end();
  const memory = memoryDriver(stores) as BlockDriver;
  const slow: BlockDriver = {
    ...memory,
    name: "slow",
    open: async (context) => {
      await held;
      return memory.open(context);
    },
  };
  world = await makeWorld({ stores, drivers: [slow] });
  const domain = await running(world);
  await world.run(domain.blockPull("vda", SLOW, BLOCK_PULL.BANDWIDTH_BYTES));
  stores.set("far", new MemoryStore(1024 * 1024));
  const far = { target: "vda", format: "raw" as const, source: { driver: "slow", name: "far" } };
  const other = await world.run(world.connection.define({ name: "other", disks: [far] }));
  const created = other.create();
  await settle(world);
  await world.run(domain.blockJobSetSpeed("vda", 5));
  expect((await world.run(domain.getBlockJobInfo("vda"))).info).toMatchObject({ bandwidth: 5 });
  expect(await world.run(domain.listBlockJobs())).toHaveLength(1);
  letGo();
  await world.run(created);
});

it("L18 ends the wait of an abort when the domain is destroyed, or the driver ends", async () => {
  let letGo = () => {};
  const held = new Promise<void>((resolve) => {
    letGo = resolve;
  });
  await world.end();
  world = await makeWorld({ stores: world.stores, drivers: [stuck(() => held)] });
  const domain = await running(world);
  const destination = { format: "raw" as const, source: { driver: "stuck", name: "copy" } };
  world.stores.set("copy", new MemoryStore(1024 * 1024));
  await world.run(domain.blockCopy("vda", destination, {}, BLOCK_COPY.REUSE_EXT));
  await settle(world);
  const first = refused(domain.blockJobAbort("vda"));
  await settle(world);
  await world.restart();
  expect(await first).toMatch("The driver has been closed");
  const again = world.connection.domain("demo");
  const job = world.driver.entry("demo").record.jobs[0]!;
  // As a new driver finds it that has asked for nothing yet.
  job.state = "running";
  const second = refused(again.blockJobAbort("vda"));
  await settle(world);
  expect(job.state).toBe("aborting");
  const destroyed = again.destroy();
  await settle(world);
  expect(await second).toMatch("is not running");
  letGo();
  await world.run(destroyed);
});

const refused = (call: Promise<unknown>) =>
  call.then(
    () => "",
    (error: Error) => error.message,
  );

/** Memory that writes when it is let. */
const stuck = (free: () => Promise<void>): BlockDriver =>
  memoryBehind(world.stores, "stuck", ({ method, work }) =>
    method === "pwrite" ? free().then(work) : work(),
  );
