/**
 * An engine that is lost at any moment of a job's life, with whatever its files and its journal hold then,
 * while a guest writes. The next one goes on: the guest finds all that it had flushed, the job comes to
 * its end, and the disk is the guest's to the last byte. Everything comes from a seed.
 */

import { describe, expect, it } from "vitest";
import { KiB } from "../../../src/base/bytes.ts";
import { sleep } from "../../../src/base/clock.ts";
import { type Random, seededRandom } from "../../../src/base/random.ts";
import type { JournalRecord } from "../../../src/engine/journal/record.ts";
import { Guest, USUAL } from "../../crash/guest.ts";
import type { Files } from "../../crash/log.ts";
import { Look } from "../../crash/look.ts";
import { Recorder } from "../../crash/recorder.ts";
import { openEntries, StateMaker } from "../../crash/states.ts";
import { testWorld } from "../../world.ts";
import { MemoryJournal, startEngine } from "./rig.ts";

/** More of them find more. */
const TRIALS = Number(process.env["JOURNAL_TRIALS"] ?? 2);
const FIRST_SEED = Number(process.env["JOURNAL_SEED"] ?? 1);
/** Losses that are tried of one run. */
const CUTS = 3;

const SIZE = 192 * KiB;
const HABITS = { ...USUAL, mostBytes: 16 * KiB };
const IMAGES = ["base", "mid", "top", "target"];

interface Case {
  readonly command: string;
  readonly args: object;
  /** What its record in the history may be. */
  readonly outcome: readonly string[];
  readonly end: readonly string[];
}

const common = { "job-id": "j0", device: "vda", speed: 256 * KiB };
const CASES: Record<string, Case> = {
  stream: {
    command: "block-stream",
    args: common,
    outcome: ["completed"],
    end: ["top"],
  },
  "stream down to a base": {
    command: "block-stream",
    args: { ...common, "base-node": "base" },
    outcome: ["completed"],
    end: ["top"],
  },
  commit: {
    command: "block-commit",
    args: { ...common, device: "top", "top-node": "mid" },
    outcome: ["completed"],
    end: ["top"],
  },
  "active commit": {
    command: "block-commit",
    args: { ...common, device: "top" },
    outcome: ["completed"],
    end: ["base"],
  },
  mirror: {
    command: "blockdev-mirror",
    args: { ...common, target: "target", sync: "full" },
    outcome: ["completed"],
    end: ["target"],
  },
  "mirror, write-blocking": {
    command: "blockdev-mirror",
    args: { ...common, target: "target", sync: "full", "copy-mode": "write-blocking" },
    outcome: ["completed"],
    end: ["target"],
  },
  backup: {
    command: "blockdev-backup",
    args: { ...common, target: "target", sync: "full" },
    outcome: ["completed", "failed"],
    end: ["top"],
  },
};

type World = Awaited<ReturnType<typeof startEngine>>;

describe.each(Object.entries(CASES))("an engine lost during %s", (_name, wanted) => {
  it("is gone on from", async () => {
    for (let seed = FIRST_SEED; seed < FIRST_SEED + TRIALS; seed++) {
      try {
        await trial(wanted, seededRandom(seed));
      } catch (error) {
        throw new Error(`JOURNAL_SEED=${seed} JOURNAL_TRIALS=1`, { cause: error });
      }
    }
  });
});

const overlay = { type: "blockdev-snapshot", data: { node: "top", overlay: "target" } };
const SNAPSHOTS: Record<string, readonly object[]> = {
  "a snapshot": [overlay],
  "a snapshot and one inside an image": [
    { type: "blockdev-snapshot-internal-sync", data: { device: "top", name: "s" } },
    overlay,
  ],
};

describe.each(Object.entries(SNAPSHOTS))("an engine lost over %s", (_name, actions) => {
  it("has all that its guest has flushed, on either side of it", async () => {
    for (let seed = FIRST_SEED; seed < FIRST_SEED + TRIALS; seed++) {
      try {
        await snapshotTrial(actions, seededRandom(seed));
      } catch (error) {
        throw new Error(`JOURNAL_SEED=${seed} JOURNAL_TRIALS=1`, { cause: error });
      }
    }
  });
});

