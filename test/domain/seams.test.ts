/**
 * backupBegin() takes many steps: commands, and records that are saved. At each of them somebody ends the backup, or
 * the whole domain. Whenever that comes, it is not lost, and nothing is left of what was half begun.
 */

import { afterEach, expect, it } from "vitest";
import { sleep } from "../../src/base/clock.ts";
import type { Domain } from "../../src/domain/domain.ts";
import { JOB_STATS } from "../../src/domain/flags.ts";
import { type DomainStore, MemoryDomainStore } from "../../src/domain/store.ts";
import { makeWorld, refusal, running, type World } from "./world.ts";

let world: World;
afterEach(() => world.end());

type End = (domain: Domain) => Promise<void>;
const demo = () => world.connection.domain("demo");

/** Bitmaps of all images that are open, by name. */
async function bitmaps(): Promise<string[]> {
  const nodes = await world.run(world.client.execute("query-named-block-nodes", { flat: true }));
  return nodes.flatMap((node) => (node["dirty-bitmaps"] ?? []).flatMap(({ name }) => name ?? []));
}

/** Backups, one after the other, until there has been one for each of its steps. */
async function atEachStep(end: End, check: () => Promise<void>): Promise<void> {
  const kept = new MemoryDomainStore();
  let left = Number.POSITIVE_INFINITY;
  let ending: Promise<void> | null = null;
  const step = async () => {
    if (left-- !== 0) return;
    ending = end(demo());
    ending.catch(() => {});
    await sleep(world.clock, 10);
  };
  const store: DomainStore = {
    load: () => kept.load(),
    async save(record) {
      await step();
      await kept.save(record);
    },
  };
  world = await makeWorld({ store });
  await running(world, { vda: ["a"], vdb: ["b"] });
  const { client } = world;
  const execute = client.execute.bind(client) as (...args: unknown[]) => Promise<unknown>;
  client.execute = (async (...args: unknown[]) => {
    await step();
    return execute(...args);
  }) as never;
  for (let at = 0; ; at++) {
    const disks = ["vda", "vdb"].map((name) => ({ name, scratch: memory(`${name}-${at}`) }));
    left = at;
    ending = null;
    const begun = demo().backupBegin({ mode: "pull", disks }, { name: "one" });
    await world.run(begun.catch(() => {}));
    left = Number.POSITIVE_INFINITY;
    if (ending === null) {
      expect(at).toBeGreaterThan(15);
      return;
    }
    await world.run(ending);
    await world.clock.advance(100);
    const record = world.driver.host.record.domains[0]!;
    expect(record).toMatchObject({ jobs: [], backup: null, leftovers: [] });
    expect(await world.run(client.execute("query-jobs"))).toEqual([]);
    const exports = await world.run(client.execute("query-block-exports"));
    expect(exports.filter(({ id }) => !id.startsWith("domain-"))).toEqual([]);
    await check();
  }
}

const memory = (name: string) => ({ driver: "memory", name });

it("ends a backup that is aborted while it begins, whenever that is", () =>
  atEachStep(
    (domain) => domain.abortJob(),
    async () => {
      expect(await world.run(demo().getJobStats(JOB_STATS.COMPLETED))).toMatchObject({ type: 3 });
      expect([...world.stores.keys()]).toEqual(["a", "b"]);
      expect(await refusal(world, demo().abortJob())).toBe("OPERATION_INVALID");
      await world.run(demo().checkpointDelete("one"));
      expect(await bitmaps()).toEqual([]);
    },
  ));

it("leaves nothing half begun of a domain that is stopped while a backup begins", () =>
  atEachStep(
    (domain) => domain.destroy(),
    async () => {
      expect(await world.run(world.client.execute("query-named-block-nodes", {}))).toEqual([]);
      await world.run(demo().create());
      // It was made, on both disks, or it was not.
      const checkpoints = await world.run(demo().listAllCheckpoints());
      expect(await bitmaps()).toEqual(checkpoints.flatMap(({ name }) => [name, name]));
      for (const { name } of checkpoints) await world.run(demo().checkpointDelete(name));
    },
  ));
