/** Mirrors and what guests do meanwhile: at the start, while it copies, in both copy modes. */

import { describe, expect, it } from "vitest";
import { KiB, MiB } from "../../src/base/bytes.ts";
import { verbs } from "../../src/job/verbs.ts";
import { type MirrorRig, mirrorRig, pattern } from "./mirror-rig.ts";

const SIZE = 2 * MiB;

async function pivot(t: MirrorRig, job: Awaited<ReturnType<MirrorRig["start"]>>): Promise<void> {
  await t.ready(job);
  await verbs.complete(job);
  await t.end(job);
  expect(job.error).toBe(null);
  expect(t.layers()).toEqual(["target"]);
  expect(t.bugs).toEqual([]);
}

describe("a write that is in flight while the job starts", () => {
  for (const sync of ["full", "top"] as const) {
    for (const where of ["through the device", "below the filter"]) {
      it(`is not missed: sync ${sync}, ${where}`, async () => {
        const tiny = { driver: "tiny", size: SIZE, "cluster-size": 64 * KiB };
        const t = await mirrorRig({
          size: SIZE,
          source: [
            { ...tiny, file: { driver: "memory", size: 0 } },
            { ...tiny, file: { driver: "source-store", size: 0 }, backing: "n0" },
          ],
        });
        const side = where === "through the device" ? t.disk : t.open("top", "side");
        const go = t.sourceStore.hold("write");
        const write = side.write(pattern(0, 3000, 5), 70_000);
        await t.clock.advance(10);
        expect(t.sourceStore.waiting).toBe(1);
        const starting = t.begin({ sync });
        await t.clock.advance(100);
        go();
        await t.clock.runUntil(write);
        const job = await t.clock.runUntil(starting);
        await pivot(t, job);
        const now = await t.content();
        expect(Buffer.compare(now.subarray(70_000, 73_000), pattern(0, 3000, 5))).toBe(0);
        expect(Buffer.compare(await t.contentOf("top"), now)).toBe(0);
      });
    }
  }

  it("comes before the start: with sync none it is no more than what was there", async () => {
    const t = await mirrorRig({ size: SIZE });
    const go = t.sourceStore.hold("write");
    const write = t.disk.write(pattern(0, 3000, 5), 0);
    await t.clock.advance(10);
    const starting = t.begin({ sync: "none" });
    // This one waits for the start, and comes after it.
    const later = t.disk.write(pattern(0, 3000, 6), MiB);
    await t.clock.advance(10);
    go();
    await t.clock.runUntil(Promise.all([write, later]));
    const job = await t.clock.runUntil(starting);
    await pivot(t, job);
    const now = await t.content();
    expect(now[0]).toBe(0);
    expect(Buffer.compare(now.subarray(MiB, MiB + 3000), pattern(0, 3000, 6))).toBe(0);
  });

  it("is not missed while the job looks for what is dirty", async () => {
    const t = await mirrorRig({ size: 64 * MiB });
    const starting = t.begin();
    let n = 0;
    let isOn = true;
    const writer = (async () => {
      while (isOn) {
        n++;
        await t.disk.write(pattern(0, 600, n), ((n * 7919) % 65_000) * 1000);
        await t.clock.yield();
      }
    })();
    const job = await t.clock.runUntil(starting);
    for (let i = 0; i < 50; i++) await t.clock.advance(1);
    isOn = false;
    await t.clock.runUntil(writer);
    expect(n).toBeGreaterThan(20);
    await pivot(t, job);
    expect(Buffer.compare(await t.contentOf("top"), await t.content())).toBe(0);
  });
});

