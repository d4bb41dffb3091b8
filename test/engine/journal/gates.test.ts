/** What must wait for the record waits; what becomes of it when the record cannot be kept. */

import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { BlockError } from "../../../src/base/errors.ts";
import { VirtualClock } from "../../../src/base/virtual-clock.ts";
import { emptyRecord, type JobRecord } from "../../../src/engine/journal/record.ts";
import { Recorder as JournalRecorder } from "../../../src/engine/journal/recorder.ts";
import { openJournal } from "../../../src/engine/journal/store.ts";
import { FileJournal } from "../../../src/engine/node-journal.ts";
import { MemoryIntentStore } from "../../block/intent-store.ts";
import { Recorder } from "../../crash/recorder.ts";
import { disks, MemoryJournal, startEngine } from "./rig.ts";

type Wire = Record<string, unknown>;

const streamJob: JobRecord = {
  id: "s",
  type: "stream",
  status: "running",
  hasTakenEffect: false,
  paused: false,
  autoFinalize: true,
  autoDismiss: true,
  current: 0,
  total: 100,
  began: { seconds: 1, microseconds: 0 },
  error: null,
  again: null,
};

/** An engine whose saves can be held; what it says while they are. */
async function held() {
  const recorder = new Recorder();
  const journal = new MemoryJournal();
  const { engine, clock, client } = await startEngine(recorder, journal);
  await disks(client, recorder);
  const heard: Wire[] = [];
  const monitor = engine.openMonitor((message) => void heard.push(message as Wire));
  monitor.receive({ execute: "qmp_capabilities" });
  await clock.advance(0);
  heard.length = 0;
  let release = () => {};
  const hold = () => {
    const released = new Promise<void>((resolve) => {
      release = resolve;
    });
    journal.before = () => released;
  };
  const say = (execute: string, args: object = {}, id?: unknown) =>
    monitor.receive({ execute, arguments: args, ...(id !== undefined && { id }) });
  const disk = engine.exports.get("vda").backend;
  return { engine, clock, journal, heard, say, hold, release: () => release(), disk };
}

describe("until it is on record", () => {
  it("no reply and no event is seen; then they are, in their order", async () => {
    const { clock, heard, say, hold, release } = await held();
    hold();
    say("block-stream", { "job-id": "s", device: "vda", speed: 1 });
    say("query-block-jobs");
    await clock.advance(1000);
    expect(heard).toEqual([]);
    release();
    await clock.advance(0);
    const seen = heard.map(({ event, data }) => event ?? (data as undefined) ?? "reply");
    expect(seen.slice(0, 4)).toEqual(["JOB_STATUS_CHANGE", "JOB_STATUS_CHANGE", "reply", "reply"]);
  });

  it("no job runs, but it can be cancelled", async () => {
    const { engine, clock, say, hold, release, heard } = await held();
    hold();
    say("block-stream", { "job-id": "s", device: "vda" });
    await clock.advance(1000);
    const job = engine.jobs.get("s");
    expect(job).toMatchObject({ status: "running", busy: false });
    expect(job.progress.total).toBe(0);
    say("job-cancel", { id: "s" });
    await clock.advance(1000);
    expect(engine.jobs.find("s")).toBeUndefined();
    release();
    await clock.advance(0);
    expect(heard.filter((message) => "return" in message)).toHaveLength(2);
  });

  it("no guest writes through a link that has changed", async () => {
    const { clock, say, hold, release, disk, engine } = await held();
    hold();
    say("blockdev-snapshot", { node: "top", overlay: "target" });
    await clock.advance(0);
    expect(engine.graph.get("target").children.get("backing")?.node.name).toBe("top");
    let isWritten = false;
    disk.write(new Uint8Array(512).fill(1), 0).then(() => {
      isWritten = true;
    });
    await clock.advance(1000);
    expect(isWritten).toBe(false);
    release();
    await clock.advance(0);
    expect(isWritten).toBe(true);
  });

  it("a guest goes on where nothing has changed", async () => {
    const { clock, say, hold, disk } = await held();
    hold();
    say("blockdev-del", { "node-name": "target" });
    await clock.runUntil(disk.write(new Uint8Array(512).fill(1), 0));
  });
});

