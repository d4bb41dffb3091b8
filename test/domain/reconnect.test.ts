/** The driver begins anew, beside an engine that has gone on, and beside a new one. */

import { afterEach, beforeEach, expect, it } from "vitest";
import { BLOCK_COMMIT, BLOCK_JOB_ABORT, BLOCK_PULL } from "../../src/domain/flags.ts";
import type { DriverRecord } from "../../src/domain/record.ts";
import { type DomainStore, MemoryDomainStore } from "../../src/domain/store.ts";
import { QmpError } from "../../src/engine/client.ts";
import {
  backupIsOver,
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

const demo = () => world.connection.domain("demo");
const paths = async () => (await world.run(demo().info())).disks[0]!.chain.map(({ path }) => path);

/** Changes what is kept, as a crash or a bug would have. */
async function change(edit: (record: DriverRecord) => void): Promise<void> {
  await world.driver.close();
  const record = (await world.store.load()) as DriverRecord;
  edit(record);
  await world.store.save(record);
}

it("M03 goes on with a pull that the engine goes on with, and tells one end", async () => {
  const domain = await running(world);
  const before = await read(world, await guest(world, domain, "vda"));
  await world.run(domain.blockPull("vda", 64 * 1024, BLOCK_PULL.BANDWIDTH_BYTES));
  const [job] = await world.run(domain.listBlockJobs());
  await world.restart();
  expect(await world.run(demo().listBlockJobs())).toMatchObject([
    { name: job!.name, state: "running" },
  ]);
  await world.run(demo().blockJobSetSpeed("vda", 0));
  await until(world, ended("vda"));
  await world.clock.advance(1000);
  expect(told(world, "vda")).toEqual([[1, 0]]);
  expect(await paths()).toEqual(["/memory/top"]);
  expect(await read(world, await guest(world, demo(), "vda"))).toBe(before);
});

it("deals with an end that came while there was no driver", async () => {
  const domain = await running(world);
  await world.run(domain.blockPull("vda", 64 * 1024, BLOCK_PULL.BANDWIDTH_BYTES));
  const [job] = await world.run(domain.listBlockJobs());
  await world.driver.close();
  const speed = { device: job!.name, speed: 0 };
  await world.run(world.client.execute("block-job-set-speed", speed));
  await world.clock.advance(5000);
  await world.restart();
  await settle(world);
  expect(told(world, "vda")).toEqual([[1, 0]]);
  expect(await paths()).toEqual(["/memory/top"]);
  expect(await world.run(world.client.execute("query-jobs"))).toEqual([]);
  expect(await world.run(demo().listBlockJobs())).toEqual([]);
});

it("finds a disk where the graph has it, although the pivot ended without a driver", async () => {
  const domain = await running(world);
  await world.run(domain.blockCommit("vda", null, null, 0, BLOCK_COMMIT.ACTIVE));
  await until(world, isReady("vda"));
  const [job] = await world.run(domain.listBlockJobs());
  await world.driver.close();
  await world.run(world.client.execute("job-complete", { id: job!.name }));
  await world.clock.advance(1000);
  await world.restart();
  expect(await paths()).toEqual(["/memory/base"]);
  // What is started next time is the base, too: the top lacks what was written since.
  const { disks } = await world.run(demo().getDesc(2));
  expect(disks[0]!.source).toEqual({ driver: "memory", name: "base" });
});

it("does the last steps again of a job whose end is in the record", async () => {
  const domain = await running(world);
  await world.run(domain.blockCopy("vda", image("copy")));
  await until(world, isReady("vda"));
  const record = structuredClone(await world.store.load()) as DriverRecord;
  const [kept] = record.domains[0]!.jobs;
  await world.run(domain.blockJobAbort("vda"));
  // As if it had ended right after the commit point.
  await change(({ domains }) => {
    domains[0]!.jobs.push({ ...kept!, state: "cancelled" });
    domains[0]!.leftovers.push("libvirt-99-format");
  });
  await world.restart();
  expect(await world.run(demo().listBlockJobs())).toEqual([]);
  expect(await refusal(world, demo().blockJobAbort("vda"))).toBe("INVALID_ARG");
  await world.run(demo().blockPull("vda"));
  await until(world, ended("vda"));
});

it("M07 drops a job that never began, without a word", async () => {
  const domain = await running(world);
  await world.run(domain.blockPull("vda", 1, BLOCK_PULL.BANDWIDTH_BYTES));
  await world.run(domain.blockJobAbort("vda"));
  await change(({ domains }) => {
    domains[0]!.jobs.push({
      name: "pull-vda-libvirt-1-format",
      serial: 900,
      kind: "pull",
      state: "new",
      disk: "vda",
      flags: 0,
      began: 0,
      wasReady: false,
      base: null,
    });
  });
  world.events.length = 0;
  await world.restart();
  expect(await world.run(demo().listBlockJobs())).toEqual([]);
  expect(world.events).toEqual([]);
  expect(await paths()).toHaveLength(3);
});

it.each(["pull", "commit"] as const)(
  "believes the graph of a %s that the engine does not know any more",
  async (kind) => {
    const domain = await running(world);
    const start = () =>
      kind === "pull"
        ? domain.blockPull("vda", 64 * 1024, BLOCK_PULL.BANDWIDTH_BYTES)
        : domain.blockCommit("vda", null, "/memory/mid", 1, BLOCK_COMMIT.BANDWIDTH_BYTES);
    await world.run(start());
    const [job] = await world.run(domain.listBlockJobs());
    await world.driver.close();
    const ended = world.client.waitForJob(job!.name, "concluded");
    await world.run(world.client.execute("block-job-set-speed", { device: job!.name, speed: 0 }));
    await world.run(ended);
    await world.run(world.client.execute("job-dismiss", { id: job!.name }));
    await world.restart();
    expect(told(world, "vda")).toEqual([[kind === "pull" ? 1 : 3, 0]]);
    expect(await paths()).toEqual(
      kind === "pull" ? ["/memory/top"] : ["/memory/top", "/memory/base"],
    );
  },
);

it("fails a pull that was lost half way, and lets no older driver write any more", async () => {
  const domain = await running(world);
  await world.run(domain.blockPull("vda", 1, BLOCK_PULL.BANDWIDTH_BYTES));
  const [job] = await world.run(domain.listBlockJobs());
  const old = world.driver;
  await change(() => {});
  await world.run(world.client.execute("job-cancel", { id: job!.name }));
  await world.run(world.client.waitForJob(job!.name, "concluded"));
  await world.run(world.client.execute("job-dismiss", { id: job!.name }));
  await world.restart();
  expect(told(world, "vda")).toEqual([[1, 1]]);
  expect(await paths()).toHaveLength(3);
  await expect(old.host.save()).rejects.toMatchObject({ code: "OPERATION_FAILED" });
});

it("takes up a job whose start was never confirmed", async () => {
  const domain = await running(world);
  await world.run(domain.blockPull("vda", 1, BLOCK_PULL.BANDWIDTH_BYTES));
  await change(({ domains }) => {
    domains[0]!.jobs[0]!.state = "new";
  });
  await world.restart();
  expect(await world.run(demo().listBlockJobs())).toMatchObject([{ state: "running" }]);
  await world.run(demo().blockJobAbort("vda"));
  expect(told(world, "vda")).toEqual([[1, 2]]);
});

it("goes on with an abort and with a pivot that were not accepted", async () => {
  const domain = await running(world);
  await world.run(domain.blockCopy("vda", image("copy")));
  await until(world, isReady("vda"));
  await change(({ domains }) => {
    domains[0]!.jobs[0]!.state = "pivoting";
  });
  await world.restart();
  expect(await world.run(demo().listBlockJobs())).toMatchObject([{ state: "ready" }]);
  await change(({ domains }) => {
    domains[0]!.jobs[0]!.state = "aborting";
  });
  await world.restart();
  await until(world, ended("vda"));
  expect(told(world, "vda").at(-1)).toEqual([2, 2]);
  expect(await paths()).toHaveLength(3);
});

it("M06 puts a job aside that it does not understand, and the disk is usable", async () => {
  const domain = await running(world);
  await world.run(domain.blockPull("vda", 1, BLOCK_PULL.BANDWIDTH_BYTES));
  const broken = { name: "pull-vda-libvirt-1-format", kind: "unheard-of" };
  await change(({ domains }) => {
    domains[0]!.jobs = [broken as never];
  });
  await world.restart();
  expect(await world.run(demo().listBlockJobs())).toEqual([]);
  expect(await world.run(world.client.execute("query-jobs"))).toEqual([]);
  expect(world.driver.host.record.broken).toHaveLength(1);
  await world.run(demo().blockPull("vda"));
  await until(world, ended("vda"));
});

it("keeps a record aside that it does not understand at all", async () => {
  await running(world);
  await world.driver.close();
  await world.store.save({ version: "?", epoch: 5, nextLayer: 40, nextId: 9, nextSerial: 3 });
  await world.restart();
  expect(await world.run(world.connection.listAllDomains())).toEqual([]);
  // Names that are in use are not given out again.
  expect(world.driver.host.record).toMatchObject({ nextLayer: 40, broken: [{ version: "?" }] });
});

it("leaves a record alone that a newer program has written, and says so", async () => {
  await world.driver.close();
  const { epoch } = world.driver.host.record;
  const newer = { version: 2, epoch: epoch + 1, whatever: "it has" };
  await world.store.save(newer);
  await expect(world.restart()).rejects.toMatchObject({
    errno: "EINVAL",
    message: expect.stringMatching(/newer blocktab.* version 2, .* version 1\./),
  });
  expect(await world.store.load()).toEqual(newer);
});

it("M08 fails a backup whose engine is gone, removes its target, and keeps its bitmap right", async () => {
  const store = new MemoryDomainStore();
  const saved: DriverRecord[] = [];
  const recording = {
    load: () => store.load(),
    save(record: object) {
      saved.push(structuredClone(record) as DriverRecord);
      return store.save(record);
    },
  };
  const first = await makeWorld({ store: recording });
  const domain = await running(first, { vda: ["a"] });
  const device = await guest(first, domain, "vda");
  await first.run(domain.backupBegin({}, { name: "one" }));
  await until(first, backupIsOver);
  await write(first, device, { 2: 50 });
  const before = await read(first, device);
  await first.run(domain.backupBegin({ incremental: "one" }, { name: "two" }));
  // The driver is gone in the middle of it, and then the engine is: in good order, so bitmaps are kept.
  const record = saved.findLast(({ domains }) => domains[0]?.jobs[0]?.state === "running");
  await first.driver.close();
  await first.run(first.engine.close());
  const kept = new MemoryDomainStore();
  await kept.save(record as object);
  const second = await makeWorld({ store: kept, stores: first.stores });
  const { connection, run } = second;
  expect(await run(connection.lookupByName("demo"))).toMatchObject({ state: 5, id: null });
  expect(second.events.find(backupIsOver)).toMatchObject({
    stats: { type: 4, success: false },
  });
  expect(second.stores.has("a.two")).toBe(false);
  const again = connection.domain("demo");
  await run(again.create());
  const disks = [{ name: "vda", target: { driver: "memory", name: "inc" } }];
  second.events.length = 0;
  await run(again.backupBegin({ incremental: "one", disks }));
  await until(second, backupIsOver);
  expect(await run(again.getJobStats(1))).toMatchObject({ type: 3, disk_total: 64 * 1024 });
  expect(await read(second, await guest(second, again, "vda"))).toBe(before);
  await second.end();
});

it("clears away what a start that was broken off has left", async () => {
  await running(world);
  await change(({ domains }) => {
    domains[0]!.state = "starting";
  });
  await world.restart();
  expect(await world.run(world.client.execute("query-named-block-nodes"))).toEqual([]);
  expect((await world.run(demo().info())).state).toBe(5);
  await world.run(demo().create());
});

it("goes on with a backup of mode pull, which another driver had begun", async () => {
  const domain = await running(world, { vda: ["a"] });
  await world.run(domain.backupBegin({ mode: "pull" }));
  await world.restart();
  expect(await world.run(demo().getJobStats())).toMatchObject({ type: 2 });
  await world.run(demo().abortJob());
  await until(world, backupIsOver);
  await settle(world);
  expect([...world.stores.keys()]).toEqual(["a"]);
  await world.run(demo().backupBegin({}));
  await until(world, (event) => event.event === "block-job-2" && event.status === 0);
});

it("aborts a pivot that has failed only by saying so", async () => {
  const domain = await running(world);
  const { PIVOT } = BLOCK_JOB_ABORT;
  await world.run(domain.blockCopy("vda", image("copy")));
  await until(world, isReady("vda"));
  await world.run(domain.blockJobAbort("vda", PIVOT));
  expect(await refusal(world, domain.blockJobAbort("vda", PIVOT))).toBe("INVALID_ARG");
});

it("hears nothing more of jobs if it could not start: the one that starts next deals with them", async () => {
  await world.end();
  const kept = new MemoryDomainStore();
  const refusals: unknown[] = [];
  const store: DomainStore = {
    load: () => kept.load(),
    async save(record) {
      await kept.save(record).catch((error) => {
        refusals.push(error);
        throw error;
      });
    },
  };
  world = await makeWorld({ store });
  const domain = await running(world);
  await world.run(domain.blockPull("vda", 1, BLOCK_PULL.BANDWIDTH_BYTES));
  const { client } = world;
  const { execute } = client;
  client.execute = () =>
    Promise.reject(new QmpError({ class: "GenericError", desc: "Not at the moment" }));
  await expect(world.restart()).rejects.toThrow("Not at the moment");
  client.execute = execute;
  await world.restart();
  await world.run(demo().blockJobSetSpeed("vda", 0));
  await until(world, ended("vda"));
  await world.clock.advance(10_000);
  expect(told(world, "vda")).toEqual([[1, 0]]);
  // Of a record that is not the newest any more.
  expect(refusals).toEqual([]);
});

it.each([
  ["copy", "copy"],
  ["commit of the active layer", "base"],
] as const)(
  "says where else to look when an engine is gone for good amid the pivot of a %s",
  async (name, to) => {
    let isLost = false;
    const { stores } = world;
    await world.end();
    const store = storeUntil(() => isLost);
    world = await makeWorld({ stores, store });
    const domain = await running(world);
    if (name === "copy") await world.run(domain.blockCopy("vda", image("copy")));
    else await world.run(domain.blockCommit("vda", null, null, 0, BLOCK_COMMIT.ACTIVE));
    await until(world, isReady("vda"));
    const { client } = world;
    const { execute } = client;
    client.execute = (async (...args: Parameters<typeof execute>) => {
      const result = await execute.apply(client, args);
      isLost ||= args[0] === "job-complete";
      return result;
    }) as typeof execute;
    await refusal(world, domain.blockJobAbort("vda", BLOCK_JOB_ABORT.PIVOT));
    isLost = false;
    const second = await makeWorld({ stores, store });
    const error = `The engine it ran in is gone, amid a pivot: what was written last may be in '/memory/${to}'`;
    expect(second.events.find(ended("vda"))).toMatchObject({ status: 1, error });
    expect([...stores.keys()]).toContain(to);
    await second.end();
  },
);

it("removes what a commit was to remove whose end was on record when the engine was lost", async () => {
  let isLost = false;
  const { stores } = world;
  await world.end();
  const kept = storeUntil(() => isLost);
  const store: DomainStore = {
    load: () => kept.load(),
    async save(record) {
      await kept.save(record);
      isLost ||= JSON.stringify(record).includes('"state":"completed"');
    },
  };
  world = await makeWorld({ stores, store });
  const domain = await running(world);
  const { client } = world;
  const { execute } = client;
  client.execute = (...args: Parameters<typeof execute>) =>
    isLost ? new Promise(() => {}) : execute.apply(client, args);
  void domain.blockCommit("vda", null, "/memory/mid", 0, BLOCK_COMMIT.DELETE).catch(() => {});
  await settle(world);
  expect([isLost, stores.has("mid")]).toEqual([true, true]);
  client.execute = execute;
  isLost = false;
  const second = await makeWorld({ stores, store: kept });
  expect(second.events.find(ended("vda"))).toMatchObject({ status: 0 });
  expect([...stores.keys()].sort()).toEqual(["base", "top"]);
  await second.end();
});
