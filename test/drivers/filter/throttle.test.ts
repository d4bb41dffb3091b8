/** The throttle filter and its groups: how fast, how fair, and how it lets go. */

import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { KiB, MiB } from "../../../src/base/bytes.ts";
import { seededRandom } from "../../../src/base/random.ts";
import { settleAll } from "../../../src/base/settle.ts";
import type { ThrottleLimits } from "../../../src/block/throttle-limits.ts";
import { runWell } from "../../spawn.ts";
import { hasQemu, testFolder } from "../format/rig.ts";
import { filled, filterRig, outcome } from "./rig.ts";

const folder = testFolder();

/** One throttled disk per name, all in one group. */
async function throttled(limits: ThrottleLimits, names: readonly string[] = ["a"]) {
  const rig = await filterRig();
  const group = rig.graph.throttleGroups.add("g", limits);
  const disks = [];
  for (const name of names) {
    const file = { driver: "spy", size: 16 * MiB };
    await rig.graph.add({ driver: "throttle", "node-name": name, "throttle-group": "g", file });
    disks.push(rig.device(name));
  }
  /** Runs requests, all asked for at once, and tells when each was over, in ms. */
  const timesOf = async (requests: readonly Promise<void>[]) => {
    const times: number[] = [];
    const timed = requests.map(async (request, i) => {
      await request;
      times[i] = rig.clock.now();
    });
    await rig.clock.runUntil(settleAll(timed));
    return times;
  };
  return { ...rig, group, disks, disk: disks[0]!, timesOf };
}

describe("the rate of a throttle group", () => {
  it("lets a tenth of a second's worth through at once, then keeps to the mean", async () => {
    const t = await throttled({ "bps-total": 1000 });
    const requests = Array.from({ length: 6 }, (_, i) => t.disk.write(filled(100, 1), i * 100));
    // A bucket of 100 bytes: the second one finds it full to the brim, which is not too full.
    expect(await t.timesOf(requests)).toEqual([0, 0, 100, 200, 300, 400]);
  });

  it("allows a burst for its length, at its rate, and then the mean", async () => {
    const t = await throttled({
      "bps-total": 1000,
      "bps-total-max": 10_000,
      "bps-total-max-length": 2,
    });
    const requests = Array.from({ length: 40 }, (_, i) => t.disk.write(filled(1000, 1), i * 1000));
    const times = await t.timesOf(requests);
    // At 10 000 a second while the bucket of 20 000 fills, at 1000 a second above it.
    expect(times.slice(0, 5).map(Math.round)).toEqual([0, 0, 100, 200, 300]);
    const gaps = times.slice(1).map((time, i) => Math.round(time - times[i]!));
    expect(new Set(gaps.slice(1, 20))).toEqual(new Set([100]));
    expect(new Set(gaps.slice(25))).toEqual(new Set([1000]));
  });

  it("with a max and no length lets max bytes through, then keeps to the mean", async () => {
    const t = await throttled({ "bps-write": 1000, "bps-write-max": 3000 });
    const requests = Array.from({ length: 6 }, (_, i) => t.disk.write(filled(1000, 1), i * 1000));
    expect(await t.timesOf(requests)).toEqual([0, 0, 0, 0, 1000, 2000]);
  });

  it("counts a long request as several when iops-size says so", async () => {
    const t = await throttled({ "iops-total": 10, "iops-size": 4096 });
    const sizes = [4096, 16 * KiB, 4096, 4096];
    const requests = sizes.map((bytes) => t.disk.read(new Uint8Array(bytes), 0));
    expect(await t.timesOf(requests)).toEqual([0, 0, 400, 500]);
  });

  it("limits reads and writes on their own, zero writes and discards as writes", async () => {
    const t = await throttled({ "iops-write": 10 });
    const requests = [
      t.disk.write(filled(1, 1), 0),
      t.disk.writeZeroes(0, MiB),
      t.disk.discard(0, MiB),
      t.disk.read(new Uint8Array(1), 0),
      t.disk.flush(),
    ];
    expect(await t.timesOf(requests)).toEqual([0, 0, 100, 0, 0]);
    expect(t.heard()).toContain("zero 0+1048576"); // In one piece.
  });

  it("never lets more through than mean, bucket and one request allow, and not much less", async () => {
    for (let seed = 1; seed <= 12; seed++) {
      const random = seededRandom(seed);
      const mean = 1000 + random.below(1_000_000);
      const max = random.below(2) * mean * (1 + random.below(5));
      const t = await throttled({ "bps-total": mean, ...(max > 0 && { "bps-total-max": max }) });
      const sizes = Array.from({ length: 60 }, () => 1 + random.below(mean / 5));
      const times = await t.timesOf(sizes.map((bytes) => t.disk.read(new Uint8Array(bytes), 0)));
      const bucket = max || mean / 10;
      const most = Math.max(...sizes);
      for (let from = 0; from < sizes.length; from++) {
        let bytes = 0;
        for (let to = from; to < sizes.length; to++) {
          bytes += sizes[to]!;
          const allowed = bucket + most + (mean * (times[to]! - times[from]!)) / 1000;
          expect(bytes, `seed ${seed}, ${from} to ${to}`).toBeLessThanOrEqual(allowed + 1e-3);
        }
      }
      const all = sizes.reduce((sum, bytes) => sum + bytes);
      expect(times.at(-1), `seed ${seed}`).toBeLessThanOrEqual((all / mean) * 1000);
    }
  });
});

