/** An engine that gives its disks to the next one: what becomes of its jobs afterwards is not true of that one. */

import { expect, it } from "vitest";
import { KiB } from "../../../src/base/bytes.ts";
import { BlockError } from "../../../src/base/errors.ts";
import { seededRandom } from "../../../src/base/random.ts";
import { VirtualClock } from "../../../src/base/virtual-clock.ts";
import type { BlockDriver } from "../../../src/block/driver.ts";
import { browserDrivers } from "../../../src/drivers/index.ts";
import { createEngine } from "../../../src/engine/engine.ts";
import { openJournal } from "../../../src/engine/journal/store.ts";
import { MemoryIntentStore } from "../../block/intent-store.ts";
import { Recorder, recordedDriver } from "../../crash/recorder.ts";
import { kernelBytes } from "../../kernel/load.ts";
import { disks, MemoryJournal, startEngine } from "./rig.ts";

/** Writes are not answered before the file is closed; then they fail. */
function silent(recorder: Recorder): BlockDriver {
  const driver = recordedDriver(recorder, seededRandom(1));
  return {
    ...driver,
    async open(context) {
      const state = await driver.open(context);
      let closed = () => {};
      const whenClosed = new Promise<void>((resolve) => {
        closed = resolve;
      });
      return Object.assign(state, {
        async pwrite() {
          await whenClosed;
          throw new BlockError("EIO", "The file has been closed");
        },
        async close() {
          closed();
        },
      });
    },
  };
}

it("has a job on record as it was, though that fails when its files are closed", async () => {
  const recorder = new Recorder();
  recorder.add("new");
  const journal = new MemoryJournal();
  const clock = new VirtualClock();
  const engine = await createEngine({
    clock,
    random: seededRandom(1),
    kernelBytes: kernelBytes(),
    drivers: [...browserDrivers(new Map()), silent(recorder)],
    journal: await openJournal(journal),
  });
  const options = {
    driver: "qcow2",
    size: 256 * KiB,
    file: { driver: "recorded", filename: "new" },
  };
  await clock.runUntil(engine.execute("blockdev-create", { "job-id": "j", options }));
  await clock.advance(1000);
  await clock.runUntil(engine.suspend());
  await clock.advance(10_000);
  expect(engine.jobs.get("j").error?.errno).toBe("EIO");
  expect(journal.record.jobs).toMatchObject([{ id: "j", status: "running", error: null }]);
  expect(journal.record.history).toEqual([]);
});

it("goes in good order while a backup works on a persistent bitmap, which the next one has", async () => {
  const recorder = new Recorder();
  const stores = [new MemoryJournal(), new MemoryIntentStore()] as const;
  const { client, clock, engine } = await startEngine(recorder, stores[0], 1, stores[1]);
  await disks(client, recorder);
  const b0 = { node: "top", name: "b0", persistent: true };
  expect(await client.execute("block-dirty-bitmap-add", b0)).toHaveProperty("return");
  const { backend } = engine.exports.get("vda");
  await clock.runUntil(backend.write(new Uint8Array(256 * KiB).fill(3), 0));
  const job = { "job-id": "j", device: "vda", target: "target", bitmap: "b0" };
  const slow = { speed: 16 * KiB, "x-perf": { "max-workers": 1, "max-chunk": 64 * KiB } };
  const backup = { ...job, sync: "incremental", ...slow };
  expect(await client.execute("blockdev-backup", backup)).toHaveProperty("return");
  expect(engine.jobs.get("j").status).toBe("running");
  await clock.runUntil(engine.suspend());

  const next = await startEngine(recorder, stores[0], 1, stores[1]);
  expect(next.engine.jobs.get("j").status).toBe("running");
  await next.clock.advance(30_000);
  const history = (await next.client.execute("x-query-job-history"))["return"];
  expect(history).toContainEqual(expect.objectContaining({ id: "j", outcome: "completed" }));
  const bitmap = next.engine.graph.get("top").bitmaps.get("b0");
  expect(bitmap).toMatchObject({ busy: false, inconsistent: false });
});
