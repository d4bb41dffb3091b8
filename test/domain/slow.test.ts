/** What can be seen of jobs whose store is held up, or is counted: how calls race with a job and its end. */

import { afterEach, beforeEach, expect, it } from "vitest";
import { BACKUP_BEGIN, BLOCK_COPY, BLOCK_JOB_ABORT, BLOCK_PULL } from "../../src/domain/flags.ts";
import { MemoryStore } from "../../src/drivers/protocol/memory.ts";
import {
  backupIsOver,
  ended,
  GRAIN,
  guest,
  image,
  isReady,
  MiB,
  makeImage,
  makeWorld,
  memory,
  memoryBehind,
  refusal,
  running,
  settle,
  told,
  until,
  type World,
} from "./world.ts";

const { ASYNC, PIVOT } = BLOCK_JOB_ABORT;
const { BANDWIDTH_BYTES } = BLOCK_PULL;

let world: World;
/** Where reads of the store "slow" begin. */
let reads: number[];
/** Writes to it wait until it is let go. */
let held: Promise<void> | null;
let letGo: () => void;

function hold(): void {
  held = new Promise((resolve) => {
    letGo = () => {
      held = null;
      resolve();
    };
  });
}

beforeEach(async () => {
  reads = [];
  held = null;
  letGo = () => {};
  const stores = new Map<string, MemoryStore>();
  world = await makeWorld({ stores, drivers: [slow(stores)] });
});
afterEach(async () => {
  letGo();
  await world.end();
});

const slow = (stores: Map<string, MemoryStore>) =>
  memoryBehind(stores, "slow", ({ method, args, work }) => {
    if (method === "pread") reads.push(args[1] as number);
    return method === "pwrite" && held ? held.then(work) : work();
  });

const on = (name: string) => ({ driver: "slow", name });

/** A copy to a store that is held up, so that it comes to no end. */
async function stuckCopy() {
  const domain = await running(world, { vda: ["top", "base"] });
  world.stores.set("copy", new MemoryStore(MiB));
  hold();
  const destination = { format: "raw", source: on("copy") } as const;
  await world.run(domain.blockCopy("vda", destination, {}, BLOCK_COPY.REUSE_EXT));
  await settle(world);
  return domain;
}

it("B01 reads nothing a second time that a pull had copied before it was aborted", async () => {
  const full = Object.fromEntries(Array.from({ length: MiB / GRAIN }, (_, at) => [at, 7]));
  await makeImage(world, "base", { format: "raw", content: full });
  await makeImage(world, "top", { backing: "base" });
  const backingStore = { format: "raw", source: on("base") } as const;
  const disks = [{ target: "vda", ...image("top", backingStore) }];
  const domain = await world.run(world.connection.define({ name: "demo", disks }));
  await world.run(domain.create());
  reads.length = 0;
  await world.run(domain.blockPull("vda", 512 * 1024, BANDWIDTH_BYTES));
  await settle(world);
  await world.run(domain.blockJobAbort("vda"));
  const first = new Set(reads.splice(0));
  expect(first.size).toBeGreaterThan(0);
  await world.run(domain.blockPull("vda"));
  await until(world, (event) => ended("vda")(event) && told(world, "vda").length === 2);
  expect(reads.length).toBeGreaterThan(0);
  expect(reads.filter((at) => first.has(at))).toEqual([]);
  expect(Math.min(...reads)).toBeGreaterThan(Math.max(...first));
});

it("B02 B03 with ASYNC answers while the job is still there, and it is told once that it was ended", async () => {
  const domain = await stuckCopy();
  await world.run(domain.blockJobAbort("vda", ASYNC));
  expect(told(world, "vda")).toEqual([]);
  const { result, info } = await world.run(domain.getBlockJobInfo("vda"));
  expect([result, info.type]).toEqual([1, 2]);
  expect(await world.run(domain.listBlockJobs())).toMatchObject([{ state: "aborting" }]);
  for (const flags of [0, ASYNC, PIVOT, ASYNC | PIVOT]) {
    const again = world.run(domain.blockJobAbort("vda", flags));
    await expect(again).rejects.toMatchObject({
      code: "OPERATION_INVALID",
      number: 55,
      message: expect.stringMatching(/'vda' is still being ended/),
    });
  }
  expect(await refusal(world, domain.blockPull("vda"))).toBe("BLOCK_COPY_ACTIVE");
  letGo();
  await until(world, ended("vda"));
  await settle(world);
  expect(told(world, "vda")).toEqual([[2, 2]]);
  expect(await refusal(world, domain.blockJobAbort("vda", ASYNC))).toBe("INVALID_ARG");
});

it("B03 refuses what comes while another abort waits, which is over with the job", async () => {
  const domain = await stuckCopy();
  const first = domain.blockJobAbort("vda");
  const others = [domain.blockJobAbort("vda"), domain.blockJobAbort("vda", ASYNC)];
  const reason = { code: "OPERATION_INVALID" };
  const refused = [{ reason }, { reason }];
  expect(await world.run(Promise.allSettled(others))).toMatchObject(refused);
  await world.run(domain.blockJobSetSpeed("vda", 1));
  letGo();
  await world.run(first);
  expect(told(world, "vda")).toEqual([[2, 2]]);
  expect(await refusal(world, domain.blockJobSetSpeed("vda", 1))).toBe("INVALID_ARG");
  expect(await world.run(domain.getBlockJobInfo("vda"))).toMatchObject({ result: 0 });
});