it.skipIf(!hasQemu)("compressed writes wait as others do, where the node has them", async () => {
  const rig = await filterRig();
  rig.graph.throttleGroups.add("g", { "iops-write": 10 });
  const filename = join(folder, "packed.qcow2");
  runWell("qemu-img", ["create", "-q", "-f", "qcow2", filename, "1M"]);
  const qcow2 = { driver: "qcow2", file: { driver: "file", filename } };
  const file = { driver: "copy-on-read", file: qcow2 };
  const raw = { driver: "memory", size: 65536 };
  const results = [];
  for (const below of [qcow2, file, raw]) {
    const disk = await rig.open({ driver: "throttle", "throttle-group": "g", file: below });
    const packed = () => outcome(disk.writeCompressed(filled(65536, 1), 0));
    const start = rig.clock.now();
    results.push(await rig.clock.runUntil(Promise.all([packed(), packed(), packed()])));
    results.push(rig.clock.now() - start);
    await rig.close(disk);
    await rig.clock.advance(1000);
  }
  expect(results).toEqual([
    ...[["ok", "ok", "ok"], 100, ["ok", "ok", "ok"], 100],
    ...[["ENOTSUP", "ENOTSUP", "ENOTSUP"], 0],
  ]);
});

describe("a throttle group", () => {
  it("shares its limit among its nodes, turn by turn", async () => {
    const t = await throttled({ "iops-total": 10 }, ["a", "b", "c"]);
    const order: string[] = [];
    const requests = [0, 0, 0, 0, 1, 1, 2].map(async (i) => {
      await t.disks[i]!.read(new Uint8Array(1), 0);
      order.push("abc"[i]!);
    });
    await t.clock.runUntil(settleAll(requests));
    expect(order.join("")).toBe("aabcaba");
    expect(t.clock.now()).toBe(500);
  });

  it("is left by a node that is closed, and only then can be removed", async () => {
    const t = await throttled({ "iops-total": 10 }, ["a", "b"]);
    const remove = () => t.graph.throttleGroups.remove("g");
    await t.close(t.disks[0]!);
    expect(remove).toThrow("in use");
    await t.close(t.disks[1]!);
    remove();
    expect(remove).toThrow("no object 'g'");
  });

  it("takes new limits while requests wait, and empties its buckets", async () => {
    const t = await throttled({ "bps-total": 1 });
    await t.disk.write(filled(1000, 1), 0);
    const waiting = t.disk.write(filled(1000, 1), 0);
    await t.clock.advance(10_000);
    t.group.setLimits({ "bps-total": 1000 });
    const [now] = await t.timesOf([waiting]);
    expect(now).toBe(10_000);
    expect(() => t.group.setLimits({ "bps-read": 5 })).toThrow("exclude each other");
    expect(t.group.limits).toEqual({ "bps-total": 1000 });
  });

  it("passes over a cancelled request, which is not charged", async () => {
    const t = await throttled({ "bps-total": 1000 });
    await t.disk.write(filled(200, 1), 0);
    const stop = new AbortController();
    const cancelled = outcome(t.disk.write(filled(100_000, 1), 0, { signal: stop.signal }));
    const next = t.disk.write(filled(10, 1), 0);
    await t.clock.advance(50);
    stop.abort();
    expect(await t.clock.runUntil(cancelled)).toBe("ECANCELED");
    expect(await t.timesOf([next])).toEqual([100]);
    expect(t.clock.timerCount).toBe(0);
    expect(t.heard()).toEqual(["write 0+200", "write 0+10"]);
  });

  it("sets no timer for nobody", async () => {
    const t = await throttled({ "bps-total": 1000 });
    await t.disk.write(filled(200, 1), 0);
    const stop = new AbortController();
    const cancelled = outcome(t.disk.write(filled(1, 1), 0, { signal: stop.signal }));
    await t.clock.advance(1);
    expect(t.clock.timerCount).toBe(1);
    stop.abort();
    expect(await cancelled).toBe("ECANCELED");
    expect(t.clock.timerCount).toBe(0);
  });

  it("cannot have limits that make no sense", async () => {
    const { graph } = await filterRig();
    const wrong: [ThrottleLimits, string][] = [
      [{ "iops-total": 1, "iops-write": 1 }, "exclude each other"],
      [{ "bps-total": 9, "bps-total-max": 10, "bps-read-max": 1 }, "exclude each other"],
      [{ "bps-read-max": 10 }, "'bps-read-max' needs 'bps-read'"],
      [{ "bps-read": 10, "bps-read-max": 9 }, "cannot be lower"],
      [{ "bps-read": 10, "bps-read-max-length": 2 }, "needs 'bps-read-max'"],
      [{ "bps-read": 10, "bps-read-max-length": 0 }, "cannot be 0"],
      [{ "bps-read": 2e15 }, "at most"],
      [{ "bps-read": 1, "bps-read-max": 1e15, "bps-read-max-length": 2 }, "too long"],
      [{ "iops-size": 4096, "bps-total": 1 }, "needs an iops limit"],
    ];
    for (const [limits, text] of wrong) {
      expect(() => graph.throttleGroups.add("g", limits), JSON.stringify(limits)).toThrow(text);
    }
    graph.throttleGroups.add("g", {});
  });
});

