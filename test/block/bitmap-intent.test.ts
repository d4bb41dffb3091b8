/** Persistent bitmaps of engines that are lost: right for the next incremental backup, or inconsistent. */

import { expect, it } from "vitest";
import { KiB, MiB } from "../../src/base/bytes.ts";
import { seededRandom } from "../../src/base/random.ts";
import type { BlockBackend } from "../../src/block/backend.ts";
import {
  addBitmap,
  beforeChange,
  disableBitmap,
  enableBitmap,
  mergeBitmaps,
  removeBitmap,
} from "../../src/block/bitmap-changes.ts";
import type { DirtyBitmap } from "../../src/block/dirty-bitmap.ts";
import { BusyGuest, type Left, LIVES_SIZE, type Life, live, newImages } from "../blockjob/lives.ts";

const SEEDS = Number(process.env["INTENT_SEEDS"] ?? 10);

const b0 = { node: "top", name: "b0" };

/** A life with the disk open, and what a guest has of it. */
async function opened(left: Left, epoch: number, seed = epoch) {
  const life = await live(left, seededRandom(seed), epoch);
  await life.add({ driver: "qcow2", "node-name": "top", file: { driver: "top-store" } });
  return { ...life, disk: life.device("top") };
}

async function write(life: Life, disk: BlockBackend, offset: number): Promise<void> {
  await life.clock.runUntil(disk.write(new Uint8Array(512).fill(5), offset));
}

function bitmapOf(life: Life, name = "b0"): DirtyBitmap {
  return life.graph.get("top").bitmaps.get(name);
}

/** A disk with a bitmap in its image, in which one granule is dirty. */
async function withBitmap(): Promise<Left> {
  const life = await opened(await newImages(["top"], seededRandom(1)), 1);
  addBitmap(life.graph, { ...b0, persistent: true, granularity: 64 * KiB }).commit();
  await write(life, life.disk, 4 * MiB);
  await life.clock.runUntil(life.disk.flush());
  await life.clock.runUntil(life.graph.closeBackend(life.disk));
  await life.clock.runUntil(life.graph.remove("top"));
  return life.look();
}

it("a bitmap comes back with what was marked before and what was written since", async () => {
  const first = await opened(await withBitmap(), 2);
  await write(first, first.disk, 0);
  await first.clock.runUntil(first.disk.flush());
  const second = await opened(first.look(), 3);
  const bitmap = bitmapOf(second);
  expect(bitmap).toMatchObject({ inconsistent: false, enabled: true, persistent: true });
  expect(bitmap.isDirty(0)).toBe(true);
  expect(bitmap.isDirty(4 * MiB)).toBe(true);
  // One granule of before, one region of now.
  expect(bitmap.count).toBe(64 * KiB + 256 * KiB);
});

it("without a record that can be trusted it is inconsistent, as ever", async () => {
  const first = await opened(await withBitmap(), 2);
  await write(first, first.disk, 0);
  await first.clock.runUntil(first.disk.flush());
  const gone = await opened({ ...first.look(), intents: null }, 3);
  expect(bitmapOf(gone).inconsistent).toBe(true);
});

it("one that was not closed well twice has what was written in both lives", async () => {
  const first = await opened(await withBitmap(), 2);
  await write(first, first.disk, 0);
  await first.clock.runUntil(first.disk.flush());
  const second = await opened(first.look(), 3);
  await write(second, second.disk, 2 * MiB);
  await second.clock.runUntil(second.disk.flush());
  const third = await opened(second.look(), 4);
  for (const at of [0, 2 * MiB, 4 * MiB]) expect(bitmapOf(third).isDirty(at)).toBe(true);
  expect(bitmapOf(third).isDirty(3 * MiB)).toBe(false);
});

it("is as its image has it when that was closed well", async () => {
  const life = await opened(await withBitmap(), 2);
  expect(bitmapOf(life).count).toBe(64 * KiB);
  await write(life, life.disk, 0);
  await life.clock.runUntil(life.graph.closeBackend(life.disk));
  await life.clock.runUntil(life.graph.remove("top"));
  const next = await opened(life.look(), 3);
  expect(bitmapOf(next).count).toBe(2 * 64 * KiB);
});