it("ends under writes that never stop, and is equal to its source", async () => {
  const t = await mirrorRig({ size: SIZE });
  await t.fill(t.disk);
  t.targetStore.delayMs = () => 2;
  const job = await t.start({ autoFinalize: false });
  let isOn = true;
  let n = 0;
  const writers = [1, 2, 3].map(async (salt) => {
    while (isOn) {
      n += 997;
      await t.disk.write(pattern(n, 4096, salt), (n * 4096) % (SIZE - 4096));
      await new Promise<void>((resolve) => void t.clock.setTimer(1, resolve));
    }
  });
  await t.ready(job);
  await t.clock.advance(1000);
  await verbs.complete(job);
  for (let i = 0; i < 2000 && !job.completed; i++) await t.clock.advance(5);
  expect(job.status).toBe("pending");
  const [source, target] = [await t.contentOfRaw("top"), await t.contentOfRaw("target")];
  expect(Buffer.compare(source, target)).toBe(0);
  await t.clock.runUntil(verbs.finalize(job));
  isOn = false;
  await t.clock.runUntil(Promise.all(writers));
  expect(t.layers()).toEqual(["target"]);
});

it("#90 discards on the source, and a target that was not empty: equal afterwards", async () => {
  for (const copyMode of ["background", "write-blocking"] as const) {
    const t = await mirrorRig({ size: SIZE });
    await t.fill(t.disk);
    const target = t.open("target", "filler");
    await t.fill(target, 0, SIZE, 9);
    await t.graph.closeBackend(target);
    await t.clock.runUntil(t.disk.discard(64 * KiB, 256 * KiB));
    const job = await t.start({ copyMode });
    await t.clock.runUntil(t.disk.discard(MiB - 300, 300_000));
    await t.ready(job);
    await t.clock.runUntil(t.disk.discard(1000, 200_000));
    await t.clock.runUntil(t.disk.discard(MiB, MiB));
    if (copyMode === "write-blocking") {
      expect(job.info()).toMatchObject({ "actively-synced": true });
    }
    await pivot(t, job);
    expect(Buffer.compare(await t.contentOf("top"), await t.content())).toBe(0);
  }
});

