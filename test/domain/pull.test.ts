/** blockPull(), blockRebase() without COPY, getBlockJobInfo(), blockJobSetSpeed(), and naming of disks. */

import { type GenericSchema, safeParse } from "valibot";
import { afterEach, beforeEach, expect, it } from "vitest";
import { CALLS, type CallName } from "../../src/domain/calls.ts";
import { BLOCK_JOB_ABORT, BLOCK_PULL, BLOCK_REBASE } from "../../src/domain/flags.ts";
import {
  disk,
  ended,
  GRAIN,
  guest,
  image,
  MiB,
  makeImage,
  makeWorld,
  read,
  refusal,
  running,
  settle,
  told,
  until,
  type World,
} from "./world.ts";

let world: World;
beforeEach(async () => {
  world = await makeWorld();
});
afterEach(() => world.end());

const paths = async (domain: Awaited<ReturnType<typeof running>>, at = 0) =>
  (await world.run(domain.info())).disks[at]!.chain.map(({ path }) => path);

/** What the headers of images name as their backing files, the top first. */
async function labels() {
  const nodes = await world.run(world.client.execute("query-named-block-nodes", { flat: true }));
  const { chain } = (await world.run(world.connection.domain("demo").info())).disks[0]!;
  return chain.map(
    ({ node }) => nodes.find((one) => one["node-name"] === node)!.image["backing-filename"],
  );
}

/** A second is enough for a cluster or so. */
const SLOW = 64 * 1024;

it("A02 answers 0 and zeroes without a job, 1 with one, and refuses what there is not", async () => {
  const domain = await running(world);
  const none = { result: 0, info: { type: 0, bandwidth: 0, cur: 0, end: 0 } };
  expect(await world.run(domain.getBlockJobInfo("vda"))).toEqual(none);
  await world.run(domain.blockPull("vda", SLOW, BLOCK_PULL.BANDWIDTH_BYTES));
  const { result, info } = await world.run(domain.getBlockJobInfo("vda"));
  expect([result, info.type]).toEqual([1, 1]);
  expect(await refusal(world, domain.getBlockJobInfo("vdb"))).toBe("INVALID_ARG");
  await world.run(domain.destroy());
  expect(await refusal(world, domain.getBlockJobInfo("vda"))).toBe("OPERATION_INVALID");
  const nobody = world.connection.domain("nobody");
  expect(await refusal(world, nobody.getBlockJobInfo("vda"))).toBe("NO_DOMAIN");
});

it("A03 pulls a disk until it stands alone, and reads the same all the time", async () => {
  const domain = await running(world);
  const device = await guest(world, domain, "vda");
  const before = await read(world, device);
  await world.run(domain.blockPull("vda", 256 * 1024, BLOCK_PULL.BANDWIDTH_BYTES));
  expect(told(world, "vda")).toEqual([]);
  let last = 0;
  for (let i = 0; i < 5; i++) {
    const { info } = await world.run(domain.getBlockJobInfo("vda"));
    if (info.type === 0) break;
    expect(info.cur).toBeLessThanOrEqual(info.end);
    expect(info.cur).toBeGreaterThanOrEqual(last);
    last = info.cur;
    await world.clock.advance(300);
  }
  await until(world, ended("vda"));
  await settle(world);
  expect(told(world, "vda")).toEqual([[1, 0]]);
  expect((await world.run(domain.getBlockJobInfo("vda"))).result).toBe(0);
  expect(await read(world, device)).toEqual(before);
  expect(await paths(domain)).toEqual(["/memory/top"]);
  // The definition follows, and what was below is closed.
  expect((await world.run(domain.getDesc(2))).disks[0]!.backingStore).toBeNull();
  const nodes = await world.run(world.client.execute("query-named-block-nodes"));
  expect(nodes).toHaveLength(2);
  await world.run(device.close());
  await world.run(domain.destroy());
  world.stores.delete("mid");
  world.stores.delete("base");
  await world.run(domain.create());
  expect(await read(world, await guest(world, domain, "vda"))).toEqual(before);
  expect(await labels()).toEqual([undefined]);
});

it("A04 pulls down to an image in the middle, which stays", async () => {
  const domain = await running(world, { vda: ["top", "upper", "lower", "base"] });
  const device = await guest(world, domain, "vda");
  const before = await read(world, device);
  await world.run(domain.blockRebase("vda", "/memory/lower"));
  await until(world, ended("vda"));
  expect(await paths(domain)).toEqual(["/memory/top", "/memory/lower", "/memory/base"]);
  expect(await read(world, device)).toEqual(before);
  await world.run(domain.blockRebase("vda", "vda[2]"));
  await until(world, (event) => ended("vda")(event) && told(world, "vda").length === 2);
  expect(await paths(domain)).toEqual(["/memory/top", "/memory/base"]);
  expect(await read(world, device)).toEqual(before);
  expect(await labels()).toEqual(["/memory/base", undefined]);
});

