/** Requests that come again while the first one is under way. */

import { expect, it } from "vitest";
import { VirtualClock } from "../../../src/base/virtual-clock.ts";
import { emptyRecord } from "../../../src/engine/journal/record.ts";
import { Recorder as JournalRecorder } from "../../../src/engine/journal/recorder.ts";
import { Requests } from "../../../src/engine/journal/requests.ts";
import { COMMANDS } from "../../../src/qmp/commands/index.ts";
import { Recorder } from "../../crash/recorder.ts";
import { disks, MemoryJournal, startEngine } from "./rig.ts";

const id = { client: "tab 7", n: 12 };

it("gets the answer to the first one, when that is there", async () => {
  const recorder = new Recorder();
  const journal = new MemoryJournal();
  const { engine, clock, client } = await startEngine(recorder, journal);
  await disks(client, recorder);
  let release = () => {};
  const released = new Promise<void>((resolve) => {
    release = resolve;
  });
  journal.before = () => released;
  const heard: object[] = [];
  // As of a page that was asleep: its first connection is gone, the command is not.
  for (const times of [1, 2]) {
    const monitor = engine.openMonitor((message) => {
      if ("id" in message) heard.push({ times, ...message });
    });
    monitor.receive({ execute: "qmp_capabilities" });
    const options = { driver: "qcow2", size: 65536, file: "target" };
    const args = { "job-id": "c", options };
    monitor.receive({ execute: "blockdev-create", arguments: args, id });
    await clock.advance(0);
    if (times === 1) engine.closeMonitor(monitor);
  }
  expect(heard).toEqual([]);
  release();
  await clock.advance(0);
  expect(heard).toEqual([{ times: 2, return: {}, id }]);
  expect(await client.execute("query-jobs")).toMatchObject({ return: [{ id: "c" }] });
});

it("is known however many other clients have come meanwhile", () => {
  const recorder = idleRecorder();
  const command = COMMANDS.get("blockdev-add")!;
  const requests = new Requests(recorder, []);
  requests.accept(id, command);
  for (let i = 0; i < 200; i++) {
    const other = { client: `tab-${i}`, n: 1 };
    requests.accept(other, command);
    requests.answered(other, command, { id: other });
  }
  const left = requests.describe();
  expect(left).toHaveLength(64);
  // The next engine: what was under way is not done once more.
  const next = new Requests(recorder, left);
  expect(() => next.recall(id, command)).toThrow(/was lost/);
});

it("is refused when it is so old that it is forgotten, and never done again", () => {
  const command = COMMANDS.get("blockdev-add")!;
  const requests = new Requests(idleRecorder(), []);
  const nth = (n: number) => ({ client: "tab 7", n });
  for (let n = 0; n < 70; n++) {
    requests.accept(nth(n), command);
    const reply = { return: {} };
    requests.answered(nth(n), command, reply as object);
  }
  const next = new Requests(idleRecorder(), requests.describe());
  expect(() => next.recall(nth(5), command)).toThrow(/is forgotten/);
  expect(next.recall(nth(6), command)).toEqual({ return: {}, id: nth(6) });
  expect(next.recall(nth(70), command)).toBeUndefined();
});

function idleRecorder(): JournalRecorder {
  const init = {
    store: new MemoryJournal(),
    clock: new VirtualClock(),
    describe: () => emptyRecord(),
    onFailed: (why: unknown) => expect.unreachable(String(why)),
  };
  return new JournalRecorder(init, 0);
}