/** The guest writes and flushes all the while. */
async function snapshotTrial(actions: readonly object[], random: Random): Promise<void> {
  const life = await begin(await made(new Recorder(), random), null, random);
  await openAll(life.world);
  const guest = await enter(life);
  life.recorder.record();
  life.saves.splice(0, life.saves.length - 1);
  const { clock } = life.world;
  /** What was on record when the reply came. */
  const heard: JournalRecord[] = [];
  const monitor = life.world.engine.openMonitor((message) => {
    if ("error" in message) throw new Error(JSON.stringify(message));
    if ("return" in message) heard.push(JSON.parse(life.saves.at(-1)!.text));
  });
  monitor.receive({ execute: "qmp_capabilities" });
  await clock.advance(1);
  heard.length = 0;
  // A save takes longer than a guest needs to write and flush.
  life.slowMs = 40;
  monitor.receive({ execute: "transaction", arguments: { actions } });
  for (let round = 0; round < 6; round++) {
    await clock.runUntil(guest.acts(1 + random.below(3), HABITS));
    await clock.runUntil(guest.flush());
  }
  await clock.advance(1000);
  expect(heard).toMatchObject([{ exports: [{ id: "vda", "node-name": "target" }] }]);
  const disk = life.world.engine.exports.get("vda").backend;
  expect(disk.node.name).toBe("target");
  for (let i = 0; i < 3 * CUTS; i++) {
    const cut = chosenCut(life, random);
    await comeBack(life, guest, random, { cut, text: journalAt(life, cut, random) });
  }
}

async function trial(wanted: Case, random: Random): Promise<void> {
  const recorder = new Recorder();
  const files = await made(recorder, random);
  const life = await begin(files, null, random);
  await openAll(life.world);
  const guest = await enter(life);
  life.recorder.record();
  life.saves.splice(0, life.saves.length - 1);
  const { command, args } = wanted;
  expect(await life.world.client.execute(command, args)).toHaveProperty("return");
  const answeredAt = life.recorder.log.length;
  await live(life, guest, random);
  await expectEnd(life, guest, wanted);
  for (let i = 0; i < CUTS; i++) {
    const cut = chosenCut(life, random);
    await lose(
      life,
      guest,
      wanted,
      random,
      { cut, text: journalAt(life, cut, random) },
      answeredAt,
    );
  }
  // The last ones have what the job was for.
  for (const { done: cut, text } of life.saves.slice(-4)) {
    await lose(life, guest, wanted, random, { cut, text }, answeredAt);
  }
}

/** The engine is lost at some moment; the next one goes on to the end. */
async function lose(
  life: Life,
  guest: Guest,
  wanted: Case,
  random: Random,
  { cut, text }: { readonly cut: number; readonly text: string },
  answeredAt: number | null,
): Promise<void> {
  const where = `cut ${cut} of ${life.recorder.log.length}, journal ${JSON.parse(text).seq}`;
  try {
    const { next, found, disk } = await comeBack(life, guest, random, { cut, text });
    await next.world.clock.runUntil(disk.flush());
    next.recorder.record();
    await live(next, found, random);
    if (isJustMade(text)) {
      // On record, and nobody had been told of it either.
      const history = (await next.world.client.execute("x-query-job-history"))["return"];
      expect(history).toMatchObject([{ error: expect.stringContaining("never started") }]);
      expect(cut).toBeLessThanOrEqual(answeredAt ?? -1);
    } else if (text.includes('"j0"')) {
      await expectEnd(next, found, wanted);
      // And once more, while that one went on.
      if (answeredAt === null) return;
      const later = chosenCut(next, random);
      const second = { cut: later, text: journalAt(next, later, random) };
      await lose(next, found, wanted, random, second, null);
    } else {
      // Lost before the job was on record: then nobody has been told of it.
      expect(cut).toBeLessThanOrEqual(answeredAt ?? -1);
    }
  } catch (error) {
    throw new Error(where, { cause: error });
  }
}

