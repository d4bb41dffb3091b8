/** What happens in a mirror's last drained section, and right after it. */

import { expect, it } from "vitest";
import { KiB, MiB } from "../../src/base/bytes.ts";
import { verbs } from "../../src/job/verbs.ts";
import { mirrorRig, pattern } from "./mirror-rig.ts";

it("keeps to its speed in the end, also where whole clusters have to be copied", async () => {
  const SIZE = 16 * MiB;
  const speed = 64 * KiB;
  const t = await mirrorRig({
    size: SIZE,
    images: [
      [
        { driver: "target-store", name: "copy" },
        { size: SIZE, "backing-file": "base", "backing-fmt": "qcow2", "cluster-size": 256 * KiB },
      ],
    ],
    target: { driver: "qcow2", file: { driver: "target-store", name: "copy" }, backing: null },
  });
  await t.fill(t.disk);
  const job = await t.start({ sync: "none", speed, granularity: 4 * KiB });
  await t.ready(job);
  for (let at = 0; at < SIZE; at += 256 * KiB) {
    await t.clock.runUntil(t.disk.write(pattern(at, 4 * KiB, 2), at));
  }
  t.targetStore.log.length = 0;
  await verbs.complete(job);
  await t.end(job);
  expect(job.error).toBe(null);
  const writes = t.targetStore.log.filter(({ op, bytes }) => op === "write" && bytes >= 4 * KiB);
  expect(writes.reduce((sum, { bytes }) => sum + bytes, 0)).toBeGreaterThanOrEqual(SIZE);
  for (const { atMs } of writes) {
    const inWindow = writes.filter((other) => other.atMs >= atMs && other.atMs < atMs + 1000);
    const bytes = inWindow.reduce((sum, other) => sum + other.bytes, 0);
    // And some of qcow2's own.
    expect(bytes, `from ${atMs} ms on`).toBeLessThanOrEqual(speed + MiB + 512 * KiB);
  }
});

it("has succeeded when the target is in place, whatever the old disk says when it is closed", async () => {
  const t = await mirrorRig({
    size: MiB,
    images: [[{ driver: "source-store", name: "old" }, { size: MiB }]],
  });
  // Its users': with the last of them it is closed.
  const old = await t.graph.addForUsers({
    driver: "qcow2",
    "node-name": "old",
    file: { driver: "source-store", name: "old" },
  });
  const disk = t.open("old", "vdb");
  await t.fill(disk);
  const job = await t.start({ device: "vdb" });
  await t.ready(job);
  t.sourceStore.fault = { op: "write", errno: "EIO" };
  await verbs.complete(job);
  await t.end(job);
  expect(job.error).toBe(null);
  expect(disk.node.name).toBe("target");
  expect(t.graph.nodes).not.toContain(old);
  expect(t.story()).toMatch(/ERROR\(write,report\) .*COMPLETED concluded null$/);
  expect(t.bugs).toEqual([]);
});
