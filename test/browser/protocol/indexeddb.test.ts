import { beforeAll, describe, expect, it } from "vitest";
import { commands } from "vitest/browser";
import { MiB } from "../../../src/base/bytes.ts";
import type { BlockState } from "../../../src/block/driver.ts";
import {
  indexeddbDriver,
  listIndexeddb,
  removeIndexeddb,
} from "../../../src/drivers/protocol/indexeddb.ts";
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

const CHUNK = 65536;
const ABILITIES = {
  writable: true,
  knowsHoles: true,
  sharedReaders: true,
  exclusiveWriters: true,
  far: 2 ** 45,
};

const world = storeWorld();
const driver = indexeddbDriver();
const drivers = startWorker();
let count = 0;

// The profile outlives a run, and so does what a run that was killed has left.
beforeAll(async () => {
  for (const name of await listIndexeddb()) await removeIndexeddb(name);
});

async function made(size: number): Promise<string> {
  const name = `test ${++count}`;
  await driver.create!({ world, options: { name, size } });
  return name;
}

function opened(name: string, readOnly = false): Promise<BlockState> {
  return driver.open({ world, options: { name }, nodeName: "n", readOnly, children: {} });
}

describeProtocol("indexeddb in the page", ABILITIES, async (content) => {
  const name = await made(0);
  const open = (readOnly: boolean) => opened(name, readOnly);
  return filled({ open, remove: () => removeIndexeddb(name) }, content);
});

describeProtocol("indexeddb in a worker", ABILITIES, async (content) => {
  const name = await made(0);
  const open = (readOnly: boolean) => drivers.open("indexeddb", { name }, readOnly);
  return filled({ open, remove: () => removeIndexeddb(name) }, content);
});

