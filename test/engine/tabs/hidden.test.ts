/** Tabs that nobody looks at: they keep little, and give the disks to one that somebody looks at. */

import { describe, expect, it } from "vitest";
import { VirtualClock } from "../../../src/base/virtual-clock.ts";
import { Origin } from "./origin.ts";
import { makeDisk, openDisk, recoverDisk, Tab } from "./tab.ts";

const MINUTE_MS = 60_000;
/** In which a tab that is looked at asks, and the disks change hands. */
const SOON_MS = 15_000;

/** A disk, and so many tabs on it; nobody looks at the first, which owns it. */
async function tabs(count: number, open = recoverDisk) {
  const clock = new VirtualClock();
  const origin = new Origin(clock, 1);
  const run = <T>(promise: Promise<T>) => clock.runUntil(promise);
  await run(makeDisk(origin));
  const all = Array.from({ length: count }, () => new Tab(origin, open));
  for (const [i, { client }] of all.entries()) {
    // As connectShared() does: before the first worker.
    client.setHidden(i !== count - 1);
    await run(client.start());
  }
  return { clock, origin, run, all };
}

const ownerOf = (all: readonly Tab[]) => all.findIndex(({ isOwner }) => isOwner);
const bytes = (value: number) => new Uint8Array(512).fill(value);

describe("an owner that has been hidden for a minute", () => {
  it("gives the disks to the tab that somebody has been looking at all the time", async () => {
    const { clock, run, all } = await tabs(3);
    const disk = await run(all[2]!.client.openDevice("d"));
    await run(disk.write(0, bytes(7)));
    await clock.advance(MINUTE_MS - SOON_MS);
    expect(ownerOf(all)).toBe(0);
    await clock.advance(2 * SOON_MS);
    expect(ownerOf(all)).toBe(2);
    expect(await run(disk.read(0, 512))).toEqual(bytes(7));
    await run(disk.flush());
    // And keeps them, whoever has had them before.
    await clock.advance(3 * MINUTE_MS);
    expect(ownerOf(all)).toBe(2);
  });

  it("gives them to a tab that is looked at later, and that asks at once", async () => {
    const { clock, all } = await tabs(2);
    all[1]!.client.setHidden(true);
    await clock.advance(5 * MINUTE_MS);
    expect(ownerOf(all)).toBe(0);
    all[1]!.client.setHidden(false);
    await clock.advance(1000);
    expect(ownerOf(all)).toBe(1);
  });

  it("takes them back when its turn has come again", async () => {
    const { clock, all } = await tabs(2);
    await clock.advance(MINUTE_MS + SOON_MS);
    expect(ownerOf(all)).toBe(1);
    all[1]!.client.setHidden(true);
    all[0]!.client.setHidden(false);
    await clock.advance(MINUTE_MS - SOON_MS);
    expect(ownerOf(all)).toBe(1);
    await clock.advance(2 * SOON_MS);
    expect(ownerOf(all)).toBe(0);
  });

  it("keeps them as long as its realm does not remember what was running", async () => {
    const { clock, all } = await tabs(2, openDisk);
    await clock.advance(3 * MINUTE_MS);
    expect(ownerOf(all)).toBe(0);
  });

  it("is known as hidden also by a worker that takes the place of one that has crashed", async () => {
    const { clock, all } = await tabs(2);
    const [first, second] = all as [Tab, Tab];
    await clock.advance(MINUTE_MS + SOON_MS);
    expect(ownerOf(all)).toBe(1);
    first.worker!.life.kill();
    first.worker!.onlost();
    second.client.setHidden(true);
    second.worker!.life.kill();
    second.worker!.onlost();
    await clock.advance(1000);
    expect(ownerOf(all)).toBe(0);
    second.client.setHidden(false);
    await clock.advance(MINUTE_MS + SOON_MS);
    expect(ownerOf(all)).toBe(1);
  });
});

describe("an owner that somebody looks at", () => {
  it("keeps the disks, and so do all while nobody looks at any", async () => {
    const { clock, all } = await tabs(2);
    all[0]!.client.setHidden(false);
    await clock.advance(3 * MINUTE_MS);
    expect(ownerOf(all)).toBe(0);
    for (const { client } of all) client.setHidden(true);
    await clock.advance(3 * MINUTE_MS);
    expect(ownerOf(all)).toBe(0);
  });
});

describe("a hidden tab", () => {
  it("has what it writes flushed soon, so that it loses nothing when it is frozen with the disks", async () => {
    const { clock, run, all } = await tabs(2);
    const [first, second] = all as [Tab, Tab];
    const disk = await run(first.client.openDevice("d"));
    await run(disk.write(4096, bytes(5)));
    await clock.advance(50);
    first.client.suspend();
    first.freeze();
    const same = await run(second.client.openDevice("d"));
    expect(second.isOwner).toBe(true);
    expect(await run(same.read(4096, 512))).toEqual(bytes(5));
    first.thaw();
    await run(first.client.resume());
    await run(disk.flush());
    expect(await run(disk.read(4096, 512))).toEqual(bytes(5));
  });
});
