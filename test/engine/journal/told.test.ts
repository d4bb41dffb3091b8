/** Who leaves waits for what has been asked until then to be answered, and for nothing that comes later. */

import { expect, it } from "vitest";
import { sleep } from "../../../src/base/clock.ts";
import { Recorder } from "../../crash/recorder.ts";
import { disks, MemoryJournal, startEngine } from "./rig.ts";

it("a client that goes on asking does not keep others from leaving", async () => {
  const recorder = new Recorder();
  const journal = new MemoryJournal();
  const { engine, clock, client } = await startEngine(recorder, journal);
  await disks(client, recorder);
  await client.execute("block-stream", { "job-id": "s", device: "vda", speed: 4096 });
  journal.before = () => sleep(clock, 10);
  let asked = 0;
  let answered = 0;
  const ask = () => {
    const args = { device: "s", speed: 4096 + ++asked };
    monitor.receive({ execute: "block-job-set-speed", arguments: args });
  };
  const monitor = engine.openMonitor((message) => {
    if (!("return" in message)) return;
    answered++;
    ask();
  });
  monitor.receive({ execute: "qmp_capabilities" });
  for (let n = 0; n < 5; n++) ask();
  await clock.advance(100);
  const before = asked;
  let isTold = false;
  engine.told().then(() => {
    isTold = true;
  });
  await clock.advance(1000);
  expect(isTold).toBe(true);
  expect(answered).toBeGreaterThan(before);
  monitor.close();
});

it.each(["stays", "has left"])(
  "nobody waits when the engine has stopped for what a client was to be told who %s",
  async (how) => {
    const recorder = new Recorder();
    const journal = new MemoryJournal();
    const { engine, clock, client } = await startEngine(recorder, journal);
    await disks(client, recorder);
    journal.before = () => new Promise(() => {});
    const heard: object[] = [];
    const monitor = engine.openMonitor((message) => void heard.push(message));
    monitor.receive({ execute: "qmp_capabilities" });
    monitor.receive({ execute: "blockdev-del", arguments: { "node-name": "target" }, id: 1 });
    await clock.advance(0);
    const told = engine.told();
    await clock.advance(0);
    if (how === "has left") engine.closeMonitor(monitor);
    engine.stop(new Error("planted"));
    await clock.runUntil(told);
    if (how === "has left") return;
    expect(heard).toContainEqual({
      error: { class: "GenericError", desc: expect.stringContaining("planted") },
      id: 1,
    });
    expect(heard).not.toContainEqual({ return: {}, id: 1 });
  },
);
