import { beforeAll, describe, expect, it } from "vitest";
import { GiB, KiB } from "../../src/base/bytes.ts";
import { BlockError } from "../../src/base/errors.ts";
import { type BitmapUse, DirtyBitmap, type DirtyBitmapInit } from "../../src/block/dirty-bitmap.ts";
import type { World } from "../../src/block/driver.ts";
import { eachSeed, pick, range } from "../kernel/chance.ts";
import { testWorld } from "../world.ts";

let world: World;
beforeAll(async () => {
  world = await testWorld();
});

function bitmap(more: Partial<DirtyBitmapInit> & { readOnly?: boolean } = {}): DirtyBitmap {
  const { readOnly = false, ...init } = more;
  return new DirtyBitmap({
    node: { name: "top", readOnly, world },
    name: "b0",
    granularity: 512,
    size: 10_000,
    enabled: true,
    ...init,
  });
}

/** Dirty areas, as "offset+bytes …". */
function areas(map: DirtyBitmap, maxBytes = Number.MAX_SAFE_INTEGER): string {
  const found: string[] = [];
  for (let at = 0; at < map.size; ) {
    const area = map.nextDirtyArea(at, map.size, maxBytes);
    if (!area) break;
    found.push(`${area.offset}+${area.bytes}`);
    at = area.offset + area.bytes;
  }
  return found.join(" ");
}

describe("a dirty bitmap", () => {
  it("rounds what is set outward, and cuts it at the end of the disk", () => {
    const map = bitmap();
    map.set(511, 2);
    map.set(9999, 5000);
    map.set(20_000, 1);
    map.set(3000, 0);
    expect(areas(map)).toBe("0+1024 9728+272");
    expect(map.count).toBe(3 * 512);
    expect([map.isDirty(1023), map.isDirty(1024)]).toEqual([true, false]);
  });

  it("is reset in whole granules or up to the end, and in no other way", () => {
    const map = bitmap();
    map.setAll();
    expect(map.count).toBe(20 * 512);
    map.reset(512, 512);
    map.reset(9728, 272);
    expect(areas(map)).toBe("0+512 1024+8704");
    map.setAll();
    map.reset(9728, 512);
    expect(map.count).toBe(19 * 512);
    expect(() => map.reset(1, 511)).toThrow("whole granules");
    expect(() => map.reset(512, 100)).toThrow("granules");
    map.clear();
    expect(map.nextDirty(0)).toBe(null);
  });

  it("finds the first dirty and clean byte from anywhere", () => {
    const map = bitmap();
    map.set(1024, 1024);
    expect(map.nextDirty(0)).toBe(1024);
    expect(map.nextDirty(1500)).toBe(1500);
    expect(map.nextDirty(2048)).toBe(null);
    expect(map.nextDirty(0, 1024)).toBe(null);
    expect(map.nextDirty(0, 1025)).toBe(1024);
    expect(map.nextClear(0)).toBe(0);
    expect(map.nextClear(1500)).toBe(2048);
    expect(map.nextClear(1500, 2048)).toBe(null);
    expect(map.nextDirtyArea(1100, 10_000, 100)).toEqual({ offset: 1100, bytes: 100 });
    expect(map.nextDirtyArea(1100, 1150, 100)).toEqual({ offset: 1100, bytes: 50 });
    expect(map.status(0, 5000)).toEqual({ bytes: 1024, dirty: false });
    expect(map.status(1100, 5000)).toEqual({ bytes: 948, dirty: true });
    expect(map.status(1100, 10)).toEqual({ bytes: 10, dirty: true });
  });

  it("covers a larger disk from then on, clean, and forgets what a smaller one has lost", () => {
    const map = bitmap();
    map.set(9999, 1);
    map.truncate(20_000);
    expect(areas(map)).toBe("9728+512");
    map.record(19_999, 1);
    map.truncate(9800);
    map.truncate(20_000);
    expect(areas(map)).toBe("9728+512");
    map.truncate(9728);
    expect(map.count).toBe(0);
  });

  it("takes over what is dirty in one of another granularity, rounded outward", () => {
    const coarse = bitmap({ granularity: 4096 });
    const fine = bitmap();
    fine.set(4095, 1);
    fine.set(9999, 1);
    coarse.merge(fine);
    expect(areas(coarse)).toBe("0+4096 8192+1808");
    fine.merge(coarse);
    expect(areas(fine)).toBe("0+4096 8192+1808");
    fine.merge(fine);
    expect(areas(fine)).toBe("0+4096 8192+1808");
    expect(() => fine.merge(bitmap({ size: 10_001 }))).toThrow("one size");
  });

  it("goes back to a snapshot, more than once", () => {
    const map = bitmap();
    map.set(0, 1);
    const before = map.snapshot();
    for (let i = 0; i < 2; i++) {
      map.setAll();
      map.restore(before);
      expect(areas(map)).toBe("0+512");
    }
  });

  it("agrees with a plain list of granules", () => {
    eachSeed(60, (random) => {
      const size = 1 + random.below(pick(random, [3000, 1_000_000, 300_000_000]));
      const granularity = 512 * 2 ** random.below(5) * (size > 1_000_000 ? 8 : 1);
      const map = bitmap({ size, granularity });
      const model = new Array<boolean>(Math.ceil(size / granularity)).fill(false);
      const granules = (start: number, count: number) =>
        [Math.floor(start / granularity), Math.ceil((start + count) / granularity)] as const;
      for (let step = 0; step < 30; step++) {
        const { start, count } = range(random, size);
        const [first, last] = granules(start, count);
        if (random.below(3) > 0) {
          map.record(start, count);
          if (count > 0) model.fill(true, first, last);
        } else {
          const offset = first * granularity;
          map.reset(offset, Math.min(size, last * granularity) - offset);
          model.fill(false, first, last);
        }
        expect(map.count).toBe(model.filter((dirty) => dirty).length * granularity);
        const asked = range(random, size);
        const end = asked.start + asked.count;
        const find = (value: boolean) => {
          const [from, to] = granules(asked.start, asked.count);
          const at = asked.count === 0 ? -1 : model.slice(0, to).indexOf(value, from);
          return at < 0 ? null : Math.max(asked.start, at * granularity);
        };
        expect(map.nextDirty(asked.start, end)).toBe(find(true));
        expect(map.nextClear(asked.start, end)).toBe(find(false));
      }
    });
  });
});

