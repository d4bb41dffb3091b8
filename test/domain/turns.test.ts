/** A call that does not get its turn, as its caller sees it: why, by number and in words, and who is in its way. */

import { afterEach, expect, it } from "vitest";
import {
  BLOCK_COMMIT,
  BLOCK_PULL,
  CHECKPOINT_DELETE,
  DOMAIN_UNDEFINE,
  SNAPSHOT_CREATE,
} from "../../src/domain/flags.ts";
import { type DomainStore, MemoryDomainStore } from "../../src/domain/store.ts";
import {
  disk,
  image,
  isReady,
  makeWorld,
  running,
  settle,
  until,
  type World,
  type WorldOptions,
} from "./world.ts";

let world: World;
let letGo: () => void = () => {};
/** Until it is let go no command of that name comes back, or no record is kept. */
let held: { readonly what: string; readonly until: Promise<void> } | null = null;

afterEach(async () => {
  letGo();
  await world.end();
});

function hold(what: string): void {
  const until = new Promise<void>((resolve) => {
    letGo = () => {
      held = null;
      resolve();
    };
  });
  held = { what, until };
}

async function make(options: WorldOptions = {}): Promise<void> {
  held = null;
  const kept = new MemoryDomainStore();
  const store: DomainStore = {
    load: () => kept.load(),
    async save(record) {
      if (held?.what === "record") await held.until;
      await kept.save(record);
    },
  };
  world = await makeWorld({ store, ...options });
  const { client } = world;
  const { execute } = client;
  client.execute = (async (...args: Parameters<typeof execute>) => {
    if (args[0] === held?.what) await held.until;
    return execute.apply(client, args);
  }) as typeof execute;
}

/** @param message all of it, from its beginning */
const fails = (call: Promise<unknown>, code: string, number: number, message: string) =>
  expect(call).rejects.toMatchObject({ code, number, message });

it("L14 is refused where the queue has an end, but to stop the domain, to ask, and for other domains", async () => {
  await make({ locks: { maxQueued: 2 } });
  const domain = await running(world, { vda: ["a", "ground"], vdb: ["b", "below"] });
  await world.run(domain.blockCommit("vdb", null, null, 0, BLOCK_COMMIT.ACTIVE));
  await until(world, isReady("vdb"));
  hold("block-stream");
  const pulls = domain.blockPull("vda");
  const waits = domain.blockJobSetSpeed("vdb", 1);
  await settle(world);
  const inTheWay = "blockPull (modify) has been at it for 0.0 s";
  const refused: [string, () => Promise<unknown>][] = [
    ["checkpointCreate", () => domain.checkpointCreate()],
    ["blockJobAbort", () => domain.blockJobAbort("vdb")],
    ["snapshotCreate", () => domain.snapshotCreate({}, SNAPSHOT_CREATE.DISK_ONLY)],
  ];
  for (const [api, call] of refused) {
    const text = `${api} is one too many in the queue for domain 'demo': ${inTheWay}`;
    await fails(world.run(call()), "OPERATION_FAILED", 9, text);
  }
  expect((await world.run(domain.getBlockJobInfo("vdb"))).info).toMatchObject({ type: 4 });
  const other = await world.run(world.connection.define({ name: "other", disks: [] }));
  await world.run(other.create());
  letGo();
  await world.run(Promise.all([pulls, waits]));
  // Now there is room again.
  await world.run(domain.blockJobAbort("vdb"));
  hold("block-commit");
  const commits = domain.blockCommit("vdb", null, null, 0, BLOCK_COMMIT.ACTIVE).catch(() => {});
  const behind = domain.blockJobSetSpeed("vda", 1);
  const stopped = fails(
    behind,
    "OPERATION_INVALID",
    55,
    "blockJobSetSpeed finds that domain 'demo' is not running",
  );
  await settle(world);
  const destroyed = domain.destroy();
  await settle(world);
  letGo();
  await world.run(destroyed);
  await Promise.all([commits, stopped]);
  await world.run(domain.create());
});

it("L03 does not come in time, which names who has it", async () => {
  await make();
  const domain = await running(world, { vda: ["a", "ground"] });
  hold("block-stream");
  const pulls = domain.blockPull("vda");
  await settle(world);
  await world.clock.advance(500);
  const text =
    "snapshotCreate did not get its turn with domain 'demo' in time: " +
    "blockPull (modify) has been at it for 30.5 s";
  const late = fails(
    domain.snapshotCreate({}, SNAPSHOT_CREATE.DISK_ONLY),
    "OPERATION_TIMEOUT",
    68,
    text,
  );
  await world.clock.advance(29_999);
  await world.run(domain.getBlockJobInfo("vda"));
  await world.clock.advance(1);
  await late;
  letGo();
  await world.run(pulls);
});