it("B07 gets ready with synchronous writes although the guest outruns the copy", async () => {
  const domain = await running(world, { vda: ["top", "base"] });
  const device = await guest(world, domain, "vda");
  /** A guest that writes all over the disk, four times as fast as the copy may. */
  const busy = async () => {
    for (let second = 0; second < 60 && !world.events.some(isReady("vda")); second++) {
      for (let n = 0; n < 4; n++) {
        const at = (second * 4 + n) % (MiB / GRAIN);
        await world.run(device.write(at * GRAIN, new Uint8Array(GRAIN).fill(second + 1)));
        await world.clock.advance(250);
      }
    }
    return world.events.some(isReady("vda"));
  };
  const params = { bandwidth: GRAIN, granularity: GRAIN };
  await world.run(domain.blockCopy("vda", image("one", null, "raw"), params));
  expect(await busy()).toBe(false);
  await world.run(domain.blockJobAbort("vda"));
  const flags = BLOCK_COPY.SYNCHRONOUS_WRITES;
  await world.run(domain.blockCopy("vda", image("two", null, "raw"), params, flags));
  expect(await busy()).toBe(true);
  await world.run(domain.blockJobAbort("vda", PIVOT));
});

it("B08 takes READY for no news while it pivots", async () => {
  const domain = await running(world, { vda: ["top", "base"] });
  await world.run(domain.blockCopy("vda", image("copy")));
  await until(world, isReady("vda"));
  const [job] = await world.run(domain.listBlockJobs());
  const { client } = world;
  const execute = client.execute.bind(client) as (...args: unknown[]) => Promise<never>;
  const seen: string[] = [];
  const statuses = client.events("JOB_STATUS_CHANGE");
  void (async () => {
    for await (const { data } of statuses) seen.push(data.status);
  })();
  client.execute = async (...args: unknown[]) => {
    if (args[0] === "job-complete") {
      await execute("job-pause", { id: job!.name });
      await execute("job-resume", { id: job!.name });
      for (let turn = 0; turn < 100 && !seen.includes("ready"); turn++) await world.clock.yield();
      expect(world.driver.entry("demo").record.jobs[0]!.state).toBe("pivoting");
    }
    return execute(...args);
  };
  await world.run(domain.blockJobAbort("vda", PIVOT));
  client.execute = execute as typeof client.execute;
  await settle(world);
  await statuses.return();
  // The engine did say it a second time.
  expect(seen).toContain("ready");
  expect(told(world, "vda")).toEqual([
    [2, 3],
    [2, 0],
  ]);
  expect((await world.run(domain.info())).disks[0]!.chain[0]!.path).toBe("/memory/copy");
});

it("L10 lets a speed be changed, a job begin and info be asked for beside a backup; a second backup waits, and is told for whom", async () => {
  const domain = await running(world, { vda: ["a"], vdb: ["b", "ground"] });
  world.stores.set("kept", new MemoryStore(MiB));
  hold();
  const disks = [{ name: "vda", format: "raw", target: on("kept") }] as const;
  await world.run(domain.backupBegin({ disks: [...disks] }, null, BACKUP_BEGIN.REUSE_EXTERNAL));
  await world.run(domain.blockPull("vdb", 1, BANDWIDTH_BYTES));
  for (const disk of ["vda", "vdb"]) await world.run(domain.blockJobSetSpeed(disk, 3));
  expect((await world.run(domain.getBlockJobInfo("vda"))).info).toMatchObject({
    type: 5,
    bandwidth: 3,
  });
  const second = domain.backupBegin();
  const text = /backupBegin did not get its turn.*: backupBegin \(async backup\) has been/;
  const failed = expect(second).rejects.toMatchObject({
    code: "OPERATION_TIMEOUT",
    number: 68,
    message: expect.stringMatching(text),
  });
  await world.clock.advance(30_000);
  await failed;
  letGo();
  await until(world, backupIsOver);
  await world.run(domain.blockJobAbort("vdb")).catch(() => {});
});

it("K01 cancels the disk that is still at it when another fails, and tells the first error", async () => {
  const domain = await running(world, { vda: ["a"], vdb: ["b"] });
  for (const name of ["small", "kept"]) world.stores.set(name, new MemoryStore(MiB));
  hold();
  const small = {
    name: "vda",
    format: "raw",
    target: memory("small"),
  } as const;
  const disks = [small, { name: "vdb", format: "raw", target: on("kept") } as const];
  await world.run(domain.backupBegin({ disks }, null, BACKUP_BEGIN.REUSE_EXTERNAL));
  await until(world, ended("vda"));
  await settle(world);
  expect(told(world, "vdb")).toEqual([]);
  expect(await world.run(domain.listBlockJobs())).toMatchObject([
    { disk: "vdb", state: "aborting" },
  ]);
  letGo();
  const { stats } = (await until(world, backupIsOver)) as {
    stats: object;
  };
  expect(told(world, "vda")).toEqual([[5, 1]]);
  expect(told(world, "vdb")).toEqual([[5, 2]]);
  const errmsg = expect.stringContaining("full");
  expect(stats).toMatchObject({ type: 4, success: false, errmsg });
  expect(world.stores.has("kept")).toBe(true);
});
