/** How an engine with a journal ends that has stopped, or cannot write: its files are closed, and it waits for nothing. */

import { describe, expect, it } from "vitest";
import { KiB } from "../../../src/base/bytes.ts";
import { BlockError } from "../../../src/base/errors.ts";
import { seededRandom } from "../../../src/base/random.ts";
import { VirtualClock } from "../../../src/base/virtual-clock.ts";
import type { BlockDriver } from "../../../src/block/driver.ts";
import { browserDrivers } from "../../../src/drivers/index.ts";
import { createEngine } from "../../../src/engine/engine.ts";
import { openJournal } from "../../../src/engine/journal/store.ts";
import { Recorder, recordedDriver } from "../../crash/recorder.ts";
import { kernelBytes } from "../../kernel/load.ts";
import { Conversation } from "../../qmp/conversation.ts";
import { disks, MemoryJournal } from "./rig.ts";

/** Recorded files that tell which of them are open, and how often they were written. */
function watched(recorder: Recorder) {
  const open = new Set<string>();
  const told = { open, writes: 0, faults: [] as string[] };
  const fail = (what: string) => {
    if (told.faults.includes(what)) throw new BlockError("EIO", `No luck with ${what}`);
  };
  const driver = recordedDriver(recorder, seededRandom(1));
  const files: BlockDriver = {
    ...driver,
    async open(context) {
      const { filename } = context.options as { filename: string };
      const state = await driver.open(context);
      const pwrite = state.pwrite!.bind(state);
      open.add(filename);
      return Object.assign(state, {
        async pwrite(...args: Parameters<typeof pwrite>) {
          if (!open.has(filename)) throw new BlockError("EIO", `'${filename}' has been closed`);
          fail("pwrite");
          told.writes++;
          await pwrite(...args);
        },
        async close() {
          open.delete(filename);
          fail("close");
        },
      });
    },
  };
  return { files, told };
}

async function started(journal = new MemoryJournal(), recorder = new Recorder()) {
  const { files, told } = watched(recorder);
  const clock = new VirtualClock();
  let isReleased = false;
  let canRelease = true;
  const opened = await openJournal(journal);
  const release = async () => {
    isReleased = true;
    // Not with files open.
    expect([...told.open]).toEqual([]);
    if (!canRelease) throw new BlockError("EIO", "No luck with the lock");
  };
  const engine = await createEngine({
    clock,
    random: seededRandom(1),
    kernelBytes: kernelBytes(),
    drivers: [...browserDrivers(new Map()), files],
    journal: { ...opened, release },
  });
  const failToRelease = () => {
    canRelease = false;
  };
  const more = { isReleased: () => isReleased, failToRelease };
  return { engine, clock, recorder, told, journal, ...more };
}

async function withDisks() {
  const all = await started();
  await all.clock.runUntil(all.engine.recover());
  const client = await new Conversation(all).negotiated();
  await disks(client, all.recorder);
  return { ...all, client };
}

const stuck = () => new Promise<void>(() => {});
const full = async () => {
  throw new BlockError("ENOSPC", "The store is full");
};

it("a guest's write that waits for a change of links is never done, and all is closed", async () => {
  const { engine, clock, told, journal, isReleased } = await withDisks();
  journal.before = stuck;
  const { backend } = engine.exports.get("vda");
  const monitor = engine.openMonitor(() => {});
  monitor.receive({ execute: "qmp_capabilities" });
  monitor.receive({
    execute: "blockdev-snapshot",
    arguments: { node: "top", overlay: "target" },
  });
  await clock.advance(0);
  expect(engine.graph.get("target").children.get("backing")?.node.name).toBe("top");
  let outcome = "waits";
  backend.write(new Uint8Array(512).fill(1), 0).then(
    () => {
      outcome = "done";
    },
    () => {
      outcome = "failed";
    },
  );
  await clock.advance(1000);
  expect(outcome).toBe("waits");
  engine.stop(new Error("planted"));
  await clock.advance(0);
  const { writes } = told;
  await expect(clock.runUntil(engine.close())).rejects.toThrow("planted");
  expect([...told.open]).toEqual([]);
  expect(isReleased()).toBe(true);
  await clock.advance(100_000);
  expect(outcome).not.toBe("done");
  expect(told.writes).toBe(writes);
});

it("a close that is under way when the engine stops waits for no command that waits for the record", async () => {
  const { engine, clock, told, journal, isReleased } = await withDisks();
  journal.before = full;
  const heard: object[] = [];
  const monitor = engine.openMonitor((message) => void heard.push(message));
  monitor.receive({ execute: "qmp_capabilities" });
  const options = {
    driver: "qcow2",
    size: 256 * KiB,
    file: { driver: "recorded", filename: "new" },
  };
  const id = { client: "tab", n: 1 };
  monitor.receive({ execute: "blockdev-create", arguments: { "job-id": "c", options }, id });
  await clock.advance(0);
  const { writes } = told;
  const closed = expect(engine.close()).rejects.toThrow("The store is full");
  await clock.advance(100_000);
  await closed;
  expect([...told.open]).toEqual([]);
  expect(isReleased()).toBe(true);
  expect(told.writes).toBe(writes);
});

it("a recovery that is under way when the engine stops ends, and what it has opened is closed", async () => {
  const { client, recorder, journal: lost } = await withDisks();
  await client.execute("block-stream", { "job-id": "s", device: "vda", speed: 4096 });
  const { record } = lost;
  const jobs = record.jobs.map((job) => ({ ...job, status: "aborting" }));
  const journal = new MemoryJournal();
  journal.text = JSON.stringify({ ...record, jobs });
  const { engine, clock, told } = await started(journal, recorder);
  journal.before = full;
  const recovered = expect(engine.recover()).rejects.toThrow("The store is full");
  await clock.advance(1000);
  expect(told.open.size).toBeGreaterThan(0);
  await clock.advance(100_000);
  await recovered;
  await expect(clock.runUntil(engine.suspend())).rejects.toThrow("The store is full");
  expect([...told.open]).toEqual([]);
});

describe("an engine that cannot write all", () => {
  it("closes what is left, and then lets another one have the journal", async () => {
    const { engine, clock, told, isReleased } = await withDisks();
    await clock.runUntil(engine.exports.get("vda").backend.write(new Uint8Array(512).fill(1), 0));
    told.faults.push("pwrite");
    await expect(clock.runUntil(engine.close())).rejects.toThrow("No luck");
    expect(engine.graph.nodes.length).toBeGreaterThan(0);
    expect([...told.open]).toEqual([]);
    expect(isReleased()).toBe(true);
  });

  it("tells of the first failure, though closing and releasing fail, too", async () => {
    for (const end of ["close", "suspend"] as const) {
      const { engine, clock, told, isReleased, failToRelease } = await withDisks();
      await clock.runUntil(engine.exports.get("vda").backend.write(new Uint8Array(512).fill(1), 0));
      told.faults.push("pwrite", "close");
      failToRelease();
      await expect(clock.runUntil(engine[end]())).rejects.toThrow("No luck with pwrite");
      expect([...told.open]).toEqual([]);
      expect(isReleased()).toBe(true);
    }
  });
});