describe("indexeddbDriver", () => {
  it("does not make an image by opening it", async () => {
    await failure(opened("none"), "ENOENT");
    await failure(removeIndexeddb("none"), "ENOENT");
    expect(await listIndexeddb()).toEqual([]);
  });

  it("stores what is not zero, and deletes what has become zero", async () => {
    const name = await made(2 ** 40);
    const state = await opened(name);
    await state.pwrite?.(noise(10), 5 * CHUNK, {});
    await state.pwrite?.(new Uint8Array(4 * MiB), 2 ** 39, {});
    await state.pwrite?.(noise(3 * CHUNK), 100 * CHUNK, {});
    await state.flush?.();
    expect(await keysOf(name)).toEqual([5, 100, 101, 102, "header"]);
    await state.pwrite?.(new Uint8Array(CHUNK), 101 * CHUNK, {});
    await state.pwriteZeroes?.(5 * CHUNK, 10, {});
    await state.flush?.();
    expect(await keysOf(name)).toEqual([100, 102, "header"]);
    await state.pwriteZeroes?.(0, 2 ** 40, {});
    expect(await keysOf(name)).toEqual(["header"]);
    await state.close?.();
    await removeIndexeddb(name);
  });

  it("frees the whole chunks of a discard", async () => {
    const name = await made(0);
    const state = await opened(name);
    await state.pwrite?.(noise(4 * CHUNK), 0, {});
    await state.flush?.();
    await state.pdiscard?.(1, 3 * CHUNK, {});
    expect(await keysOf(name)).toEqual([0, 3, "header"]);
    await state.close?.();
    await removeIndexeddb(name);
  });

  it("is on disk after flush, whatever happens to its worker then", async () => {
    const name = await made(0);
    const doomed = startWorker();
    const state = await doomed.open("indexeddb", { name }, false);
    await state.pwrite?.(noise(5 * MiB), 100, {});
    await state.flush?.();
    await state.pwrite?.(noise(10, 9), 0, {});
    doomed.terminate();
    const again = await opened(name);
    expect(again.getLength?.()).toBe(5 * MiB + 100);
    expectBytes(await readAll(again, 100, 5 * MiB), noise(5 * MiB));
    await again.close?.();
    await removeIndexeddb(name);
  });

  it("keeps what is written to a chunk while its transaction is under way", async () => {
    const name = await made(0);
    const state = await opened(name);
    const model = noise(2 * MiB);
    for (let round = 0; round < 5; round++) {
      // Enough to start a transaction in the background, which this does not wait for.
      await state.pwrite?.(model, 0, {});
      model.set(noise(1000, round), round * 3 * CHUNK + 50);
      await state.pwrite?.(noise(1000, round), round * 3 * CHUNK + 50, {});
      await state.flush?.();
      expectBytes(await readAll(state, 0, model.length), model, `round ${round}:`);
    }
    await state.close?.();
    const again = await opened(name, true);
    expectBytes(await readAll(again, 0, model.length), model, "reopened:");
    await again.close?.();
    await removeIndexeddb(name);
  });

  it("writes long runs without keeping them in memory", async () => {
    const name = await made(0);
    const state = await opened(name);
    for (let i = 0; i < 24; i++) await state.pwrite?.(noise(MiB, i), i * MiB, {});
    // No flush has been asked for: all but what the cache may hold must be out.
    expect((await keysOf(name)).length).toBeGreaterThan((24 * MiB - 5 * MiB) / CHUNK);
    for (let i = 0; i < 24; i++) expectBytes(await readAll(state, i * MiB, MiB), noise(MiB, i));
    await state.close?.();
    await removeIndexeddb(name);
  });

  it("is open for one writer at a time, and says what to do", async () => {
    const name = await made(5);
    const state = await opened(name);
    const { message } = await failure(opened(name), "EBUSY");
    expect(message).toContain("close the other tab");
    await failure(drivers.open("indexeddb", { name }, true), "EBUSY");
    await failure(driver.create!({ world, options: { name, size: 0 } }), "EBUSY");
    await failure(removeIndexeddb(name), "EBUSY");
    await state.close?.();
    await (await drivers.open("indexeddb", { name }, false)).close?.();
    await removeIndexeddb(name);
  });

  it("waits for a moment for one who is about to close", async () => {
    const name = await made(5);
    const state = await opened(name);
    const next = drivers.open("indexeddb", { name }, false);
    await new Promise((resolve) => setTimeout(resolve, 300));
    await state.close?.();
    await (await next).close?.();
    await removeIndexeddb(name);
  });

  it("refuses a format that it does not know, and a chunk that is none", async () => {
    const name = await made(3 * CHUNK);
    await tamper(name, (store) => store.put(new Uint8Array(5), 1));
    const state = await opened(name);
    const { message } = await failure(readAll(state, 0, 3 * CHUNK), "EIO");
    expect(message).toContain("Chunk 1");
    await failure(state.pwrite!(noise(5), CHUNK, {}), "EIO");
    // The rest can be used.
    await state.pwrite?.(noise(5), 2 * CHUNK, {});
    expectBytes(await readAll(state, 2 * CHUNK, 5), noise(5));
    await state.close?.();
    await tamper(name, (store) => store.put({ format: 2, length: 5, "chunk-size": 9 }, "header"));
    await failure(opened(name), "EINVAL");
    await removeIndexeddb(name);
  });

  it("fails, and does not start over, when the browser has dropped the database", async () => {
    const name = await made(0);
    const state = await opened(name);
    await state.pwrite?.(noise(CHUNK), 0, {});
    await state.flush?.();
    await commands.clearIndexeddb();
    await failure(readAll(state, 0, CHUNK), "EIO");
    await failure(state.pwriteZeroes!(0, CHUNK, {}), "EIO");
    await state.close?.();
    await failure(opened(name), "ENOENT");
  });
});

/** What is in the database, seen from beside. */
function keysOf(name: string): Promise<IDBValidKey[]> {
  return beside(name, "readonly", (store) => store.getAllKeys());
}

function tamper(name: string, change: (store: IDBObjectStore) => IDBRequest): Promise<unknown> {
  return beside(name, "readwrite", change);
}

function beside<T>(
  name: string,
  mode: IDBTransactionMode,
  ask: (store: IDBObjectStore) => IDBRequest<T>,
): Promise<T> {
  return new Promise((resolve, reject) => {
    const open = indexedDB.open(`blocktab:${name}`);
    open.onerror = () => reject(open.error);
    open.onsuccess = () => {
      const transaction = open.result.transaction("chunks", mode);
      const request = ask(transaction.objectStore("chunks"));
      transaction.oncomplete = () => {
        open.result.close();
        resolve(request.result);
      };
      transaction.onabort = () => reject(transaction.error);
    };
  });
}
