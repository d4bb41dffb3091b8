/**
 * Repair: nothing is left that qemu-img finds where it could mend it, no guest byte changes that could be
 * read, nothing is written over that somebody may need, and a crash in between is one more thing to repair.
 */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { KiB, MiB, readU32, readU64, writeU32, writeU64 } from "../../../../src/base/bytes.ts";
import { seededRandom } from "../../../../src/base/random.ts";
import { crashState } from "../../../crash/states.ts";
import {
  chainOptions,
  createImage,
  hasQemu,
  openDisk,
  qemuImg,
  qemuIo,
  qemuRaw,
  readAll,
  testFolder,
  testGraph,
  writeRaw,
} from "../rig.ts";
import { FEATURES, makeImage, mutate, ourCheck, placesOf, theirCheck } from "./check-rig.ts";

const folder = testFolder();
/** Of each kind of image. */
const MUTANTS = 6;
const SEED = 500;
const path = (name: string) => join(folder, name);
const kind = (name: string) => FEATURES.find((feature) => feature.name === name)!;

describe.skipIf(!hasQemu)("what qemu-img -r all mends is mended", () => {
  it.each(FEATURES)("$name", async (feature) => {
    const image = makeImage(folder, feature);
    const places = placesOf(image);
    for (let seed = SEED; seed < SEED + MUTANTS; seed++) {
      const random = seededRandom(seed);
      const bytes = image.slice();
      const done: string[] = [];
      for (let i = random.below(3); i >= 0; i--) done.push(mutate(bytes, places, random));
      writeRaw(folder, "m.qcow2", bytes);
      theirCheck(path("m.qcow2"), "all");
      const theirs = theirCheck(path("m.qcow2"));
      const ours = await ourCheck(bytes, "all");
      writeRaw(folder, "m.qcow2", ours.store.bytes);
      const judged = theirCheck(path("m.qcow2"));
      const what = `seed ${seed}: ${done.join(", ")}: ${judged.stderr.slice(0, 300)}`;
      // 0 clean, 3 leaks, 2 corrupt, 1 could not be checked; none: it has crashed.
      const rank = [0, 3, 2, 1, null];
      expect(rank.indexOf(judged.status), what).toBeLessThanOrEqual(rank.indexOf(theirs.status));
      const { corruptions, leaks } = ours.outcome!.result;
      expect(judged.result, what).toMatchObject({ corruptions, leaks });
    }
  });
});