/** The next engine has all nodes, and its guest finds what it had flushed. */
async function comeBack(
  life: Life,
  guest: Guest,
  random: Random,
  { cut, text }: { readonly cut: number; readonly text: string },
) {
  const { log } = life.recorder;
  const share = random.below(4);
  const kept = openEntries(log, cut).filter(() => random.below(3) < share);
  const state = new StateMaker(life.recorder.starts, log);
  const files = state.make({ cut, kept, torn: new Map(), lengthFirst: false });
  const next = await begin(files, text, random);
  const told = (await next.world.client.execute("x-query-recovery"))["return"];
  expect(told).not.toContainEqual(expect.objectContaining({ outcome: "kept" }));
  expect(told).not.toContainEqual(expect.objectContaining({ outcome: "broken" }));
  const disk = next.world.engine.exports.get("vda").backend;
  const found = new Guest(next.recorder, random, disk);
  await next.world.clock.runUntil(found.adopt());
  const problem = guest.after({ done: cut, begun: cut }).wrong(found.ids(), disk.length);
  expect(problem).toBe("");
  return { next, found, disk };
}

function isJustMade(text: string): boolean {
  const { jobs } = JSON.parse(text) as JournalRecord;
  return jobs.some(({ status }) => status === "created");
}

// One engine's life

interface Save {
  readonly text: string;
  /** Of the log: entries before it began, and before it counted. */
  readonly begun: number;
  readonly done: number;
}

interface Life {
  readonly recorder: Recorder;
  readonly saves: Save[];
  readonly world: World;
  /** What a save takes at most. */
  slowMs: number;
}

async function begin(files: Files, text: string | null, random: Random): Promise<Life> {
  const recorder = new Recorder();
  for (const [name, bytes] of files) recorder.add(name, bytes.slice());
  recorder.record();
  const journal = new MemoryJournal();
  journal.text = text;
  const saves: Save[] = text === null ? [] : [{ text, begun: 0, done: 0 }];
  let begun = 0;
  let life: Life | null = null;
  journal.before = async () => {
    begun = recorder.log.length;
    for (let turns = random.below(30); turns > 0; turns--) await null;
    if (life?.slowMs) await sleep(life.world.clock, random.below(life.slowMs));
  };
  journal.after = (saved) => void saves.push({ text: saved, begun, done: recorder.log.length });
  const world = await startEngine(recorder, journal, 1 + random.below(1000));
  life = { recorder, saves, world, slowMs: 0 };
  // Whoever asks anything has a record made: also amid changes, at each step of the files.
  const curious = world.engine.openMonitor(() => {});
  curious.receive({ execute: "qmp_capabilities" });
  const { apply } = recorder;
  recorder.apply = (entry) => {
    apply.call(recorder, entry);
    curious.receive({ execute: "query-version" });
  };
  return life;
}

/** A guest on the disk, which is as certain as it is now. */
async function enter({ recorder, world }: Life): Promise<Guest> {
  const disk = world.engine.exports.get("vda").backend;
  const guest = new Guest(recorder, seededRandom(recorder.log.length), disk);
  await world.clock.runUntil(disk.flush());
  await world.clock.runUntil(guest.adopt());
  return guest;
}

/** The guest writes while the job works, whatever its user does, until it has ended. */
async function live({ world }: Life, guest: Guest, random: Random): Promise<void> {
  const { client, clock } = world;
  for (let round = 0; round < 300; round++) {
    const [job] = (await client.execute("query-jobs"))["return"] as { status: string }[];
    if (!job) break;
    if (job.status === "concluded") await client.execute("job-dismiss", { id: "j0" });
    if (job.status === "ready") await client.execute("job-complete", { id: "j0" });
    if (round > 40 || random.below(3) === 0) await client.execute("job-resume", { id: "j0" });
    else if (random.below(6) === 0) await client.execute("job-pause", { id: "j0" });
    if (round < 40) await clock.runUntil(guest.acts(1 + random.below(2), HABITS));
    await clock.advance(20 + random.below(100));
  }
  await clock.runUntil(guest.acts(4, HABITS));
  await clock.runUntil(guest.flush());
}