describe("what may be done to a bitmap", () => {
  const USES: BitmapUse[] = [
    "remove",
    "clear",
    "enable",
    "merge-target",
    "merge-source",
    "backup",
    "backup-never",
    "export",
  ];
  // From left to right: usable, busy, read-only, inconsistent. "x" is refused.
  const TABLE: Record<BitmapUse, string> = {
    remove: ". x x .",
    clear: ". x x x",
    enable: ". x . x",
    "merge-target": ". x x x",
    "merge-source": ". x . x",
    backup: ". x x x",
    "backup-never": ". x . x",
    export: ". x . x",
  };
  const states = () => {
    const busy = bitmap();
    busy.setBusy(true);
    return [
      bitmap(),
      busy,
      bitmap({ persistent: true, readOnly: true }),
      bitmap({ persistent: true, inconsistent: true, enabled: false }),
    ];
  };

  it.each(USES)("%s is refused as the table has it", (use) => {
    const row = states().map((map) => (refusal(map, use) ? "x" : "."));
    expect(row.join(" ")).toBe(TABLE[use]);
  });

  it("is said with the node, the bitmap, and the reason", () => {
    const [, busy, readOnly, inconsistent] = states();
    const texts = [busy!, readOnly!, inconsistent!].map((map) => refusal(map, "clear"));
    expect(texts).toEqual([
      "EBUSY: Bitmap 'b0' of node 'top' is busy: something else is using it",
      "EROFS: Bitmap 'b0' of node 'top' is read-only: its image is not open for writing",
      "EINVAL: Bitmap 'b0' of node 'top' is inconsistent: it was not saved when its image was last " +
        "closed; it can only be removed",
    ]);
  });

  it("is not less on a read-only node if the bitmap is not kept in the image", () => {
    expect(refusal(bitmap({ readOnly: true }), "clear")).toBe(null);
  });

  function refusal(map: DirtyBitmap, use: BitmapUse): string | null {
    try {
      map.checkUsable(use);
      return null;
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
      return `${error.errno}: ${error.message}`;
    }
  }
});

describe("a successor", () => {
  const frozen = (enabled = true) => {
    const map = bitmap({ enabled });
    map.set(0, 512);
    map.createSuccessor();
    return map;
  };

  it("records what is written while the bitmap itself stands still", () => {
    const map = frozen();
    map.record(2048, 1);
    expect([areas(map), areas(map.successor!)]).toEqual(["0+512", "2048+512"]);
    expect([map.busy, map.enabled, map.recording]).toEqual([true, false, true]);
    expect([map.successor!.name, map.successor!.granularity]).toEqual([null, 512]);
  });

  it("takes the bitmap's place when that has been used", () => {
    const map = frozen();
    map.record(2048, 1);
    map.abdicate();
    expect([areas(map), map.busy, map.enabled, map.successor]).toEqual([
      "2048+512",
      false,
      true,
      null,
    ]);
  });

  it("is merged back when that has not been used", () => {
    const map = frozen();
    map.record(2048, 1);
    map.reclaim();
    expect([areas(map), map.busy, map.enabled]).toEqual(["0+512 2048+512", false, true]);
  });

  it.each(["abdicate", "reclaim"] as const)("of one that was disabled leaves it so: %s", (end) => {
    const map = frozen(false);
    map.record(2048, 1);
    expect(map.recording).toBe(false);
    map[end]();
    expect([areas(map), map.enabled]).toEqual([end === "reclaim" ? "0+512" : "", false]);
  });

  it("is resized with the bitmap", () => {
    const map = frozen();
    map.truncate(20 * GiB);
    map.record(20 * GiB - 1, 1);
    map.reclaim();
    expect(areas(map)).toBe(`0+512 ${20 * GiB - 512}+512`);
  });

  it("is there once, and ends once", () => {
    const map = frozen();
    expect(() => map.createSuccessor()).toThrow("only one");
    expect(() => map.setBusy(false)).toThrow("with a successor");
    map.reclaim();
    expect(() => map.abdicate()).toThrow("has a successor");
  });
});

it("A bitmap of a disk of 2^53 bytes is marked, searched and merged without memory for all of it", () => {
  const size = 2 ** 53 - 1;
  const map = bitmap({ size });
  const coarse = bitmap({ size, granularity: 64 * KiB });
  map.setAll();
  map.reset(2 ** 50, 512);
  coarse.merge(map);
  expect(map.nextClear(0)).toBe(2 ** 50);
  expect(coarse.nextClear(0)).toBe(null);
});