describe("a record that cannot be kept", () => {
  it("is tried again, and nobody notices", async () => {
    const { clock, heard, say, journal, engine } = await held();
    let failures = 2;
    journal.before = async () => {
      if (failures-- > 0) throw new BlockError("EIO", "The store is busy with itself");
    };
    say("blockdev-del", { "node-name": "target" });
    await clock.advance(2000);
    expect(heard).toEqual([{ return: {} }]);
    expect(engine.stopped).toBeNull();
  });

  it("stops the engine in the end: what was not on record has not been done", async () => {
    const { clock, heard, say, journal, engine, disk } = await held();
    journal.before = async () => {
      throw new BlockError("ENOSPC", "The store is full");
    };
    say("blockdev-snapshot", { node: "top", overlay: "target" });
    let isWritten = false;
    disk.write(new Uint8Array(512), 0).then(() => {
      isWritten = true;
    });
    await clock.advance(20_000);
    expect(engine.stopped?.message).toContain("journal cannot be kept: The store is full");
    expect(heard).toMatchObject([{ error: { desc: expect.stringContaining("journal") } }]);
    expect(isWritten).toBe(false);
  });

  it("stops an engine at once whose journal another one has taken over", async () => {
    const { clock, heard, say, journal, engine } = await held();
    await openJournal(journal);
    say("blockdev-del", { "node-name": "target" });
    await clock.advance(0);
    expect(engine.stopped?.message).toContain("taken over");
    expect(heard).toMatchObject([{ error: {} }]);
  });
});

describe("a request with an id of its own that comes again", () => {
  const id = { client: "tab-7", n: 12 };

  it("gets the answer that the first one got, also from the next engine", async () => {
    const { clock, heard, say, journal } = await held();
    say("blockdev-del", { "node-name": "target" }, id);
    await clock.advance(0);
    say("blockdev-del", { "node-name": "target" }, id);
    await clock.advance(0);
    expect(heard).toEqual([
      { return: {}, id },
      { return: {}, id },
    ]);
    const { client } = await startEngine(new Recorder(), journal, 2);
    const again = { execute: "blockdev-del", arguments: { "node-name": "target" }, id };
    expect(await client.say(JSON.stringify(again))).toEqual({ return: {}, id });
  });

  it("is refused if nobody knows what became of it", async () => {
    const { clock, say, journal, heard } = await held();
    const options = { driver: "qcow2", size: 65536, file: "target" };
    const create = { "job-id": "c", options };
    let begun = "";
    // The engine is lost when the request is on record, and before it is run.
    journal.after = (text) => {
      begun ||= text;
    };
    say("blockdev-create", create, id);
    await clock.advance(0);
    expect(heard).toContainEqual({ return: {}, id });
    expect(JSON.parse(begun).jobs).toEqual([]);
    const left = new MemoryJournal();
    left.text = begun;
    const { client } = await startEngine(new Recorder(), left, 2);
    const again = { execute: "blockdev-create", arguments: create, id };
    expect(await client.say(JSON.stringify(again))).toMatchObject({
      error: { desc: expect.stringContaining("was lost") },
    });
  });
});