it("refuses bases that are none", async () => {
  const domain = await running(world);
  expect(await refusal(world, domain.blockRebase("vda", "/memory/nope"))).toBe("INVALID_ARG");
  expect(await refusal(world, domain.blockRebase("vda", "vda[3]"))).toBe("INVALID_ARG");
  expect(await refusal(world, domain.blockRebase("vda", "/memory/top"))).toBe("INVALID_ARG");
  const { RELATIVE } = BLOCK_REBASE;
  expect(await refusal(world, domain.blockRebase("vda", null, 0, RELATIVE))).toBe("INVALID_ARG");
  // The headers have absolute names.
  const relative = domain.blockRebase("vda", "/memory/base", 0, RELATIVE);
  expect(await refusal(world, relative)).toBe("OPERATION_INVALID");
  expect(await world.run(domain.listBlockJobs())).toEqual([]);
});

it("A06 tells the bandwidth of a job in either unit", async () => {
  const domain = await running(world);
  await world.run(domain.blockPull("vda", 1_048_577, BLOCK_PULL.BANDWIDTH_BYTES));
  expect((await world.run(domain.getBlockJobInfo("vda", 0))).info.bandwidth).toBe(2);
  expect((await world.run(domain.getBlockJobInfo("vda", 1))).info.bandwidth).toBe(1_048_577);
});

it("A07 limits a job from its first cluster on, and changes the limit while it runs", async () => {
  const domain = await running(world, { vda: ["top", "base"] }, 1 * MiB);
  await world.run(domain.blockPull("vda", 1, BLOCK_PULL.BANDWIDTH_BYTES));
  await world.clock.advance(2000);
  // One chunk may go at once, and no more in any second.
  const { cur } = (await world.run(domain.getBlockJobInfo("vda"))).info;
  expect(cur).toBeLessThanOrEqual(512 * 1024);
  expect(await refusal(world, domain.blockJobSetSpeed("vda", 2 ** 52 + 1, 1))).toBe("OVERFLOW");
  expect(await refusal(world, domain.blockJobSetSpeed("vda", 2 ** 43))).toBe("OVERFLOW");
  expect((await world.run(domain.getBlockJobInfo("vda", 1))).info.bandwidth).toBe(1);
  await world.run(domain.blockJobSetSpeed("vda", 0));
  await world.clock.advance(1000);
  expect(told(world, "vda")).toEqual([[1, 0]]);
});

it("A07 holds the limit of a pull of 64 MiB in every second, from the first cluster on", async () => {
  const size = 64 * MiB;
  const full = Object.fromEntries(Array.from({ length: size / GRAIN }, (_, at) => [at, 7]));
  await makeImage(world, "base", { size, content: full });
  await makeImage(world, "top", { size, backing: "base" });
  const definition = { name: "demo", disks: [disk("vda", "top", "base")] };
  const domain = await world.run(world.connection.define(definition));
  await world.run(domain.create());
  await world.run(domain.blockPull("vda", 8));
  for (let second = 0; second < 8; second++) {
    const { cur, end } = (await world.run(domain.getBlockJobInfo("vda"))).info;
    expect(cur).toBeLessThanOrEqual((second * 8 + 1) * MiB);
    if (second > 0) expect(cur).toBeGreaterThanOrEqual((second * 8 - 1) * MiB);
    if (second > 0) expect(end).toBe(size);
    await world.clock.advance(1000);
  }
  await world.clock.advance(1000);
  expect(told(world, "vda")).toEqual([[1, 0]]);
});