it("does not wait at all where no time is given for it, and comes where nobody is in its way", async () => {
  await make({ locks: { jobWaitMs: 0 } });
  const domain = await running(world, { vda: ["a", "ground"] });
  hold("block-stream");
  const pulls = domain.blockPull("vda");
  await settle(world);
  const text =
    "checkpointCreate did not get its turn with domain 'demo' in time: " +
    "blockPull (modify) has been at it for 0.0 s";
  const now = world.clock.now();
  await fails(world.run(domain.checkpointCreate()), "OPERATION_TIMEOUT", 68, text);
  expect(world.clock.now()).toBe(now);
  letGo();
  await world.run(pulls);
  await world.run(domain.checkpointCreate());
});

it("is called off by its caller, who is told for whom it waited", async () => {
  await make();
  const domain = await running(world, { vda: ["a", "ground"] });
  hold("block-stream");
  const pulls = domain.blockPull("vda", 1, BLOCK_PULL.BANDWIDTH_BYTES);
  await settle(world);
  const stop = new AbortController();
  const text =
    "blockJobAbort was called off while it waited for domain 'demo': " +
    "blockPull (modify) has been at it for 0.0 s";
  const { signal } = stop;
  const off = fails(domain.blockJobAbort("vda", 0, { signal }), "OPERATION_ABORTED", 78, text);
  await settle(world);
  stop.abort();
  await settle(world);
  await off;
  letGo();
  await world.run(pulls);
  expect(await world.run(domain.listBlockJobs())).toMatchObject([{ state: "running" }]);
});

it("L07 comes when the domain is not there any more", async () => {
  await make();
  const domain = await running(world, { vda: ["a"] });
  await world.run(domain.checkpointCreate({ name: "one" }));
  await world.run(domain.destroy());
  hold("record");
  const forgets = domain.checkpointDelete("one", CHECKPOINT_DELETE.METADATA_ONLY);
  await settle(world);
  const undefined_ = domain.undefine(DOMAIN_UNDEFINE.CHECKPOINTS_METADATA);
  await settle(world);
  const gone = fails(
    domain.create(),
    "NO_DOMAIN",
    42,
    "create finds that domain 'demo' has been removed",
  );
  await settle(world);
  letGo();
  await world.run(Promise.all([forgets, undefined_, gone]));
  const nodes = await world.run(world.client.execute("query-named-block-nodes"));
  expect(nodes).toEqual([]);
  // Another one of that name has nothing of it.
  await world.run(world.connection.define({ name: "demo", disks: [disk("vda", "a")] }));
  await world.run(domain.create());
  expect(await world.run(domain.listAllCheckpoints())).toEqual([]);
});

it("is not waited for when the engine is lost: all that waits is told so, and all that comes", async () => {
  await make();
  const domain = await running(world, { vda: ["a", "ground"], vdb: ["b", "below"] });
  await world.run(domain.blockPull("vda", 1, BLOCK_PULL.BANDWIDTH_BYTES));
  hold("block-stream");
  const calls = [
    domain.blockPull("vdb"),
    domain.snapshotCreate({}, SNAPSHOT_CREATE.DISK_ONLY),
    domain.blockJobSetSpeed("vda", 2),
    domain.blockJobAbort("vda"),
  ];
  const now = world.clock.now();
  await settle(world);
  const reasons = Promise.allSettled(calls);
  world.client.close();
  letGo();
  await world.run(reasons);
  const reason = { code: "OPERATION_FAILED", message: expect.stringMatching(/closed/) };
  expect(await reasons).toMatchObject(calls.map(() => ({ status: "rejected", reason })));
  expect(world.clock.now()).toBe(now);
  await expect(world.run(domain.getBlockJobInfo("vda"))).rejects.toMatchObject(reason);
  await expect(world.run(domain.destroy())).rejects.toMatchObject(reason);
});

it("comes when the driver is finished: nothing is done any more", async () => {
  await make();
  const domain = await running(world, { vda: ["a"], vdb: ["b"] });
  hold("transaction");
  const checkpoints = domain.checkpointCreate().catch(() => {});
  await settle(world);
  const text = "The driver has been closed";
  const late = Promise.all(
    [domain.shutdown(), domain.backupBegin(), domain.blockCopy("vda", image("copy"))].map((call) =>
      fails(call, "OPERATION_INVALID", 55, text),
    ),
  );
  await settle(world);
  const { client } = world;
  const commands: string[] = [];
  await world.driver.close();
  letGo();
  await world.run(checkpoints);
  const { execute } = client;
  client.execute = ((...args: Parameters<typeof execute>) => {
    commands.push(args[0]);
    return execute.apply(client, args);
  }) as typeof execute;
  await world.run(late);
  expect(commands).toEqual([]);
});
