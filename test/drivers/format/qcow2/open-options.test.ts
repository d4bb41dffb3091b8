/** What blockdev-add takes for qcow2 beside the nodes that it stands on. */

import { describe, expect, it } from "vitest";
import { KiB } from "../../../../src/base/bytes.ts";
import type { Layout } from "../../../../src/drivers/format/qcow2/layout.ts";
import {
  cacheBytesOf,
  checkOpenOptions,
  type OpenOptions,
} from "../../../../src/drivers/format/qcow2/open-options.ts";
import { filled, filterRig } from "../../filter/rig.ts";

const layout = { clusterBytes: 64 * KiB } as Layout;

describe("cache sizes", () => {
  it("are one number, or the sum of two", () => {
    expect(cacheBytesOf({})).toBe(32 * 1024 * KiB);
    expect(cacheBytesOf({ "cache-size": 5 })).toBe(5);
    expect(cacheBytesOf({ "l2-cache-size": 5, "refcount-cache-size": 7 })).toBe(12);
    expect(cacheBytesOf({ "cache-size": 9, "l2-cache-size": 5 })).toBe(9);
  });

  it("are refused by name where they contradict each other", () => {
    const all = { "cache-size": 9, "l2-cache-size": 5, "refcount-cache-size": 2 };
    expect(() => cacheBytesOf(all)).toThrow("cannot be given together");
    for (const part of ["l2-cache-size", "refcount-cache-size"]) {
      expect(() => cacheBytesOf({ "cache-size": 9, [part]: 10 })).toThrow(`'${part}'`);
    }
    for (const bytes of [0, 100, 513, 128 * KiB]) {
      const options = { "l2-cache-entry-size": bytes };
      expect(() => checkOpenOptions(options, 3, layout)).toThrow("'l2-cache-entry-size'");
    }
    checkOpenOptions({ "l2-cache-entry-size": 512 }, 3, layout);
  });
});

it("refuses in version 2 what version 3 has", () => {
  for (const member of ["lazy-refcounts", "discard-no-unref"]) {
    const options: OpenOptions = { [member]: true };
    expect(() => checkOpenOptions(options, 2, layout)).toThrow(`'${member}' needs`);
    checkOpenOptions({ [member]: false }, 2, layout);
    checkOpenOptions(options, 3, layout);
  }
});

describe("discard-no-unref", () => {
  it("keeps the clusters of what is discarded: the disk written again does not grow the file", async () => {
    for (const [keeps, grown] of [
      [true, false],
      [false, true],
    ] as const) {
      const rig = await filterRig();
      await rig.graph.add({ driver: "spy", size: 0, "node-name": "file" });
      const file = rig.graph.get("file");
      const maker = rig.device("file", "maker");
      maker.edge.permissions = { take: 15, share: 15 };
      await rig.graph.driver("qcow2").create!({
        world: rig.world,
        options: { size: 1024 * KiB } as never,
        file: maker.edge,
      });
      await rig.graph.closeBackend(maker);
      const disk = await rig.open({ driver: "qcow2", file: "file", "discard-no-unref": keeps });
      await disk.write(filled(64 * KiB, 1), 0);
      await disk.discard(0, 64 * KiB);
      const buf = filled(64 * KiB, 9);
      await disk.read(buf, 0);
      expect(buf.every((byte) => byte === 0)).toBe(true);
      await disk.flush();
      // Somebody else takes what has been freed.
      await disk.write(filled(64 * KiB, 2), 512 * KiB);
      await disk.flush();
      const before = file.state.getLength!();
      await disk.write(filled(64 * KiB, 3), 0);
      expect(file.state.getLength!() > before, `discard-no-unref: ${keeps}`).toBe(grown);
    }
  });
});
