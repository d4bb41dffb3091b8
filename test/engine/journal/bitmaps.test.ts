/** Persistent bitmaps of engines that are lost right after a command, before any guest has written: what was answered holds. */

import { expect, it } from "vitest";
import { GiB, MiB } from "../../../src/base/bytes.ts";
import type { DirtyBitmap } from "../../../src/block/dirty-bitmap.ts";
import * as io from "../../../src/block/io.ts";
import { MemoryIntentStore } from "../../block/intent-store.ts";
import { Recorder } from "../../crash/recorder.ts";
import { MemoryJournal, startEngine } from "./rig.ts";

const b0 = { node: "disk", name: "b0" };
const file = { driver: "recorded", filename: "disk" };

/** An engine whose disk has in its image a bitmap that is switched off; what it has is looked at without its end. */
async function withBitmap() {
  const recorder = new Recorder();
  const stores = [new MemoryJournal(), new MemoryIntentStore()] as const;
  const engines = async () => {
    const { client, engine, clock } = await startEngine(recorder, stores[0], 1, stores[1]);
    const ok = async (name: string, args: object) =>
      expect(await client.execute(name, args)).toHaveProperty("return");
    const bitmap = (): DirtyBitmap | undefined => engine.graph.get("disk").bitmaps.find("b0");
    const write = (offset: number) =>
      clock.runUntil(io.write(engine.graph.get("disk"), new Uint8Array(512).fill(1), offset, {}));
    return { ok, bitmap, write };
  };
  const { ok, write } = await engines();
  recorder.add("disk");
  const options = { driver: "qcow2", size: 1 * MiB, file };
  await ok("blockdev-create", { "job-id": "make", options });
  await ok("job-dismiss", { id: "make" });
  await ok("blockdev-add", { driver: "qcow2", "node-name": "disk", file });
  await ok("block-dirty-bitmap-add", { ...b0, persistent: true, disabled: true });
  await ok("blockdev-del", { "node-name": "disk" });
  await ok("blockdev-add", { driver: "qcow2", "node-name": "disk", file });
  return { ok, engines, write };
}

type As = (name: string) => readonly [name: string, args: object];

const asCommand: As = (name) => [name, b0];
const asAction: As = (type) => ["transaction", { actions: [{ type, data: b0 }] }];

const ways = Object.entries({ "a command": asCommand, "an action": asAction });

it.each(ways)("one that %s has switched on records", async (_how, as) => {
  const { ok, engines } = await withBitmap();
  await ok(...as("block-dirty-bitmap-enable"));
  const next = await engines();
  expect(next.bitmap()).toMatchObject({ enabled: true, inconsistent: false });
});

it.each(ways)("one in the place of one that %s has removed is the new one", async (_how, as) => {
  const { ok, engines } = await withBitmap();
  await ok(...as("block-dirty-bitmap-remove"));
  await ok("block-dirty-bitmap-add", { ...b0, persistent: true });
  const next = await engines();
  expect(next.bitmap()).toMatchObject({ enabled: true, inconsistent: false });
});

it("what a disk has lost by being made shorter, and has again, is in the next incremental backup", async () => {
  const { ok, engines } = await withBitmap();
  await ok("block-dirty-bitmap-enable", b0);
  await ok("block_resize", { "node-name": "disk", size: MiB / 2 });
  await ok("block_resize", { "node-name": "disk", size: MiB });
  const next = await engines();
  for (const bitmap of [next.bitmap()!, (await engines()).bitmap()!]) {
    expect(bitmap.isDirty(MiB / 2)).toBe(true);
    expect(bitmap.isDirty(0)).toBe(false);
  }
});

it("one of a disk that grows a thousandfold stays on record, with what was written before", async () => {
  const { ok, engines, write } = await withBitmap();
  await ok("block-dirty-bitmap-enable", b0);
  await write(0);
  await ok("block_resize", { "node-name": "disk", size: 200 * GiB });
  await write(199 * GiB);
  const bitmap = (await engines()).bitmap()!;
  expect(bitmap).toMatchObject({ enabled: true, inconsistent: false });
  for (const at of [0, 199 * GiB]) expect(bitmap.isDirty(at)).toBe(true);
});
