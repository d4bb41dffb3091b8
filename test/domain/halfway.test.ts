/**
 * All domains are in one record, and whoever saves saves all of it: also what another call has changed so far.
 * So at each command of a job's end somebody else saves, and then the driver is lost. Whatever half of the end
 * is on record, the next driver has to find the rest.
 */

import { afterEach, expect, it } from "vitest";
import type { Domain } from "../../src/domain/domain.ts";
import { BLOCK_COMMIT, BLOCK_JOB_ABORT } from "../../src/domain/flags.ts";
import {
  guest,
  image,
  isReady,
  makeWorld,
  memory,
  read,
  running,
  settle,
  storeUntil,
  until,
  type World,
  write,
} from "./world.ts";

let world: World;
afterEach(() => world.end());

const demo = () => world.connection.domain("demo");
const pivot = () => demo().blockJobAbort("vda", BLOCK_JOB_ABORT.PIVOT);

interface Plan {
  start(domain: Domain): Promise<void>;
  /** Lets it come to its end. */
  end(): Promise<void>;
  readonly chain: readonly string[];
}

const PLANS: Record<string, Plan> = {
  "copy that is pivoted to": {
    start: (domain) => domain.blockCopy("vda", image("copy")),
    end: pivot,
    chain: ["/memory/copy"],
  },
  "commit of the active layer": {
    start: (domain) => domain.blockCommit("vda", null, null, 0, BLOCK_COMMIT.ACTIVE),
    end: pivot,
    chain: ["/memory/base"],
  },
  "commit that removes files": {
    start: (domain) =>
      domain.blockCommit(
        "vda",
        null,
        "/memory/mid",
        64 * 1024,
        BLOCK_COMMIT.DELETE | BLOCK_COMMIT.BANDWIDTH_BYTES,
      ),
    end: () => demo().blockJobSetSpeed("vda", 0),
    chain: ["/memory/top", "/memory/base"],
  },
  "incremental backup": {
    start: (domain) =>
      domain.backupBegin({
        incremental: "one",
        disks: [{ name: "vda", target: memory("copy") }],
      }),
    end: async () => {},
    chain: ["/memory/top", "/memory/mid", "/memory/base"],
  },
};

/** @param at of the commands after the engine has said that the job is over: the last one. @returns false: there were not as many */
async function lostAt(plan: Plan, at: number): Promise<boolean> {
  let isLost = false;
  world = await makeWorld({ store: storeUntil(() => isLost) });
  const domain = await running(world);
  await world.run(domain.checkpointCreate({ name: "one" }));
  const device = await guest(world, domain, "vda");
  const { client } = world;
  const execute = client.execute.bind(client) as (...args: unknown[]) => Promise<unknown>;
  let commands = 0;
  let isOver = false;
  client.execute = (async (...args: unknown[]) => {
    if (isOver && !isLost && commands++ === at) {
      await world.driver.host.save();
      isLost = true;
    }
    const result = await execute(...args);
    const jobs = args[0] === "query-jobs" ? (result as { status: string }[]) : [];
    isOver ||= jobs.some(({ status }) => status === "concluded");
    return result;
  }) as never;
  await world.run(plan.start(domain));
  if (plan.end === pivot) await until(world, isReady("vda"));
  plan.end().catch(() => {});
  for (let ms = 0; ms < 5000 && !isLost; ms += 100) await world.clock.advance(100);
  await settle(world);
  client.execute = execute as never;
  const wasLost = isLost;
  isLost = false;
  await world.restart();
  await write(world, device, { 2: 40 + at });
  const before = await read(world, device);
  await world.run(device.close());
  for (let ms = 0; ms < 1000; ms += 100) await world.clock.advance(100);
  expect(await world.run(demo().listBlockJobs())).toEqual([]);
  const { disks } = await world.run(demo().info());
  expect(disks[0]!.chain.map(({ path }) => path)).toEqual(plan.chain);
  const record = world.driver.host.record.domains[0]!;
  expect(record).toMatchObject({ backup: null, jobs: [], leftovers: [] });
  await world.run(demo().destroy());
  await world.run(demo().create());
  expect(await read(world, await guest(world, demo(), "vda"))).toBe(before);
  return wasLost;
}

for (const [name, plan] of Object.entries(PLANS)) {
  it(`finds all of a job's end: ${name}`, async () => {
    let at = 0;
    while (await lostAt(plan, at)) {
      await world.end();
      at++;
    }
    expect(at).toBeGreaterThan(3);
  });
}