describe("the journal's file", () => {
  it("is replaced as a whole, and refuses an older engine", async () => {
    const folder = mkdtempSync(join(tmpdir(), "blocktab-journal-"));
    try {
      const path = join(folder, "journal.json");
      const first = new FileJournal(path);
      expect(await first.load()).toBeUndefined();
      await first.save(emptyRecord(1));
      await first.save({ ...emptyRecord(1), seq: 5 });
      expect(await first.load()).toMatchObject({ epoch: 1, seq: 5 });
      await openJournal(new FileJournal(path));
      await expect(first.save(emptyRecord(1))).rejects.toMatchObject({ errno: "ESTALE" });
      expect(readdirSync(folder)).toEqual(["journal.json"]);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

describe("two records side by side", () => {
  async function both() {
    const journal = new MemoryJournal();
    const intents = new MemoryIntentStore();
    for (let n = 0; n < 3; n++) await openJournal(journal, intents);
    return { journal, intents };
  }

  it("are opened when the journal is broken or gone: nobody older writes either of them", async () => {
    for (const text of ['"{ half a rec"', null]) {
      const { journal, intents } = await both();
      journal.text = text;
      const { record } = await openJournal(journal, intents);
      expect(record.epoch).toBe(4);
      expect(intents.record?.epoch).toBe(4);
    }
  });

  it("are opened when the intents are broken or gone", async () => {
    for (const text of ['"{ half a rec"', null]) {
      const { journal, intents } = await both();
      intents.text = text;
      const { record } = await openJournal(journal, intents);
      expect(record.epoch).toBe(4);
      expect(intents.record?.epoch).toBe(4);
    }
  });
});

describe("how far a job has come", () => {
  it("is saved with something else only: whoever asks for it waits for no save", async () => {
    const journal = new MemoryJournal();
    let saves = 0;
    journal.after = () => void saves++;
    let job = { ...streamJob, current: 0 };
    const recorder = new JournalRecorder(
      {
        store: journal,
        clock: new VirtualClock(),
        describe: () => ({ ...emptyRecord(1), jobs: [job] }),
        onFailed: (why) => expect.unreachable(String(why)),
      },
      0,
    );
    const told = async (changes: Partial<typeof job>) => {
      job = { ...job, ...changes };
      recorder.touch();
      await recorder.covered();
    };
    await told({});
    expect(saves).toBe(1);
    for (let current = 1; current < 5; current++) await told({ current });
    expect(saves).toBe(1);
    await told({ paused: true });
    expect(saves).toBe(2);
    expect(JSON.parse(journal.text!).jobs).toEqual([job]);
  });
});

describe("a journal that is sealed", () => {
  /** A recorder whose saves end when the test says so. */
  function slow() {
    const journal = new MemoryJournal();
    const turns: (() => void)[] = [];
    const turn = () => new Promise<void>((resolve) => void turns.push(resolve));
    let described = 0;
    const recorder = new JournalRecorder(
      {
        store: journal,
        clock: new VirtualClock(),
        describe: () => ({ ...emptyRecord(1), broken: [entry(++described)] }),
        onFailed: (why) => expect.unreachable(String(why)),
        saveOthers: turn,
      },
      0,
    );
    const entry = (n: number) => ({ kind: "record" as const, name: `${n}`, why: "", entry: n });
    const next = async () => {
      while (turns.length === 0) await Promise.resolve();
      turns.shift()!();
    };
    return { journal, recorder, next, turn, described: () => described };
  }

  it("is not described any more, though what is beside it was being saved", async () => {
    const { recorder, journal, next, described } = slow();
    recorder.touch();
    const sealed = recorder.seal();
    await next();
    await sealed;
    expect(described()).toBe(0);
    expect(journal.text).toBeNull();
  });

  it("is saved to its end if that was under way", async () => {
    const { recorder, journal, next, turn, described } = slow();
    journal.before = turn;
    recorder.touch();
    await next();
    while (described() === 0) await Promise.resolve();
    const order: string[] = [];
    journal.after = () => void order.push("saved");
    const sealed = recorder.seal();
    const told = (async () => {
      await sealed;
      order.push("sealed");
    })();
    for (let n = 0; n < 10; n++) await Promise.resolve();
    await next();
    await told;
    expect(order).toEqual(["saved", "sealed"]);
  });
});