describe.skipIf(!hasQemu)("a repair", () => {
  it("of refcounts and COPIED flags changes no byte of the disk nor of its snapshots", async () => {
    const bytes = makeImage(folder, kind("small clusters"));
    writeRaw(folder, "r.qcow2", bytes);
    const before = ["", "snapshot.name=one", "snapshot.name=two"].map((name) => snapshot(name));
    const { blocks, refcountTable, l2, l1 } = placesOf(bytes);
    bytes.fill(0, blocks[0]!, blocks[0]! + 200);
    writeU64(bytes, refcountTable + 8, 0);
    bytes[l1.offset]! ^= 0x80;
    bytes[l2[0]!]! ^= 0x80;
    const { outcome, store } = await ourCheck(bytes, "all");
    expect(outcome?.repair?.["corruptions-fixed"]).toBeGreaterThan(100);
    expect(outcome?.result).toMatchObject({ corruptions: 0, leaks: 0, "check-errors": 0 });
    writeRaw(folder, "r.qcow2", store.bytes);
    expect(theirCheck(path("r.qcow2")).status).toBe(0);
    const after = ["", "snapshot.name=one", "snapshot.name=two"].map((name) => snapshot(name));
    for (const [i, disk] of before.entries()) {
      expect(Buffer.compare(disk, after[i]!), `disk ${i}`).toBe(0);
    }
  });

  function snapshot(option: string): Uint8Array {
    const args = option === "" ? [] : ["-l", option];
    qemuImg(folder, "convert", ...args, "-f", "qcow2", "-O", "raw", "r.qcow2", "r.raw");
    return new Uint8Array(readFileSync(path("r.raw")));
  }

  it("of leaks lowers counts, and changes nothing else", async () => {
    const bytes = makeImage(folder, kind("version 2"));
    const { blocks } = placesOf(bytes);
    const leaky = bytes.slice();
    for (let i = 200; i < 260; i++) leaky[blocks[0]! + 2 * i + 1] = 1;
    leaky[blocks[0]! + 11] = 3 + leaky[blocks[0]! + 11]!;
    const { outcome, store } = await ourCheck(leaky, "leaks");
    expect(outcome?.result).toMatchObject({ leaks: 0, corruptions: 0 });
    expect(outcome?.result["leaks-fixed"]).toBeGreaterThan(0);
    writeRaw(folder, "l.qcow2", store.bytes);
    expect(theirCheck(path("l.qcow2")).result).toMatchObject({ leaks: 0, corruptions: 0 });
    const end = blocks[0]!;
    expect(Buffer.compare(store.bytes.subarray(0, end), leaky.subarray(0, end))).toBe(0);
    const rest = end + 4096;
    expect(Buffer.compare(store.bytes.subarray(rest), leaky.subarray(rest))).toBe(0);
  });

  it("of leaks says that it is not enough where refcounts are missing", async () => {
    const bytes = makeImage(folder, kind("plain"));
    const { blocks } = placesOf(bytes);
    bytes.fill(0, blocks[0]! + 8, blocks[0]! + 16);
    const { error } = await ourCheck(bytes, "leaks");
    expect(error?.errno).toBe("EIO");
    expect(error?.message).toMatch(/repair all/);
    writeRaw(folder, "n.qcow2", bytes);
    expect(theirCheck(path("n.qcow2"), "leaks").status).toBe(1);
  });

  it("mends no entry of an L1 table that is said to lie on the header", async () => {
    const bytes = makeImage(folder, kind("version 2"));
    // Magic and cluster bits are entries past the file's end then.
    writeU64(bytes, placesOf(bytes).snapshots.offset, 0);
    const { outcome, store } = await ourCheck(bytes, "all");
    expect(outcome?.result.corruptions).toBeGreaterThan(0);
    expect(Buffer.compare(store.bytes.subarray(0, 72), bytes.subarray(0, 72))).toBe(0);
  });

  it("mends nothing in a guest's data, whatever table is said to lie there", async () => {
    const image = makeImage(folder, kind("small clusters"));
    const { l1, l2 } = placesOf(image);
    const data = (readU32(image, l2[0]!) & 0xffffff) * 2 ** 32 + readU32(image, l2[0]! + 4);
    const asTable = image.slice();
    // The guest's 1s, read as entries, lead past the file's end.
    writeU64(asTable, l1.offset + (l1.entries - 1) * 8, data);
    const tooLong = image.slice();
    writeU32(tooLong, 36, Math.floor((image.length - l1.offset) / 8));
    for (const bytes of [asTable, tooLong]) {
      const { outcome, store } = await ourCheck(bytes, "all");
      expect(outcome?.result.corruptions).toBeGreaterThan(0);
      const mended = new Uint8Array(store.bytes);
      writeU64(mended, l1.offset + (l1.entries - 1) * 8, 0);
      writeU32(mended, 36, l1.entries);
      writeRaw(folder, "mended.qcow2", mended);
      writeRaw(folder, "before.qcow2", image);
      const [disk, before] = ["mended.qcow2", "before.qcow2"].map((name) => qemuRaw(folder, name));
      expect(Buffer.compare(disk!, before!)).toBe(0);
    }
  });

  it("checks the rest where a snapshot says that its table is beyond all files", async () => {
    const bytes = makeImage(folder, kind("version 2"));
    const { snapshots } = placesOf(bytes);
    bytes.fill(0xff, snapshots.offset, snapshots.offset + 8);
    writeRaw(folder, "beyond.qcow2", bytes);
    expect(theirCheck(path("beyond.qcow2")).result?.corruptions).toBeGreaterThan(0);
    expect((await ourCheck(bytes, "none")).outcome?.result.corruptions).toBeGreaterThan(0);
  });

  it("puts nothing on what lies past the file's end, or on what refers to it", async () => {
    const image = makeImage(folder, kind("small clusters"));
    const { l2, blocks } = placesOf(image);
    const bytes = image.slice();
    // As a crash leaves it: entries are there, the file's end is not, and the refcounts are old.
    for (let i = 0; i < 16; i++) {
      const at = l2[1]! + i * 8;
      writeU64(bytes, at, Math.ceil(bytes.length / 512) * 512 + i * 512);
      bytes[at]! |= 0x80;
    }
    bytes.fill(0, blocks[0]!, blocks[0]! + 256);
    const { outcome, store } = await ourCheck(bytes, "all");
    expect(outcome?.result).toMatchObject({ corruptions: 0, leaks: 0, "check-errors": 0 });
    writeRaw(folder, "p.qcow2", store.bytes);
    expect(theirCheck(path("p.qcow2")).status).toBe(0);
    const disk = qemuRaw(folder, "p.qcow2");
    writeRaw(folder, "p0.qcow2", image);
    const before = qemuRaw(folder, "p0.qcow2");
    // The second L2 table maps 32 KiB from 32 KiB on; 16 of its clusters are lost.
    expect(disk.subarray(32 * KiB, 40 * KiB).every((byte) => byte === 0)).toBe(true);
    disk.copyWithin(32 * KiB, 0, 0);
    expect(Buffer.compare(disk.subarray(0, 32 * KiB), before.subarray(0, 32 * KiB))).toBe(0);
    expect(Buffer.compare(disk.subarray(40 * KiB), before.subarray(40 * KiB))).toBe(0);
  });

  it("puts no refcounts where a snapshot still looks for its tables", async () => {
    const bytes = makeImage(folder, kind("small clusters"));
    const { snapshots, blocks } = placesOf(bytes);
    const from = Math.ceil(bytes.length / 512) * 512 + 1024;
    writeU64(bytes, snapshots.offset, from);
    const end = from + Math.max(512, readU32(bytes, snapshots.offset + 8) * 8);
    bytes.fill(0, blocks[0]!, blocks[0]! + 256);
    const { outcome, store } = await ourCheck(bytes, "all");
    expect(outcome?.repair?.["corruptions-fixed"]).toBeGreaterThan(100);
    const { refcountTable, blocks: anew } = placesOf(store.bytes);
    expect(refcountTable).toBeGreaterThan(bytes.length);
    for (const at of [refcountTable, ...anew]) {
      expect(at + 512 <= from || at >= end, `${at}, not in ${from} to ${end}`).toBe(true);
    }
  });

  it("writes down what a snapshot of version 3 must have", async () => {
    const bytes = makeImage(folder, kind("version 2"));
    // A version 3 header without anything, on tables that are the same in both.
    const header = bytes.subarray(0, 112);
    writeU32(header, 4, 3);
    header.fill(0, 72, 112);
    writeU32(header, 96, 4);
    writeU32(header, 100, 112);
    bytes.fill(0, 112, 4096);
    const { snapshots } = placesOf(bytes);
    expect(readU32(bytes, snapshots.offset + 36)).toBeGreaterThanOrEqual(16);
    const extra = readU32(bytes, snapshots.offset + 36);
    shortenExtra(bytes, snapshots.offset, extra, 8);
    writeRaw(folder, "s.qcow2", bytes);
    const found = await ourCheck(bytes, "none");
    const theirs = theirCheck(path("s.qcow2"));
    expect(found.outcome?.result).toEqual(theirs.result);
    const { outcome, store } = await ourCheck(bytes, "all");
    expect(outcome?.result).toMatchObject({ corruptions: 0, leaks: 0 });
    writeRaw(folder, "s.qcow2", store.bytes);
    expect(theirCheck(path("s.qcow2")).status).toBe(0);
    expect(qemuImg(folder, "snapshot", "-l", "s.qcow2")).toMatch(/one[\s\S]*two/);
  });

  /** Takes bytes out of the first entry's extra data; the table is one cluster. */
  function shortenExtra(bytes: Uint8Array, at: number, from: number, to: number): void {
    writeU32(bytes, at + 36, to);
    bytes.copyWithin(at + 40 + to, at + 40 + from, at + 4096);
  }

  it("trims extra data of a snapshot that is too long, which qemu-img cannot look past", async () => {
    const bytes = makeImage(folder, kind("bitmaps"));
    const { snapshots } = placesOf(bytes);
    const at = snapshots.offset;
    const rest = bytes.slice(at + 40 + 24, at + 2048);
    writeU32(bytes, at + 36, 24 + 1504);
    bytes.fill(7, at + 64, at + 64 + 1504);
    bytes.set(rest.subarray(0, 4096 - 64 - 1504), at + 64 + 1504);
    writeRaw(folder, "t.qcow2", bytes);
    expect(theirCheck(path("t.qcow2")).result).toBe(null);
    expect((await ourCheck(bytes, "none")).outcome?.result.corruptions).toBe(1);
    const { store } = await ourCheck(bytes, "all");
    writeRaw(folder, "t.qcow2", store.bytes);
    expect(theirCheck(path("t.qcow2")).status).toBe(0);
    expect(qemuImg(folder, "snapshot", "-l", "t.qcow2")).toMatch(/one[\s\S]*two/);
  });

  it("has bitmaps back from a snapshot that was said to reach over them, once it is trimmed", async () => {
    qemuImg(folder, "create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", "r.qcow2", "1M");
    qemuImg(folder, "snapshot", "-c", "one", "r.qcow2");
    qemuImg(folder, "bitmap", "--add", "-f", "qcow2", "r.qcow2", "b0");
    const bytes = new Uint8Array(readFileSync(path("r.qcow2")));
    const { snapshots } = placesOf(bytes);
    writeU32(bytes, snapshots.offset + 36, bytes.length - snapshots.offset - 64);
    expect((await ourCheck(bytes, "none")).outcome?.result.corruptions).toBeGreaterThan(0);
    const { outcome, store } = await ourCheck(bytes, "all");
    expect(outcome?.result.corruptions).toBe(0);
    writeRaw(folder, "r.qcow2", store.bytes);
    expect(theirCheck(path("r.qcow2")).result?.corruptions).toBe(0);
  });

  it("keeps the snapshots of an image with bitmaps, which qemu-img loses", async () => {
    const bytes = makeImage(folder, kind("bitmaps"));
    const { store, outcome } = await ourCheck(bytes, "all");
    expect(outcome?.repair).toBe(null);
    expect(Buffer.compare(store.bytes, bytes)).toBe(0);
    const { blocks } = placesOf(bytes);
    bytes[blocks[0]! + 2 * 20 + 1]! += 1;
    const leaky = await ourCheck(bytes, "all");
    expect(leaky.outcome?.result).toMatchObject({ leaks: 0, "leaks-fixed": 1, corruptions: 0 });
    writeRaw(folder, "k.qcow2", leaky.store.bytes);
    expect(theirCheck(path("k.qcow2")).status).toBe(0);
    expect(qemuImg(folder, "snapshot", "-l", "k.qcow2")).toMatch(/one[\s\S]*two/);
    expect(qemuImg(folder, "info", "k.qcow2")).toMatch(/b0[\s\S]*b1/);
  });

  it.each(["leaks", "all"] as const)(
    "of %s keeps the clusters of a snapshot whose L1 table cannot be found",
    async (fix) => {
      const bytes = makeImage(folder, kind("small clusters"));
      writeRaw(folder, "r.qcow2", bytes);
      const before = snapshot("snapshot.name=one");
      const at = placesOf(bytes).snapshots.offset;
      bytes[at + 7]! += 1;
      const { outcome, store } = await ourCheck(bytes, fix);
      expect(outcome?.result.corruptions).toBe(1);
      expect(outcome?.result.leaks).toBeGreaterThan(100);
      // By hand, as somebody may who knows where it is.
      const mended = store.bytes.slice();
      mended[at + 7]! -= 1;
      writeRaw(folder, "r.qcow2", mended);
      expect(theirCheck(path("r.qcow2")).status).toBe(0);
      expect(Buffer.compare(snapshot("snapshot.name=one"), before)).toBe(0);
    },
  );

  it("turns off bitmaps that make no sense", async () => {
    const bytes = makeImage(folder, kind("bitmaps"));
    const at = directoryOf(bytes);
    bytes[at + 17] = 63;
    const found = await ourCheck(bytes, "none");
    expect(found.outcome?.result.corruptions).toBe(1);
    const { outcome, store } = await ourCheck(bytes, "all");
    expect(outcome?.result).toMatchObject({ corruptions: 0, leaks: 0 });
    writeRaw(folder, "o.qcow2", store.bytes);
    expect(theirCheck(path("o.qcow2")).status).toBe(0);
    qemuIo(folder, "o.qcow2", "write -P 9 0 4k");
  });

  function directoryOf(bytes: Uint8Array): number {
    for (let at = readU32(bytes, 100); at < 4096; ) {
      if (readU32(bytes, at) === 0x23852875) return readU64(bytes, at + 24, "directory");
      at += 8 + Math.ceil(readU32(bytes, at + 4) / 8) * 8;
    }
    throw new Error("no bitmaps");
  }

  it("takes the marks off where nothing is left, and leaves them where something is", async () => {
    const bytes = makeImage(folder, kind("plain"));
    bytes[79] = 3;
    const { store } = await ourCheck(bytes, "all");
    expect(store.bytes[79]).toBe(0);
    const { l2 } = placesOf(bytes);
    writeU64(bytes, l2[0]! + 8 * 30, 0x400);
    const other = await ourCheck(bytes, "all");
    expect(other.outcome?.result.corruptions).toBeGreaterThan(0);
    expect(other.store.bytes[79]).toBe(3);
  });

  it("can be cut off at any moment, and done again", async () => {
    for (const name of ["small clusters", "version 2", "extended L2"]) {
      const bytes = makeImage(folder, kind(name));
      writeRaw(folder, "r.qcow2", bytes);
      const before = ["", "snapshot.name=one", "snapshot.name=two"].map((one) => snapshot(one));
      const { blocks, l1, clusterBytes } = placesOf(bytes);
      bytes.fill(0, blocks[0]! + clusterBytes / 8, blocks[0]! + clusterBytes / 4);
      bytes[l1.offset]! ^= 0x80;
      const whole = await ourCheck(bytes, "all");
      expect(whole.outcome?.result.corruptions).toBe(0);
      const { log } = whole.store;
      for (let seed = 1; seed <= 30; seed++) {
        const random = seededRandom(seed);
        const state = crashState(bytes, log, random.below(log.length + 1), random);
        const again = await ourCheck(state, "all");
        const what = `${name}, seed ${seed}`;
        expect(again.outcome?.result, what).toMatchObject({ corruptions: 0, leaks: 0 });
        if (seed % 10 > 0) continue;
        writeRaw(folder, "r.qcow2", again.store.bytes);
        expect(theirCheck(path("r.qcow2")).status, what).toBe(0);
        for (const [i, one] of ["", "snapshot.name=one", "snapshot.name=two"].entries()) {
          expect(Buffer.compare(snapshot(one), before[i]!), `${what}, disk ${i}`).toBe(0);
        }
      }
    }
  });
});

