/**
 * Calls that make images take many steps: commands, and records that are saved. At each of them somebody ends what has
 * been begun, or the whole domain. Whenever that comes, it is not lost, and nothing is left of what was half begun.
 */

import { afterEach, expect, it } from "vitest";
import { sleep } from "../../src/base/clock.ts";
import { layersOf } from "../../src/domain/definition.ts";
import type { Domain } from "../../src/domain/domain.ts";
import { JOB_STATS, SNAPSHOT_CREATE } from "../../src/domain/flags.ts";
import { type DomainStore, MemoryDomainStore } from "../../src/domain/store.ts";
import { image, makeWorld, memory, refusal, running, type World } from "./world.ts";

let world: World;
afterEach(() => world.end());

/** @param at how often there was one before: names have to be others */
type Begin = (domain: Domain, at: number) => Promise<void>;
type End = (domain: Domain) => Promise<void>;
const demo = () => world.connection.domain("demo");

/** Bitmaps of all images that are open, by name. */
async function bitmaps(): Promise<string[]> {
  const nodes = await world.run(world.client.execute("query-named-block-nodes", { flat: true }));
  return nodes.flatMap((node) => (node["dirty-bitmaps"] ?? []).flatMap(({ name }) => name ?? []));
}

/** Calls, one after the other, until there has been one for each of its steps. */
async function atEachStep(
  { begin, end, steps }: { readonly begin: Begin; readonly end: End; readonly steps: number },
  check: (at: number) => Promise<void>,
): Promise<void> {
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
    left = at;
    ending = null;
    await world.run(begin(demo(), at).catch(() => {}));
    left = Number.POSITIVE_INFINITY;
    if (ending === null) {
      expect(at).toBeGreaterThan(steps);
      return;
    }
    await world.run(ending);
    await world.clock.advance(100);
    const record = world.driver.host.record.domains[0]!;
    expect(record).toMatchObject({ jobs: [], backup: null, leftovers: [], making: [] });
    expect(await world.run(client.execute("query-jobs"))).toEqual([]);
    const exports = await world.run(client.execute("query-block-exports"));
    expect(exports.filter(({ id }) => !id.startsWith("domain-"))).toEqual([]);
    await check(at);
  }
}

const nodes = () => world.run(world.client.execute("query-named-block-nodes", {}));

const backup: Begin = (domain, at) => {
  const disks = ["vda", "vdb"].map((name) => ({ name, scratch: memory(`${name}-${at}`) }));
  return domain.backupBegin({ mode: "pull", disks }, { name: "one" });
};
const destroy: End = (domain) => domain.destroy();

it("ends a backup that is aborted while it begins, whenever that is", () =>
  atEachStep({ begin: backup, end: (domain) => domain.abortJob(), steps: 15 }, async () => {
    expect(await world.run(demo().getJobStats(JOB_STATS.COMPLETED))).toMatchObject({ type: 3 });
    expect([...world.stores.keys()]).toEqual(["a", "b"]);
    expect(await refusal(world, demo().abortJob())).toBe("OPERATION_INVALID");
    await world.run(demo().checkpointDelete("one"));
    expect(await bitmaps()).toEqual([]);
  }));

it("leaves nothing half begun of a domain that is stopped while a backup begins", () =>
  atEachStep({ begin: backup, end: destroy, steps: 15 }, async () => {
    expect(await nodes()).toEqual([]);
    expect([...world.stores.keys()]).toEqual(["a", "b"]);
    await world.run(demo().create());
    // It was made, on both disks, or it was not.
    const checkpoints = await world.run(demo().listAllCheckpoints());
    expect(await bitmaps()).toEqual(checkpoints.flatMap(({ name }) => [name, name]));
    for (const { name } of checkpoints) await world.run(demo().checkpointDelete(name));
  }));

it("leaves nothing half begun of a domain that is stopped while a copy begins", () => {
  // So slow that it is not ready when the domain is stopped: the copy is none.
  const begin: Begin = (domain, at) =>
    domain.blockCopy("vda", image(`copy-${at}`), { bandwidth: 1 });
  return atEachStep({ begin, end: destroy, steps: 10 }, async () => {
    expect(await nodes()).toEqual([]);
    expect([...world.stores.keys()]).toEqual(["a", "b"]);
    await world.run(demo().create());
  });
});

it("has an overlay on its disk, or nothing of it, when a domain is stopped while a snapshot is made", () => {
  const names = ["a"];
  const begin: Begin = async (domain, at) => {
    const disks = [{ name: "vda", source: memory(`top-${at}`) }];
    await domain.snapshotCreate({ disks }, SNAPSHOT_CREATE.DISK_ONLY);
  };
  return atEachStep({ begin, end: destroy, steps: 10 }, async (at) => {
    expect(await nodes()).toEqual([]);
    if (world.stores.has(`top-${at}`)) names.unshift(`top-${at}`);
    const { disks } = await world.run(demo().getDesc());
    expect(layersOf(disks[0]!).map(({ source }) => source["name"])).toEqual(names);
    expect([...world.stores.keys()].sort()).toEqual([...names, "b"].sort());
    await world.run(demo().create());
  });
});
