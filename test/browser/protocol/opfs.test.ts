import * as v from "valibot";
import { beforeAll, describe, expect, it } from "vitest";
import { commands } from "vitest/browser";
import { MiB } from "../../../src/base/bytes.ts";
import { check } from "../../../src/base/check.ts";
import { listOpfs, opfsDriver, opfsFile, removeOpfs } from "../../../src/drivers/protocol/opfs.ts";
import {
  describeProtocol,
  expectBytes,
  failure,
  filled,
  noise,
  readAll,
  storeWorld,
} from "../../conformance/protocol.ts";
import { startWorker } from "./drivers.ts";

const drivers = startWorker();
let count = 0;

// The profile outlives a run, and so does what a run that was killed has left.
beforeAll(async () => {
  for (const { filename } of await listOpfs()) await removeOpfs(filename);
});

async function made(size: number): Promise<string> {
  const filename = `test-${++count}.img`;
  await drivers.create("opfs", { filename, size });
  return filename;
}

describeProtocol(
  "opfs",
  { writable: true, sharedReaders: true, exclusiveWriters: true, far: 40 * 2 ** 30 },
  async (content) => {
    const filename = await made(0);
    const open = (readOnly: boolean) => drivers.open("opfs", { filename }, readOnly);
    return filled({ open, remove: () => removeOpfs(filename) }, content);
  },
);

describe("opfsDriver", () => {
  it("says where it would work, when it is not in a dedicated worker", async () => {
    const filename = await made(5);
    const here = opfsDriver().open({
      world: storeWorld(),
      options: { filename },
      nodeName: "n",
      readOnly: true,
      children: {},
    });
    expect((await failure(here, "ENOTSUP")).message).toContain("dedicated workers");
    await removeOpfs(filename);
  });

  it("does not make a file by opening it", async () => {
    await failure(drivers.open("opfs", { filename: "none" }, false), "ENOENT");
    expect(await listOpfs()).toEqual([]);
  });

  it("takes only names that every system takes", () => {
    const schema = v.strictObject(opfsDriver().openOptions);
    for (const filename of ["a", "disk-1.qcow2", "_x.RAW", "9", "x".repeat(200)]) {
      expect(check(schema, { filename })).toEqual({ filename });
    }
    for (const filename of ["", ".a", "a/b", "..", "a b", "ä", "a\n", "a:b", "x".repeat(201)]) {
      expect(() => check(schema, { filename }), filename).toThrow("Parameter 'filename' expects");
    }
  });

  it("is open for one writer at a time, and says what to do", async () => {
    const filename = await made(5);
    const state = await drivers.open("opfs", { filename }, false);
    const other = startWorker();
    const { message } = await failure(other.open("opfs", { filename }, false), "EBUSY");
    expect(message).toContain("close the other tab");
    await failure(other.open("opfs", { filename }, true), "EBUSY");
    await failure(other.create("opfs", { filename, size: 0 }), "EBUSY");
    await failure(removeOpfs(filename), "EBUSY");
    await state.close?.();
    await (await other.open("opfs", { filename }, false)).close?.();
    other.terminate();
    await removeOpfs(filename);
  });

  it("waits for a moment for one who is about to close", async () => {
    const filename = await made(5);
    const state = await drivers.open("opfs", { filename }, false);
    const other = startWorker();
    const next = other.open("opfs", { filename }, false);
    await new Promise((resolve) => setTimeout(resolve, 300));
    await state.close?.();
    await (await next).close?.();
    other.terminate();
    await removeOpfs(filename);
  });

  it("has what was written before its worker was killed", async () => {
    const filename = await made(0);
    const doomed = startWorker();
    const state = await doomed.open("opfs", { filename }, false);
    await state.pwrite?.(noise(300_000), 0, {});
    doomed.terminate();
    const again = await drivers.open("opfs", { filename }, false);
    expectBytes(await readAll(again, 0, 300_000), noise(300_000));
    await again.close?.();
    await removeOpfs(filename);
  });

  it("empties what was there when it creates", async () => {
    const filename = await made(0);
    const store = { open: (readOnly: boolean) => drivers.open("opfs", { filename }, readOnly) };
    await filled(store, noise(5000));
    await drivers.create("opfs", { filename, size: 3000 });
    const state = await store.open(true);
    expect(state.getLength?.()).toBe(3000);
    expectBytes(await readAll(state, 0, 3000), new Uint8Array(3000));
    await state.close?.();
    await removeOpfs(filename);
  });

  it("lists and deletes its files, and hands them out", async () => {
    const [one, other] = [await made(7), await made(9)];
    expect(await listOpfs()).toEqual([
      { filename: one, size: 7 },
      { filename: other, size: 9 },
    ]);
    expect((await opfsFile(other)).size).toBe(9);
    await removeOpfs(one);
    await removeOpfs(other);
    expect(await listOpfs()).toEqual([]);
    await failure(removeOpfs(one), "ENOENT");
    await failure(opfsFile(one), "ENOENT");
  });

  it("lists what there is while files go", async () => {
    for (let round = 0; round < 5; round++) {
      const names = await Promise.all(Array.from({ length: 12 }, () => made(1)));
      const listings = names.map(async (name) => {
        const [listed] = await Promise.all([listOpfs(), removeOpfs(name)]);
        return listed.every(({ size }) => size === 1);
      });
      expect(await Promise.all(listings)).not.toContain(false);
    }
    expect(await listOpfs()).toEqual([]);
  });

  it("fails with ENOSPC at the quota, keeps what it has, and goes on when there is room", async () => {
    const filename = await made(0);
    const state = await drivers.open("opfs", { filename }, false);
    await state.pwrite?.(noise(MiB), 0, {});
    const { usage = 0 } = await navigator.storage.estimate();
    await commands.overrideQuota(usage + 8 * MiB);
    try {
      await failure(state.truncate!(64 * MiB), "ENOSPC");
      expect(state.getLength?.()).toBe(MiB);
      await failure(state.pwriteZeroes!(MiB, 64 * MiB, {}), "ENOSPC");
      let length = MiB;
      const full = (async () => {
        for (; length < 64 * MiB; length += MiB) await state.pwrite?.(noise(MiB), length, {});
      })();
      await failure(full, "ENOSPC");
      expect(length).toBeGreaterThan(MiB);
      expectBytes(await readAll(state, 0, MiB), noise(MiB));
      await state.pwrite?.(noise(1000, 3), 0, {});
      await failure(drivers.create("opfs", { filename: "big", size: 64 * MiB }), "ENOSPC");
    } finally {
      await commands.overrideQuota(null);
    }
    await state.truncate?.(64 * MiB);
    await state.close?.();
    await removeOpfs(filename);
    await removeOpfs("big");
  });
});