describe.skipIf(!hasQemu)("an image that was not closed cleanly", () => {
  it("is repaired before it is written to, and loses nothing", async () => {
    qemuImg(folder, "create", "-q", "-f", "qcow2", "-o", "lazy_refcounts=on", "d.qcow2", "4M");
    // qemu-io dies with its refcounts in memory.
    expect(() =>
      qemuIo(folder, "d.qcow2", "write -P 5 0 1M", "flush", "write -P 6 2M 64k", "flush", "abort"),
    ).toThrow();
    const graph = await testGraph();
    expect(readFileSync(path("d.qcow2"))[79]).toBe(1);
    expect(theirCheck(path("d.qcow2")).status).toBe(2);
    const disk = await openDisk(graph, chainOptions(folder, ["d.qcow2"]));
    expect(readFileSync(path("d.qcow2"))[79]).toBe(0);
    await disk.backend.write(new Uint8Array(64 * KiB).fill(8), 3 * MiB);
    const seen = await readAll(disk);
    await disk.close();
    expect(seen.subarray(0, MiB).every((byte) => byte === 5)).toBe(true);
    expect(seen.subarray(2 * MiB, 2 * MiB + 64 * KiB).every((byte) => byte === 6)).toBe(true);
    expect(theirCheck(path("d.qcow2")).status).toBe(0);
  });

  it("is refused with a reason when it cannot be repaired, and can be read", async () => {
    await createImage(folder, "e.qcow2", { size: MiB });
    const graph = await testGraph();
    const made = await openDisk(graph, chainOptions(folder, ["e.qcow2"]));
    await made.backend.write(new Uint8Array(64 * KiB).fill(8), 0);
    await made.close();
    const bytes = new Uint8Array(readFileSync(path("e.qcow2")));
    writeU64(bytes, placesOf(bytes).l2[0]! + 8 * 12, 0x400);
    bytes[79] = 1;
    writeRaw(folder, "e.qcow2", bytes);
    const attempt = openDisk(graph, chainOptions(folder, ["e.qcow2"]));
    await expect(attempt).rejects.toMatchObject({ errno: "EIO" });
    await expect(attempt).rejects.toThrow(/not closed cleanly, and could not be repaired/);
    const disk = await openDisk(graph, chainOptions(folder, ["e.qcow2"], true));
    const seen = new Uint8Array(64 * KiB);
    await disk.backend.read(seen, 0);
    expect(seen.every((byte) => byte === 8)).toBe(true);
    await disk.close();
  });
});