async function expectEnd(life: Life, guest: Guest, { outcome, end }: Case): Promise<void> {
  const { client, clock, engine } = life.world;
  await clock.runUntil(guest.read(0, SIZE));
  const ended = (await client.execute("x-query-job-history"))["return"] as object[];
  expect(ended).toEqual([expect.objectContaining({ id: "j0" })]);
  expect(outcome).toContain((ended[0] as { outcome: string }).outcome);
  expect(end).toContain(engine.exports.get("vda").backend.node.name);
  const look = new Look(await testWorld(), life.recorder.files());
  for (const name of IMAGES) {
    const { corruptions, "check-errors": errors } = await look.check(name, "none");
    expect({ name, corruptions, errors }).toEqual({ name, corruptions: 0, errors: 0 });
  }
}

// What is lost

/** Most moments are dull: three of four are around a save of the journal, late ones above all. */
function chosenCut({ recorder, saves }: Life, random: Random): number {
  const most = recorder.log.length;
  if (random.below(4) === 0 || saves.length === 0) return random.below(most + 1);
  const late = Math.max(0, saves.length - 6);
  const from = random.below(3) === 0 ? 0 : late;
  const { begun, done } = saves[from + random.below(saves.length - from)]!;
  const near = random.below(2) === 0 ? begun : done;
  return Math.min(most, Math.max(0, near + random.below(7) - 3));
}

/** The last record that counts for sure, or one that came at this moment or was on its way. */
function journalAt({ saves }: Life, cut: number, random: Random): string {
  const certain = saves.findLastIndex(({ done }) => done < cut);
  const possible = saves.filter(({ begun }, i) => i >= Math.max(0, certain) && begun <= cut);
  return (possible[random.below(possible.length)] ?? saves[0]!).text;
}

// The disks

/** base ← mid ← top with data in each, and an empty image `target`. */
async function made(recorder: Recorder, random: Random): Promise<Files> {
  const world = await startEngine(recorder, null);
  const { client, clock, engine } = world;
  let below: string | null = null;
  for (const name of IMAGES) {
    recorder.add(name);
    const file = { driver: "recorded", filename: name };
    const isOverlay = below !== null && name !== "target";
    const backing = isOverlay ? { "backing-file": below, "backing-fmt": "qcow2" } : {};
    const clusterSize = [4, 16][random.below(2)]! * KiB;
    const options = { driver: "qcow2", size: SIZE, "cluster-size": clusterSize, file, ...backing };
    await client.execute("blockdev-create", { "job-id": "make", options });
    await client.execute("job-dismiss", { id: "make" });
    const open = { driver: "qcow2", "node-name": name, file, backing: isOverlay ? below : null };
    await client.execute("blockdev-add", open);
    if (name === "target") break;
    const type = { type: "message-port", id: name, "node-name": name, writable: true };
    await client.execute("block-export-add", { ...type, id: `on-${name}` });
    const guest = new Guest(recorder, random, engine.exports.get(`on-${name}`).backend);
    await clock.runUntil(guest.adopt());
    await clock.runUntil(guest.acts(8, { ...HABITS, flush: 0 }));
    await client.execute("block-export-del", { id: `on-${name}` });
    below = name;
  }
  await clock.runUntil(engine.close());
  return recorder.files();
}

async function openAll({ client }: World): Promise<void> {
  const image = (name: string, backing: object | null) => ({
    driver: "qcow2",
    "node-name": name,
    "cache-size": 16 * KiB,
    file: { driver: "recorded", filename: name },
    backing,
  });
  await client.execute("blockdev-add", image("top", image("mid", image("base", null))));
  await client.execute("blockdev-add", image("target", null));
  const type = { type: "message-port", id: "vda", "node-name": "top", writable: true };
  expect(await client.execute("block-export-add", type)).toHaveProperty("return");
}