describe("a drain", () => {
  it("lets all requests of a throttled node through, without time passing", async () => {
    const t = await throttled({ "bps-total": 1 });
    const requests = [1, 2, 3].map((i) => t.disk.write(filled(1000, i), i * 1000));
    await t.clock.advance(0);
    expect(t.heard()).toHaveLength(1);
    await t.graph.drained([t.graph.get("a")], () => {
      expect(t.heard()).toHaveLength(2);
    });
    await settleAll(requests);
    expect(t.clock.now()).toBe(0);
    const after = outcome(t.disk.write(filled(1, 1), 0)); // They were charged.
    await t.clock.advance(2_998_000);
    expect(t.heard()).toEqual([]);
    await t.clock.advance(10_000);
    expect(t.heard()).toHaveLength(1);
    expect(await after).toBe("ok");
  });

  it("lets through what comes while it waits: the other parts of a request", async () => {
    const rig = await filterRig();
    rig.graph.throttleGroups.add("g", { "iops-total": 1 });
    const file = { driver: "spy", size: MiB };
    const throttle = { driver: "throttle", "throttle-group": "g", file };
    const disk = await rig.open({ driver: "blkdebug", "max-transfer": 512, image: throttle });
    const write = disk.write(filled(2048, 1), 0);
    await rig.clock.advance(0);
    expect(rig.heard()).toHaveLength(1);
    await rig.graph.drained([disk.node], () => {});
    await write;
    expect(rig.clock.now()).toBe(0);
    expect(rig.heard()).toHaveLength(3);
  });

  it("lets them through below the drained node, too, and when a device is closed", async () => {
    for (const how of ["drain", "close"] as const) {
      const rig = await filterRig();
      rig.graph.throttleGroups.add("g", { "iops-total": 1 });
      const file = { driver: "memory", size: MiB };
      const disk = await rig.open({
        driver: "raw",
        file: { driver: "throttle", "throttle-group": "g", file },
      });
      const requests = [0, 1, 2, 3].map((i) => disk.write(filled(1, i), i));
      await rig.clock.advance(0);
      if (how === "drain") await rig.graph.drained([disk.node], () => {});
      else await rig.graph.closeBackend(disk);
      await settleAll(requests);
      expect(rig.clock.now()).toBe(0);
    }
  });
});
