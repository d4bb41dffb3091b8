/** What every node takes, whatever its driver. */

import { describe, expect, it } from "vitest";
import { KiB } from "../../src/base/bytes.ts";
import { Graph } from "../../src/block/graph.ts";
import type { BlockdevOptions } from "../../src/block/options.ts";
import { Perm } from "../../src/block/permissions.ts";
import { rawDriver } from "../../src/drivers/format/raw.ts";
import { blobDriver } from "../../src/drivers/protocol/blob.ts";
import { contentOf, filled, filterRig } from "../drivers/filter/rig.ts";
import { testWorld } from "../world.ts";

const SIZE = 256 * KiB;

async function disk(options: object, file: object = {}) {
  const rig = await filterRig();
  const store: BlockdevOptions = { driver: "spy", size: SIZE, ...file };
  return { ...rig, disk: await rig.open({ driver: "raw", file: store, ...options }) };
}

describe("detect-zeroes", () => {
  it("makes zero writes of writes of zeroes, which may unmap if it says so", async () => {
    const settings = [
      [{}, "write 0+4096"],
      [{ "detect-zeroes": "off" }, "write 0+4096"],
      [{ "detect-zeroes": "on" }, "zero 0+4096"],
      [{ "detect-zeroes": "unmap", discard: "unmap" }, "zero 0+4096 unmap"],
    ] as const;
    for (const [options, heard] of settings) {
      const t = await disk(options);
      await t.disk.write(filled(4096, 0), 0);
      expect(t.heard(), JSON.stringify(options)).toEqual([heard]);
    }
  });

  it("looks at every byte, and leaves what is not zero alone", async () => {
    const t = await disk({ "detect-zeroes": "on" });
    await t.disk.write(filled(SIZE, 9), 0);
    const buf = filled(70_001, 0);
    buf[70_000] = 1;
    await t.disk.write(buf, 3);
    await t.disk.write(buf.subarray(0, 70_000), 100_003);
    expect(t.heard()).toEqual(["write 0+262144", "write 3+70001", "zero 100003+70000"]);
    const content = await contentOf(t.disk);
    expect([content[2], content[3], content[70_003], content[70_004]]).toEqual([9, 0, 1, 9]);
    expect([content[100_002], content[100_003], content[170_002], content[170_003]]).toEqual([
      ...[9, 0, 0, 9],
    ]);
  });

  it("works above filters that do not care", async () => {
    const rig = await filterRig();
    const file = { driver: "spy", size: SIZE };
    const top = await rig.open({ driver: "copy-on-read", file, "detect-zeroes": "on" });
    await top.write(filled(512, 0), 0);
    expect(rig.heard()).toEqual(["zero 0+512"]);
  });

  it("can be unmap only where discards are passed on, as in QEMU", async () => {
    for (const discard of [{}, { discard: "ignore" }]) {
      const refused = disk({ "detect-zeroes": "unmap", ...discard });
      await expect(refused).rejects.toThrow("together with 'discard': 'unmap'");
    }
  });
});

describe("discard", () => {
  it("passes discards and freeing zero writes on, unless it is ignore", async () => {
    for (const [discard, heard] of [
      [undefined, ["discard 0+65536", "zero 0+4096 unmap", "zero 0+512"]],
      ["unmap", ["discard 0+65536", "zero 0+4096 unmap", "zero 0+512"]],
      ["ignore", ["zero 0+4096", "zero 0+512"]],
    ] as const) {
      const t = await disk(discard === undefined ? {} : { discard });
      await t.disk.discard(0, 65536);
      await t.disk.writeZeroes(0, 4096, { mayUnmap: true });
      await t.disk.writeZeroes(0, 512);
      expect(t.heard(), discard).toEqual(heard);
    }
  });

  it("is each node's own: a store can ignore what its format passes on", async () => {
    const t = await disk({}, { discard: "ignore" });
    await t.disk.discard(0, 65536);
    expect(t.heard()).toEqual([]);
  });
});

describe("cache", () => {
  it("is handed down to what is opened with a node, unless that says otherwise", async () => {
    const cache = { direct: true, "no-flush": true };
    const shown = async (file: object) => {
      const t = await disk({ cache }, { "node-name": "store", ...file });
      const { direct, noFlush } = t.graph.get("store").settings;
      return { direct, noFlush };
    };
    expect(await shown({})).toEqual({ direct: true, noFlush: true });
    expect(await shown({ cache: { direct: false } })).toEqual({ direct: false, noFlush: true });
    await expect(disk({ cache: { writeback: true } })).rejects.toThrow("is unexpected");
  });

  it("no-flush keeps flushes from the store", async () => {
    for (const [cache, heard] of [
      [{}, ["flush 0+0"]],
      [{ "no-flush": true }, []],
    ] as const) {
      const t = await disk({ cache });
      await t.disk.flush();
      expect(t.heard()).toEqual(heard);
    }
  });
});

describe("auto-read-only", () => {
  const open = async (options: object, file: object) => {
    const { graph } = await blobRig();
    await graph.add({
      driver: "raw",
      "node-name": "disk",
      file: { driver: "blob", name: "b", ...file },
      ...options,
    });
    return graph.get("disk").children.get("file")!.node.readOnly;
  };

  it("opens a store that cannot be written for reading, also if only its user says so", async () => {
    expect(await open({ "read-only": true }, { "auto-read-only": true, "read-only": false })).toBe(
      true,
    );
    const said = { "read-only": true, "auto-read-only": true };
    expect(await open(said, { "read-only": false })).toBe(true);
    const refused = open({ "read-only": true }, { "read-only": false });
    await expect(refused).rejects.toThrow("cannot be written");
  });

  it("does not hide other failures", async () => {
    const missing = open({}, { name: "nope", "auto-read-only": true });
    await expect(missing).rejects.toMatchObject({ errno: "ENOENT" });
  });
});

describe("force-share", () => {
  it("lets others write to what is only read here", async () => {
    const rig = await filterRig();
    const store = { driver: "spy", size: SIZE, "node-name": "store" };
    const reader = { driver: "raw", file: "store", offset: 512, "read-only": true };
    await rig.graph.add({ ...store, "read-only": true, "force-share": true });
    await rig.graph.add({ ...reader, "node-name": "a" });
    const edge = rig.graph.get("a").children.get("file")!;
    expect(edge.permissions.share).toBe(Perm.all);
    const refused = rig.graph.add({ ...store, "node-name": "s", "force-share": true });
    await expect(refused).rejects.toThrow("'force-share' needs 'read-only': true");
  });
});

async function blobRig() {
  const drivers = [blobDriver(new Map([["b", new Blob(["bytes"])]])), rawDriver()];
  return { graph: new Graph(await testWorld(), drivers as never) };
}
