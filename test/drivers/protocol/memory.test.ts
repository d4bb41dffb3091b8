import { describe, expect, it } from "vitest";
import { type MemoryStore, memoryDriver } from "../../../src/drivers/protocol/memory.ts";
import {
  describeProtocol,
  failure,
  filled,
  noise,
  storeWorld,
} from "../../conformance/protocol.ts";

const world = storeWorld();

describeProtocol(
  "memory",
  { writable: true, knowsHoles: true, sharedReaders: true, far: 2 ** 52 },
  async (content) => {
    const driver = memoryDriver();
    await driver.create!({ world, options: { name: "disk", size: 0 } });
    const open = (readOnly: boolean) =>
      driver.open({ world, options: { name: "disk" }, nodeName: "n", readOnly, children: {} });
    return filled({ open }, content);
  },
);

describe("memoryDriver", () => {
  function opened(stores: Map<string, MemoryStore>, options: { name?: string; size?: number }) {
    const driver = memoryDriver(stores);
    return driver.open({ world, options, nodeName: "n", readOnly: false, children: {} });
  }

  it("makes a store of its own for a node without a name", async () => {
    const state = await opened(new Map(), { size: 8 * 2 ** 40 });
    expect(state.getLength?.()).toBe(8 * 2 ** 40);
    expect(await state.storeStatus?.(0, 8 * 2 ** 40)).toEqual({ bytes: 8 * 2 ** 40, zero: true });
  });

  it("does not make a named store by opening it", async () => {
    await failure(opened(new Map(), { name: "none" }), "ENOENT");
  });

  it("refuses a size next to a name", async () => {
    await failure(opened(new Map(), { name: "a", size: 5 }), "EINVAL");
  });

  it("does not replace a store that is in use, but one that is not", async () => {
    const stores = new Map<string, MemoryStore>();
    const create = () => memoryDriver(stores).create!({ world, options: { name: "a", size: 9 } });
    await create();
    const state = await opened(stores, { name: "a" });
    await state.pwrite?.(noise(9), 0, {});
    await failure(create(), "EBUSY");
    await state.close?.();
    await create();
    expect(stores.get("a")?.pages.size).toBe(0);
  });

  it("costs what is used, not what is long, when zeroes are written", async () => {
    const stores = new Map<string, MemoryStore>();
    await memoryDriver(stores).create!({ world, options: { name: "a", size: 8 * 2 ** 40 } });
    const state = await opened(stores, { name: "a" });
    await state.pwrite?.(noise(200_000), 2 ** 40 + 7, {});
    await state.pwriteZeroes?.(0, 8 * 2 ** 40, {});
    expect(stores.get("a")?.pages.size).toBe(0);
  });
});