it("new ones, those that are gone, and switches are on record before anybody is told", async () => {
  const first = await opened(await withBitmap(), 2);
  const { graph, intents, clock } = first;
  const node = "top";
  addBitmap(graph, { node, name: "new", persistent: true }).commit();
  addBitmap(graph, { node, name: "off", persistent: true, disabled: true }).commit();
  addBitmap(graph, { node, name: "on", persistent: true, disabled: true }).commit();
  enableBitmap(graph, { node, name: "on" }).commit();
  disableBitmap(graph, { node, name: "new" }).commit();
  await clock.runUntil(intents.settled());
  const second = await opened(first.look(), 3);
  const flags = second.graph
    .get(node)
    .bitmaps.all()
    .map(({ name, enabled }) => [name, enabled]);
  expect(flags).toEqual([
    ["b0", true],
    ["new", false],
    ["off", false],
    ["on", true],
  ]);
  removeBitmap(second.graph, b0).commit();
  await second.clock.runUntil(second.intents.settled());
  await write(second, second.disk, 0);
  await second.clock.runUntil(second.disk.flush());
  const third = await opened(second.look(), 4);
  expect(bitmapOf(third).inconsistent).toBe(true); // In the image still, and nobody answers for it.
  expect(bitmapOf(third, "on").isDirty(0)).toBe(true);
});

it.each(["with", "without"])(
  "one that has been switched on stays that, %s a record",
  async (how) => {
    const before = await opened(await withBitmap(), 2);
    disableBitmap(before.graph, b0).commit();
    await before.clock.runUntil(before.graph.closeBackend(before.disk));
    await before.clock.runUntil(before.graph.remove("top"));
    const first = await opened(before.look(), 3);
    expect(bitmapOf(first).enabled).toBe(false);
    await first.clock.runUntil(beforeChange(first.graph, b0, "enable"));
    enableBitmap(first.graph, b0).commit();
    await first.clock.runUntil(first.intents.settled());
    const left = first.look();
    const second = await opened(how === "with" ? left : { ...left, intents: null }, 4);
    if (how === "with")
      expect(bitmapOf(second)).toMatchObject({ enabled: true, inconsistent: false });
    else expect(bitmapOf(second).inconsistent).toBe(true);
  },
);

it("is not there if the image's copy is gone that its record builds on", async () => {
  const first = await opened(await withBitmap(), 2);
  await write(first, first.disk, 0);
  await first.clock.runUntil(first.disk.flush());
  const { files, intents } = first.look();
  const image = files.get("top")!.slice();
  // As somebody leaves it who writes the image and does not know of bitmaps: header, autoclear features.
  image.fill(0, 88, 96);
  const second = await opened({ files: new Map([["top", image]]), intents }, 3);
  expect(second.graph.get("top").bitmaps.find("b0")).toBe(undefined);
});

it("what was merged into one is on record", async () => {
  const first = await opened(await withBitmap(), 2);
  const { graph, intents, clock } = first;
  addBitmap(graph, { node: "top", name: "sum", persistent: true, disabled: true }).commit();
  mergeBitmaps(graph, { node: "top", target: "sum", bitmaps: ["b0"] }).commit();
  await clock.runUntil(intents.settled());
  const second = await opened(first.look(), 3);
  expect(bitmapOf(second, "sum").isDirty(4 * MiB)).toBe(true);
});

it("costs a disk without persistent bitmaps nothing", async () => {
  const life = await opened(await newImages(["top"], seededRandom(1)), 1);
  addBitmap(life.graph, b0).commit();
  await write(life, life.disk, 0);
  expect(life.intentStore.saves).toBe(0);
});

it("after any crashes a bitmap has all that has changed", async () => {
  for (let seed = 1; seed <= SEEDS; seed++) {
    const random = seededRandom(seed);
    let left = await withBitmap();
    const before = await (await opened(left, 2)).content("top");
    for (let epoch = 3; epoch < 7; epoch++) {
      const life = await opened(left, epoch, random.below(1e9));
      const isLast = epoch === 6;
      if (!isLast) life.dieAfter(1 + random.below(random.below(2) ? 40 : 400), random.below(2) > 0);
      const guest = new BusyGuest(life.disk, random);
      for (let i = 0; i < 12 && !life.remains; i++) {
        guest.act();
        await life.clock.advance(random.below(200));
      }
      left = life.remains ?? life.look();
      if (!isLast) continue;
      const after = await life.content("top");
      const bitmap = bitmapOf(life);
      expect(bitmap.inconsistent, `seed ${seed}`).toBe(false);
      for (let at = 0; at < LIVES_SIZE; at += 64 * KiB) {
        const end = Math.min(at + 64 * KiB, LIVES_SIZE);
        if (bitmap.isDirty(at)) continue;
        const isSame = Buffer.compare(before.subarray(at, end), after.subarray(at, end)) === 0;
        expect(isSame, `seed ${seed}, ${at}`).toBe(true);
      }
    }
  }
}, 60_000);