it("A08 refuses unknown flags in every call, and flags of copies without COPY", async () => {
  const domain = await running(world);
  const calls = [
    () => domain.blockPull("vda", 0, 1),
    () => domain.blockRebase("vda", null, 0, 1 << 7),
    () => domain.blockCopy("vda", image("copy"), {}, 1 << 4),
    () => domain.blockCommit("vda", null, null, 0, 1 << 5),
    () => domain.blockJobAbort("vda", 1 << 2),
    () => domain.getBlockJobInfo("vda", 1 << 1),
    () => domain.blockJobSetSpeed("vda", 0, 1 << 1),
    () => domain.backupBegin({}, null, 1 << 1),
    () => domain.getJobStats(1 << 2),
    () => domain.checkpointCreate({}, 1 << 3),
    () => domain.create(1),
    () => domain.shutdown(1),
    () => domain.destroy(1),
    () => domain.undefine(1 << 10),
    () => domain.getDesc(1 << 10),
    () => domain.backupGetDesc(1),
    () => domain.checkpointDelete("one", 1 << 3),
    () => domain.checkpointGetDesc("one", 1 << 3),
    () => domain.listAllCheckpoints(1 << 4),
    () => domain.snapshotCreate({}, 1 << 10),
    () => world.connection.define({ name: "other", disks: [] }, 1),
  ];
  for (const call of calls) expect(await refusal(world, call())).toBe("INVALID_ARG");
  const { SHALLOW, REUSE_EXT, COPY_RAW, COPY_DEV, COPY, RELATIVE } = BLOCK_REBASE;
  for (const flag of [SHALLOW, REUSE_EXT, COPY_RAW, COPY_DEV]) {
    const call = domain.blockRebase("vda", "/memory/mid", 0, flag);
    expect(await refusal(world, call)).toBe("INVALID_ARG");
  }
  const relative = domain.blockRebase("vda", "/memory/new", 0, COPY | RELATIVE);
  expect(await refusal(world, relative)).toBe("ARGUMENT_UNSUPPORTED");
  const device = domain.blockRebase("vda", "/memory/new", 0, COPY | COPY_DEV);
  expect(await refusal(world, device)).toBe("CONFIG_UNSUPPORTED");
  expect(await world.run(domain.listBlockJobs())).toEqual([]);
});

it("A08 looks at the flags of every call that has some, before anything else", async () => {
  await running(world);
  const flagless: CallName[] = ["listAllDomains", "lookupByName", "listBlockJobs", "abortJob"];
  for (const [name, schemas] of Object.entries(CALLS) as [CallName, readonly GenericSchema[]][]) {
    if (flagless.includes(name)) continue;
    // Of each argument something that passes the first look.
    const some = [0, "demo", {}];
    const rest = schemas
      .slice(0, -1)
      .map((one) => some.find((value) => safeParse(one, value).success));
    const call = world.run(world.driver.call(name, [...rest, 2 ** 30] as never));
    const message = `${name} does not know all of the flags 0x40000000`;
    await expect(call).rejects.toMatchObject({ code: "INVALID_ARG", message });
  }
});

it("A09 refuses a second job on a disk, and starts one on another", async () => {
  const domain = await running(world, { vda: ["top", "base"], vdb: ["other", "ground"] });
  await world.run(domain.blockPull("vda", SLOW, BLOCK_PULL.BANDWIDTH_BYTES));
  expect(await refusal(world, domain.blockPull("vda"))).toBe("OPERATION_UNSUPPORTED");
  expect(await refusal(world, domain.blockCopy("vda", image("c")))).toBe("OPERATION_UNSUPPORTED");
  await world.run(domain.blockPull("vdb"));
  await until(world, ended("vdb"));
  await world.run(domain.blockJobAbort("vda"));
  await world.run(domain.blockCopy("vda", image("copy")));
  expect(await refusal(world, domain.blockPull("vda"))).toBe("BLOCK_COPY_ACTIVE");
  await world.run(domain.blockJobAbort("vda"));
});

it("A10 finds a disk by target or by path, and tells both names of it", async () => {
  const domain = await running(world);
  await world.run(domain.blockPull("/memory/top", 0));
  await until(world, ended("vda"));
  expect(world.events.filter(({ event }) => event.startsWith("block-job"))).toEqual([
    expect.objectContaining({ event: "block-job", disk: "/memory/top", type: 1, status: 0 }),
    expect.objectContaining({ event: "block-job-2", disk: "vda", type: 1, status: 0 }),
  ]);
  // After a pivot the path is another.
  world.events.length = 0;
  await world.run(domain.blockCopy("vda", image("copy")));
  await until(world, ({ event }) => event === "block-job-2");
  await world.run(domain.blockJobAbort("vda", BLOCK_JOB_ABORT.PIVOT));
  const byPath = world.events.flatMap((event) =>
    event.event === "block-job" ? [[event.disk, event.status]] : [],
  );
  expect(byPath).toEqual([
    ["/memory/top", 3],
    ["/memory/copy", 0],
  ]);
  expect(await refusal(world, domain.getBlockJobInfo("/memory/top"))).toBe("INVALID_ARG");
});

it("A11 tells exactly one end of a job that ends in the turn of its start", async () => {
  await makeImage(world, "empty");
  const definition = { name: "demo", disks: [disk("vda", "empty")] };
  const domain = await world.run(world.connection.define(definition as never));
  await world.run(domain.create());
  await world.run(domain.blockPull("vda"));
  await until(world, ended("vda"));
  await world.clock.advance(1000);
  expect(told(world, "vda")).toEqual([[1, 0]]);
});