describe("write-blocking", () => {
  it("#91 overlapping writes, zeroes and discards before and after ready: then nothing is dirty", async () => {
    const t = await mirrorRig({ size: SIZE });
    await t.fill(t.disk);
    t.sourceStore.delayMs = () => 3;
    t.targetStore.delayMs = () => 2;
    const job = await t.start({ copyMode: "write-blocking", speed: 4 * MiB });
    const storm = (salt: number) =>
      Promise.all(
        [0, 100, 511, 65_536, 65_537, 130_000, 200_001].flatMap((offset) => [
          t.disk.write(pattern(offset, 70_001, salt), offset),
          t.disk.write(pattern(offset, 64 * KiB, salt + 1), offset - (offset % 65_536)),
          t.disk.writeZeroes(offset + 3, 80_000),
          t.disk.discard(offset, 65_536),
          t.disk.flush(),
        ]),
      );
    const early = storm(2);
    await t.ready(job);
    await t.clock.runUntil(early);
    await t.clock.advance(1000);
    const reads = t.sourceStore.log.filter(({ op }) => op === "read").length;
    await t.clock.runUntil(storm(5));
    expect(job.info()).toMatchObject({ ready: true, "actively-synced": true });
    expect(job.progress.current).toBe(job.progress.total);
    await t.clock.advance(1000);
    // The job had nothing to read; what discards left was looked at, and is data in part.
    const more = t.sourceStore.log.filter(({ op }) => op === "read").length - reads;
    expect(more).toBeLessThan(20);
    await pivot(t, job);
    expect(Buffer.compare(await t.contentOf("top"), await t.content())).toBe(0);
  });

  it("a guest's write is done when both disks have it, in the order in which it came", async () => {
    const t = await mirrorRig({ size: SIZE });
    const job = await t.start({ copyMode: "write-blocking" });
    await t.ready(job);
    const go = t.targetStore.hold("write");
    const done: number[] = [];
    const writes = [1, 2, 3].map((salt) =>
      t.disk.write(pattern(0, 1000, salt), 100 * salt).then(() => void done.push(salt)),
    );
    await t.clock.advance(1000);
    expect(done).toEqual([]);
    go();
    await t.clock.runUntil(Promise.all(writes));
    expect(done).toEqual([1, 2, 3]);
    await pivot(t, job);
    expect(Buffer.compare(await t.contentOf("top"), await t.content())).toBe(0);
  });

  it("copies of what shows through from below go to the source alone", async () => {
    const tiny = { driver: "tiny", size: SIZE, "cluster-size": 64 * KiB };
    const t = await mirrorRig({
      size: SIZE,
      source: [
        { ...tiny, file: { driver: "memory", size: 0 } },
        { ...tiny, file: { driver: "source-store", size: 0 }, backing: "n0" },
      ],
    });
    const job = await t.start({ copyMode: "write-blocking" });
    await t.ready(job);
    const writes = t.targetStore.log.length;
    await t.clock.runUntil(t.disk.copyUp(0, 300_000));
    await t.clock.runUntil(t.disk.write(new Uint8Array(5000), 400_000, { unchanged: true }));
    expect(t.targetStore.log.length).toBe(writes);
    expect(job.info()).toMatchObject({ "actively-synced": true });
    await pivot(t, job);
  });

  it("#93 under saturating writes the background copy still gets on", async () => {
    const t = await mirrorRig({ size: 8 * MiB });
    await t.fill(t.disk);
    t.sourceStore.delayMs = () => 1;
    t.targetStore.delayMs = () => 1;
    const job = await t.start({ copyMode: "write-blocking" });
    let isOn = true;
    const writers = Array.from({ length: 8 }, async (_, i) => {
      for (let n = i; isOn; n += 8) {
        await t.disk.write(pattern(0, 128 * KiB, n % 200), (n * 128 * KiB) % (8 * MiB));
      }
    });
    await t.ready(job);
    expect(job.info()).toMatchObject({ ready: true, "actively-synced": true });
    isOn = false;
    await t.clock.runUntil(Promise.all(writers));
    await pivot(t, job);
    expect(Buffer.compare(await t.contentOf("top"), await t.content())).toBe(0);
  });

  it("#94 one byte written into a granule that is dirty", async () => {
    const t = await mirrorRig({ size: SIZE });
    await t.fill(t.disk);
    const job = await t.start({ copyMode: "write-blocking", speed: 256 * KiB });
    await t.clock.advance(100);
    expect(job.progress.current).toBeLessThan(SIZE);
    await t.clock.runUntil(t.disk.write(new Uint8Array([200]), SIZE - 70_000));
    await pivot(t, job);
    expect((await t.content())[SIZE - 70_000]).toBe(200);
    expect(Buffer.compare(await t.contentOf("top"), await t.content())).toBe(0);
  });

  it("#96 changed from background under load: then it is synced; the same again is fine, back is not", async () => {
    const t = await mirrorRig({ size: SIZE });
    await t.fill(t.disk);
    t.sourceStore.delayMs = () => 2;
    t.targetStore.delayMs = () => 1;
    const job = await t.start({ autoDismiss: false });
    let isOn = true;
    const writers = [0, 1, 2, 3].map(async (i) => {
      for (let n = i; isOn; n += 4) {
        await t.disk.write(pattern(0, 5000, n % 99), (n * 33_333) % (SIZE - 5000));
      }
    });
    await t.ready(job);
    expect(job.info()).toMatchObject({ "actively-synced": false });
    const change = (copyMode: "background" | "write-blocking", type = "mirror") =>
      job.change({ type, copyMode });
    change("background");
    change("write-blocking");
    change("write-blocking");
    await t.clock.advance(2000);
    expect(job.info()).toMatchObject({ ready: true, "actively-synced": true });
    expect(() => change("background")).toThrow("cannot go back");
    expect(() => change("background", "commit")).toThrow("is mirror, not commit");
    await verbs.complete(job);
    for (let i = 0; i < 1000 && !job.completed; i++) await t.clock.advance(5);
    await t.end(job);
    isOn = false;
    await t.clock.runUntil(Promise.all(writers));
    expect(() => change("write-blocking")).toThrow("does not apply");
    expect(t.layers()).toEqual(["target"]);
  });
});
