/** A guest who is back before the jobs are: what it writes waits until they see it. */

import { expect, it } from "vitest";
import { MiB } from "../../../src/base/bytes.ts";
import { BlockError } from "../../../src/base/errors.ts";
import { seededRandom } from "../../../src/base/random.ts";
import { VirtualClock } from "../../../src/base/virtual-clock.ts";
import type { BlockDriver } from "../../../src/block/driver.ts";
import { browserDrivers } from "../../../src/drivers/index.ts";
import { createEngine, type Engine } from "../../../src/engine/engine.ts";
import { openJournal } from "../../../src/engine/journal/store.ts";
import type { BlockExportDriver } from "../../../src/export/driver.ts";
import { MemoryIntentStore } from "../../block/intent-store.ts";
import { Recorder, recordedDriver } from "../../crash/recorder.ts";
import { kernelBytes } from "../../kernel/load.ts";
import { Conversation } from "../../qmp/conversation.ts";
import { MemoryJournal } from "./rig.ts";

const SIZE = 6 * MiB;
const WRITTEN = 5 * MiB;

/** What outlives an engine. */
class Ground {
  readonly recorder = new Recorder();
  readonly journal = new MemoryJournal();
  readonly intents = new MemoryIntentStore();
  /** Files that cannot be opened now. */
  readonly away = new Set<string>();
  /** Whether disk `a` does not answer before a job. */
  isStalled = false;

  constructor() {
    for (const name of ["a", "b", "copy"]) this.recorder.add(name, new Uint8Array(SIZE).fill(1));
  }

  /** Of files that may be away, or not answer. */
  driver(): BlockDriver {
    const driver = recordedDriver(this.recorder, seededRandom(1));
    return {
      ...driver,
      open: async (context) => {
        const { filename } = context.options as { filename: string };
        if (this.away.has(filename)) throw new BlockError("ENOENT", `'${filename}' is away`);
        const state = await driver.open(context);
        if (!this.isStalled || filename !== "a") return state;
        return Object.assign(state, { checkPlausible: () => new Promise<never>(() => {}) });
      },
    };
  }
}

/** An export whose client is there as soon as it is, and writes at once. */
class Eager implements BlockExportDriver {
  readonly type = "eager";
  readonly options = {};
  readonly written: string[] = [];

  open({ id, backend }: Parameters<BlockExportDriver["open"]>[0]) {
    const write = backend.write(new Uint8Array(512).fill(7), WRITTEN);
    write.then(
      () => this.written.push(id),
      () => {},
    );
    return {};
  }
}

async function start(ground: Ground) {
  const clock = new VirtualClock();
  const guest = new Eager();
  const engine: Engine = await createEngine({
    clock,
    random: seededRandom(1),
    kernelBytes: kernelBytes(),
    drivers: [...browserDrivers(new Map()), ground.driver()],
    exportDrivers: [guest],
    journal: await openJournal(ground.journal, ground.intents),
  });
  const recovered = engine.recover();
  const talk = async () => {
    await clock.runUntil(recovered);
    const client = await new Conversation({ engine, clock }).negotiated();
    return async (name: string, args?: object): Promise<unknown> => {
      const reply = await client.execute(name, args);
      expect(reply).toHaveProperty("return");
      return reply.return;
    };
  };
  return { clock, engine, guest, talk };
}

/** Disks `a` and `b`, each exported; a job of `a` to `copy` that is not at the guest's place when it is lost. */
async function lost(command: string, args: object = {}, ms = 1500): Promise<Ground> {
  const ground = new Ground();
  const { clock, talk } = await start(ground);
  const ok = await talk();
  for (const name of ["a", "b", "copy"]) {
    await ok("blockdev-add", { driver: "recorded", "node-name": name, filename: name });
  }
  for (const id of ["a", "b"]) {
    const more = { id: `on-${id}`, "node-name": id, writable: true };
    await ok("block-export-add", { type: "eager", ...more });
  }
  // What the guests write here is no news for those that come back.
  await clock.advance(10);
  const job = { "job-id": "j", device: "a", target: "copy", sync: "full", speed: MiB };
  await ok(command, { ...job, ...args });
  await clock.advance(ms);
  return ground;
}

it("a backup keeps its moment", async () => {
  const ground = await lost("blockdev-backup");
  const before = ground.recorder.bytesOf("a").slice();
  const { clock, guest, talk } = await start(ground);
  const ok = await talk();
  await clock.advance(20_000);
  expect(guest.written.toSorted()).toEqual(["on-a", "on-b"]);
  expect(await ok("x-query-job-history")).toMatchObject([{ id: "j", outcome: "completed" }]);
  expect(Buffer.compare(ground.recorder.bytesOf("copy"), before)).toBe(0);
});

it("a mirror goes on with what it lacks, the guest's write included", async () => {
  const ground = await lost("blockdev-mirror", { speed: 0 }, 5000);
  const { clock, talk } = await start(ground);
  const ok = await talk();
  await clock.advance(5000);
  const [job] = (await ok("query-block-jobs")) as [{ len: number; ready: boolean }];
  expect(job).toMatchObject({ device: "j", ready: true });
  expect(job.len).toBeLessThan(MiB);
  expect(ground.recorder.bytesOf("copy")[WRITTEN]).toBe(7);
});

it("nobody waits for a job that cannot go on now: then its moment is lost, and told", async () => {
  const ground = await lost("blockdev-backup");
  ground.away.add("copy");
  const { clock, guest, talk } = await start(ground);
  const ok = await talk();
  await clock.advance(10);
  expect(guest.written.toSorted()).toEqual(["on-a", "on-b"]);
  ground.away.clear();
  await ok("x-recovery-retry");
  await clock.advance(20_000);
  expect(await ok("x-query-job-history")).toMatchObject([
    { id: "j", outcome: "failed", error: expect.stringMatching(/moment of the backup is lost/) },
  ]);
});

it("nobody else waits for ever for a job whose disk does not answer", async () => {
  const ground = await lost("blockdev-mirror");
  ground.isStalled = true;
  const { clock, guest } = await start(ground);
  await clock.advance(60_000);
  expect(guest.written).toEqual(["on-b"]);
});

it("a job that its user had paused is paused in each record meanwhile", async () => {
  const ground = await lost("blockdev-backup", { speed: 4096 });
  const { record } = ground.journal;
  const jobs = record.jobs.map((job) => ({ ...job, paused: true }));
  ground.journal.text = JSON.stringify({ ...record, jobs });
  const { clock, engine, talk } = await start(ground);
  const seen: boolean[] = [];
  ground.journal.after = (text) => void seen.push(JSON.parse(text).jobs[0].paused);
  // Whoever asks anything has a record made.
  const curious = engine.openMonitor(() => {});
  curious.receive({ execute: "qmp_capabilities" });
  let isOver = false;
  const asking = (async () => {
    for (let n = 1; !isOver; n++) {
      curious.receive({ execute: "query-version" });
      await (n % 20 === 0 ? new Promise(setImmediate) : null);
    }
  })();
  const ok = await talk();
  await clock.advance(1000);
  isOver = true;
  await asking;
  expect(seen.length).toBeGreaterThan(0);
  expect(seen).not.toContain(false);
  expect(await ok("query-block-jobs")).toMatchObject([{ device: "j", status: "paused" }]);
});
