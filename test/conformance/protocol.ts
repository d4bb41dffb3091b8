/**
 * The promises of src/block/driver.ts as tests, for the drivers that keep bytes: one suite, every
 * store (unstorage's testDriver). A driver's own test file says how to make a store and what it can
 * do, and adds what is special.
 */

import { afterEach, describe, expect, it } from "vitest";
import { SystemClock } from "../../src/base/clock.ts";
import { BlockError } from "../../src/base/errors.ts";
import { type Random, seededRandom } from "../../src/base/random.ts";
import type { BlockState, World } from "../../src/block/driver.ts";

/** One store, which outlives the states that are opened on it. */
export interface Store {
  open(readOnly: boolean): Promise<BlockState>;
  /** Deletes it; everything has been closed. */
  remove?(): Promise<void>;
}

export interface Abilities {
  /** False for stores that somebody else fills. */
  readonly writable: boolean;
  /** Holes are known as such: storeStatus() says zero for them. */
  readonly knowsHoles?: boolean;
  /** Two states may be open on it at once, if both only read. */
  readonly sharedReaders?: boolean;
  /** Who writes keeps all others away. */
  readonly exclusiveWriters?: boolean;
  /** Highest offset to try; small where a store pays for holes. */
  readonly far: number;
}

/** The world as the engine has it, but for kernels: no store needs one. */
export function storeWorld(seed = 1): World {
  return {
    clock: new SystemClock(),
    random: seededRandom(seed),
    trace: {},
    get kernel(): never {
      throw new Error("a protocol driver uses no kernel");
    },
  };
}

/** A few bytes that are nowhere alike. */
export function noise(bytes: number, seed = 7): Uint8Array<ArrayBuffer> {
  const buf = new Uint8Array(bytes);
  seededRandom(seed).fill(buf);
  return buf;
}

/** Fails unless the promise is rejected with this errno. @returns the error, for its text */
export async function failure(promise: Promise<unknown>, errno: string): Promise<BlockError> {
  const error = await promise.then(
    () => expect.fail(`expected ${errno}, but it went well`),
    (reason: unknown) => reason,
  );
  if (!(error instanceof BlockError)) throw error;
  expect(`${error.errno}: ${error.message}`).toMatch(new RegExp(`^${errno}:`));
  return error;
}

export async function readAll(state: BlockState, offset: number, bytes: number) {
  const buf = new Uint8Array(bytes).fill(0xee);
  await state.pread!(buf, offset, {});
  return buf;
}

/** Byte by byte, but quick, and saying where. */
export function expectBytes(actual: Uint8Array, expected: Uint8Array, what = ""): void {
  expect(actual.length, `${what} length`).toBe(expected.length);
  const at = actual.findIndex((byte, i) => byte !== expected[i]);
  if (at >= 0) {
    expect.fail(`${what} byte ${at} is ${actual[at]} and should be ${expected[at]}`);
  }
}

const CHUNK = 65536;

/**
 * @param make a store that holds these bytes, closed; a new one for each call
 */
export function describeProtocol(
  name: string,
  abilities: Abilities,
  make: (content: Uint8Array) => Promise<Store>,
): void {
  const opened = new Set<BlockState>();
  const stores = new Set<Store>();

  afterEach(async () => {
    for (const state of opened) await state.close?.();
    opened.clear();
    for (const store of stores) await store.remove?.();
    stores.clear();
  });

  async function made(content: Uint8Array): Promise<Store> {
    const store = await make(content);
    stores.add(store);
    return store;
  }

  async function open(store: Store, readOnly = !abilities.writable): Promise<BlockState> {
    const state = await store.open(readOnly);
    opened.add(state);
    return state;
  }

  async function close(state: BlockState): Promise<void> {
    opened.delete(state);
    await state.close?.();
  }

  describe(`${name} as a store`, () => {
    it("has its bytes, at any offset and length", async () => {
      const content = noise(3 * CHUNK + 77);
      const state = await open(await made(content), true);
      expect(state.getLength?.()).toBe(content.length);
      for (const [offset, bytes] of [
        [0, content.length],
        [0, 1],
        [content.length - 1, 1],
        [CHUNK - 1, 2],
        [CHUNK, CHUNK],
        [513, 2 * CHUNK],
        [2 * CHUNK + 5, CHUNK + 72],
      ] as const) {
        const wanted = content.subarray(offset, offset + bytes);
        expectBytes(await readAll(state, offset, bytes), wanted, `${offset}+${bytes}:`);
      }
    });

    it("states its limits", async () => {
      const state = await open(await made(noise(10)));
      expect(state.limits).toEqual({
        requestAlignment: 1,
        clusterSize: 0,
        growable: abilities.writable,
      });
    });

    it("touches nothing beside the asked bytes of a buffer", async () => {
      const content = noise(2000);
      const state = await open(await made(content), true);
      const arena = new Uint8Array(1200).fill(0xaa);
      await state.pread!(arena.subarray(100, 1100), 300, {});
      expectBytes(arena.subarray(100, 1100), content.subarray(300, 1300));
      expect(arena.subarray(0, 100).every((byte) => byte === 0xaa)).toBe(true);
      expect(arena.subarray(1100).every((byte) => byte === 0xaa)).toBe(true);
    });

    it("reads into views of wasm memory", async () => {
      const content = noise(2 * CHUNK);
      const state = await open(await made(content), true);
      const memory = new WebAssembly.Memory({ initial: 4 });
      const view = new Uint8Array(memory.buffer, 1003, CHUNK + 11);
      await state.pread!(view, 17, {});
      expectBytes(view, content.subarray(17, 17 + CHUNK + 11));
    });

    it("serves many requests at once", async () => {
      const content = noise(20 * CHUNK);
      const state = await open(await made(content), true);
      const random = seededRandom(5);
      await Promise.all(
        Array.from({ length: 40 }, async () => {
          const offset = random.below(content.length - 1);
          const bytes = 1 + random.below(Math.min(3 * CHUNK, content.length - offset));
          expectBytes(
            await readAll(state, offset, bytes),
            content.subarray(offset, offset + bytes),
          );
        }),
      );
    });

    it("does not begin what has been called off", async () => {
      const state = await open(await made(noise(1000)));
      const signal = AbortSignal.abort();
      await failure(state.pread!(new Uint8Array(10), 0, { signal }), "ECANCELED");
    });

    it("ends a request that is called off half way", async () => {
      const content = noise(64 * CHUNK);
      const state = await open(await made(content), true);
      const controller = new AbortController();
      const buf = new Uint8Array(content.length);
      const read = state.pread!(buf, 0, { signal: controller.signal });
      controller.abort();
      const end = await read.then(
        () => "done",
        (error: BlockError) => error.errno,
      );
      expect(["done", "ECANCELED"]).toContain(end);
      expectBytes(await readAll(state, 5, 100), content.subarray(5, 105));
    });

    it("reports runs that cover the store, and no data as zero", async () => {
      const content = noise(9 * CHUNK + 5);
      content.fill(0, CHUNK + 3, 5 * CHUNK);
      const state = await open(await made(content), true);
      await checkStatus(state, content);
    });

    if (abilities.sharedReaders) {
      it("lets two read at once", async () => {
        const content = noise(1000);
        const store = await made(content);
        const [one, other] = [await open(store, true), await open(store, true)];
        expectBytes(await readAll(one, 0, 1000), content);
        expectBytes(await readAll(other, 0, 1000), content);
      });
    }

    it("is there again after close", async () => {
      const content = noise(CHUNK + 9);
      const store = await made(content);
      for (let i = 0; i < 3; i++) {
        const state = await open(store);
        expectBytes(await readAll(state, 0, content.length), content);
        await close(state);
      }
    });

    it("stays as it is when it is reopened as it is", async () => {
      const state = await open(await made(noise(1000)), true);
      await state.reopen!(true);
      expectBytes(await readAll(state, 0, 1000), noise(1000));
    });

    if (!abilities.writable) {
      it("cannot be reopened for writing, and is still there", async () => {
        const state = await open(await made(noise(1000)), true);
        await failure(state.reopen!(false), "EROFS");
        expectBytes(await readAll(state, 0, 1000), noise(1000));
      });
    }

    if (abilities.writable) describeWriting();
  });

  function describeWriting(): void {
    it("has after close and open what was written before", async () => {
      const store = await made(noise(CHUNK));
      const state = await open(store);
      const content = noise(5 * CHUNK + 3, 11);
      await state.pwrite!(content, 0, {});
      await close(state);
      const again = await open(store, true);
      expect(again.getLength?.()).toBe(content.length);
      expectBytes(await readAll(again, 0, content.length), content);
    });

    it("has after flush what another reader sees", async () => {
      const store = await made(new Uint8Array(100));
      const state = await open(store);
      await state.pwrite!(noise(100), 0, {});
      await state.flush?.();
      await state.flush?.();
      await close(state);
      expectBytes(await readAll(await open(store, true), 0, 100), noise(100));
    });

    it("can be reopened for writing and back, at any time", async () => {
      const model = noise(2 * CHUNK);
      const store = await made(model);
      const state = await open(store, true);
      for (let round = 0; round < 3; round++) {
        await state.reopen!(false);
        const piece = noise(5000, round);
        const offset = CHUNK - 3000 + round * 2500;
        await state.pwrite!(piece, offset, {});
        model.set(piece, offset);
        await state.reopen!(true);
        expectBytes(await readAll(state, 0, model.length), model, `round ${round}:`);
      }
      await state.reopen!(false);
      await state.truncate!(CHUNK + 7);
      await state.reopen!(true);
      expect(state.getLength?.()).toBe(CHUNK + 7);
      await close(state);
      const again = await open(store, true);
      expectBytes(await readAll(again, 0, CHUNK + 7), model.subarray(0, CHUNK + 7), "at the end:");
    });

    if (abilities.sharedReaders) {
      it("lets others read what it no longer writes", async () => {
        const store = await made(noise(1000));
        const state = await open(store);
        await state.pwrite!(noise(100, 2), 450, {});
        await state.reopen!(true);
        const other = await open(store, true);
        const model = noise(1000);
        model.set(noise(100, 2), 450);
        expectBytes(await readAll(other, 0, 1000), model);
        expectBytes(await readAll(state, 0, 1000), model);
      });
    }

    if (abilities.exclusiveWriters) {
      it("is not reopened for writing while another reads, and can be afterwards", async () => {
        const store = await made(noise(1000));
        const [state, other] = [await open(store, true), await open(store, true)];
        await failure(state.reopen!(false), "EBUSY");
        expectBytes(await readAll(state, 0, 1000), noise(1000));
        await close(other);
        await state.reopen!(false);
        await state.pwrite!(noise(100, 2), 0, {});
        await failure(store.open(true), "EBUSY");
      });
    }

    it("grows by a write past the end, with zeroes in the gap", async () => {
      const content = noise(1000);
      const store = await made(content);
      const state = await open(store);
      await state.pwrite!(noise(50, 2), 3 * CHUNK + 7, {});
      const model = new Uint8Array(3 * CHUNK + 57);
      model.set(content);
      model.set(noise(50, 2), 3 * CHUNK + 7);
      expect(state.getLength?.()).toBe(model.length);
      expectBytes(await readAll(state, 0, model.length), model);
      await close(state);
      expectBytes(await readAll(await open(store), 0, model.length), model);
    });

    for (const length of [0, 1, 1000, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 500]) {
      it(`shows nothing old after truncate to ${length} and back`, async () => {
        const content = noise(3 * CHUNK);
        const store = await made(content);
        const state = await open(store);
        // Some of it only just written, some of it from before.
        await state.pwrite!(content.subarray(0, CHUNK + 700), 0, {});
        await state.truncate!(length);
        expect(state.getLength?.()).toBe(length);
        await state.truncate!(content.length + 5);
        const model = new Uint8Array(content.length + 5);
        model.set(content.subarray(0, length));
        expectBytes(await readAll(state, 0, model.length), model);
        await checkStatus(state, model);
        await close(state);
        expectBytes(await readAll(await open(store), 0, model.length), model, "reopened:");
      });
    }

    it("shows nothing old after truncate and a write past the new end", async () => {
      const state = await open(await made(noise(2 * CHUNK)));
      await state.truncate!(100);
      await state.pwrite!(noise(10, 3), CHUNK + 100, {});
      const model = new Uint8Array(CHUNK + 110);
      model.set(noise(2 * CHUNK).subarray(0, 100));
      model.set(noise(10, 3), CHUNK + 100);
      expectBytes(await readAll(state, 0, model.length), model);
    });

    it("writes from views of wasm memory, and keeps no hold of them", async () => {
      const state = await open(await made(new Uint8Array(0)));
      const memory = new WebAssembly.Memory({ initial: 4 });
      const view = new Uint8Array(memory.buffer, 77, 2 * CHUNK + 13);
      view.set(noise(view.length));
      await state.pwrite!(view, 5, {});
      view.fill(0xff);
      const model = new Uint8Array(5 + view.length);
      model.set(noise(view.length), 5);
      expectBytes(await readAll(state, 0, model.length), model);
    });

    it("writes neighbours at once, even within one granule of the store", async () => {
      const content = noise(4 * CHUNK, 4);
      const state = await open(await made(noise(4 * CHUNK)));
      const piece = 4096 + 512;
      const writes = [];
      for (let at = 0; at < content.length; at += piece) {
        writes.push(state.pwrite!(content.slice(at, at + piece), at, {}));
      }
      await Promise.all(writes);
      expectBytes(await readAll(state, 0, content.length), content);
    });

    it("reads beside a write that is under way", async () => {
      const content = noise(4 * CHUNK);
      const state = await open(await made(content));
      for (let i = 0; i < 10; i++) {
        const write = state.pwrite!(noise(1000, i), CHUNK + 100, {});
        const before = await readAll(state, CHUNK - 50, 150);
        expectBytes(before, content.subarray(CHUNK - 50, CHUNK + 100));
        await write;
        expectBytes(await readAll(state, CHUNK + 100, 1000), noise(1000, i));
      }
    });

    it("leaves the store alone if a write was called off before", async () => {
      const content = noise(1000);
      const state = await open(await made(content));
      const signal = AbortSignal.abort();
      await failure(state.pwrite!(new Uint8Array(2000), 0, { signal }), "ECANCELED");
      expect(state.getLength?.()).toBe(1000);
      expectBytes(await readAll(state, 0, 1000), content);
    });

    it("holds bytes beyond 4 GiB apart from those below", async () => {
      const state = await open(await made(noise(1000)));
      const { far } = abilities;
      const spots = [100, 2 ** 31 + 100, 2 ** 32 + 100, far - 1000].filter((at) => at < far);
      for (const [i, at] of spots.entries()) await state.pwrite!(noise(1000, 20 + i), at, {});
      expect(state.getLength?.()).toBe(Math.max(...spots) + 1000);
      for (const [i, at] of spots.entries()) {
        expectBytes(await readAll(state, at, 1000), noise(1000, 20 + i), `at ${at}:`);
      }
      if (far > 2 ** 32) {
        expectBytes(await readAll(state, 2 ** 32 + 1100, 500), new Uint8Array(500));
      }
    });

    it("lets zeroes be written, or says that it has no cheap way", async () => {
      const model = noise(6 * CHUNK);
      const state = await open(await made(model));
      for (const [offset, bytes] of [
        [10, 20],
        [CHUNK, CHUNK],
        [2 * CHUNK - 5, 2 * CHUNK + 10],
        [6 * CHUNK - 1, 1],
      ] as const) {
        if (await zeroed(state, offset, bytes)) model.fill(0, offset, offset + bytes);
        expectBytes(await readAll(state, 0, model.length), model, `${offset}+${bytes}:`);
      }
      await checkStatus(state, model);
    });

    it("keeps the bytes beside a discard", async () => {
      const content = noise(4 * CHUNK);
      const state = await open(await made(content));
      await state.pdiscard?.(100, 3 * CHUNK, {});
      expectBytes(await readAll(state, 0, 100), content.subarray(0, 100));
      const rest = content.subarray(3 * CHUNK + 100);
      expectBytes(await readAll(state, 3 * CHUNK + 100, rest.length), rest);
    });

    if (abilities.knowsHoles) {
      it("knows its holes", async () => {
        const state = await open(await made(new Uint8Array(0)));
        await state.truncate!(100 * CHUNK);
        await state.pwrite!(noise(10), 40 * CHUNK + 5, {});
        const runs = [];
        for (let at = 0; at < 100 * CHUNK; ) {
          const { bytes, zero } = await state.storeStatus!(at, 100 * CHUNK - at);
          runs.push([at / CHUNK, bytes / CHUNK, zero]);
          at += bytes;
        }
        expect(runs).toEqual([
          [0, 40, true],
          [40, 1, false],
          [41, 59, true],
        ]);
      });
    }

    it("keeps what is written far behind the end while zeroes are written nearer by", async () => {
      for (let round = 0; round < 20; round++) {
        const state = await open(await made(new Uint8Array(0)));
        const data = noise(CHUNK, round);
        await Promise.all([state.pwrite!(data, 3 * CHUNK, {}), zeroed(state, 1000, 3000)]);
        expect(state.getLength?.()).toBe(4 * CHUNK);
        expectBytes(await readAll(state, 3 * CHUNK, CHUNK), data, `round ${round}:`);
        expectBytes(await readAll(state, 0, CHUNK), new Uint8Array(CHUNK), `round ${round}:`);
        await close(state);
      }
    });

    it.each([1, 2, 3, 4])("equals a plain array after random requests, seed %i", async (seed) => {
      const store = await made(noise(50_000, seed));
      await playRandomly(store, noise(50_000, seed), seededRandom(seed));
    });
  }

  /** Random requests to the store and to an array; compares all that is read, and all at the end. */
  async function playRandomly(store: Store, start: Uint8Array, random: Random): Promise<void> {
    const model = new Uint8Array(12 * CHUNK);
    model.set(start);
    let length = start.length;
    let state = await open(store);
    for (let step = 0; step < 150; step++) {
      const offset = random.below(length + 1);
      const most = random.below(4) === 0 ? 3 * CHUNK : 5000;
      const bytes = 1 + random.below(most);
      const end = offset + bytes;
      const what = `step ${step}, ${offset}+${bytes}:`;
      switch (random.below(8)) {
        case 0:
        case 1:
        case 2: {
          if (end > model.length) break;
          const data = noise(bytes, random.below(1000));
          await state.pwrite!(data, offset, {});
          model.set(data, offset);
          length = Math.max(length, end);
          break;
        }
        case 3:
          if (end <= length && (await zeroed(state, offset, bytes))) model.fill(0, offset, end);
          break;
        case 4:
          if (end <= length) {
            expectBytes(await readAll(state, offset, bytes), model.subarray(offset, end), what);
          }
          break;
        case 5: {
          if (random.below(3) > 0) break;
          const target = random.below(model.length);
          await state.truncate!(target);
          model.fill(0, Math.min(target, length));
          length = target;
          break;
        }
        case 6:
          await state.flush?.();
          break;
        case 7:
          if (random.below(4) > 0) break;
          await close(state);
          state = await open(store);
      }
      expect(state.getLength?.(), what).toBe(length);
    }
    if (length === 0) return;
    expectBytes(await readAll(state, 0, length), model.subarray(0, length), "at the end:");
    await checkStatus(state, model.subarray(0, length));
    await close(state);
    state = await open(store);
    expectBytes(await readAll(state, 0, length), model.subarray(0, length), "reopened:");
  }
}

/** False if the store has no cheap way to write zeroes. */
async function zeroed(state: BlockState, offset: number, bytes: number): Promise<boolean> {
  try {
    if (!state.pwriteZeroes) return false;
    await state.pwriteZeroes(offset, bytes, {});
    return true;
  } catch (error) {
    if (error instanceof BlockError && error.errno === "ENOTSUP") return false;
    throw error;
  }
}

/** Walks storeStatus() over the store: each run has bytes, and what is called zero is. */
async function checkStatus(state: BlockState, content: Uint8Array): Promise<void> {
  if (!state.storeStatus) return;
  for (let at = 0; at < content.length; ) {
    const { bytes, zero } = await state.storeStatus(at, content.length - at);
    expect(bytes).toBeGreaterThan(0);
    expect(at + bytes).toBeLessThanOrEqual(content.length);
    if (zero) {
      const data = content.subarray(at, at + bytes).findIndex((byte) => byte !== 0);
      if (data >= 0) expect.fail(`byte ${at + data} is in a run that is called zero`);
    }
    at += bytes;
  }
}

/** A store that a driver makes empty, then filled through the driver itself. */
export async function filled(store: Store, content: Uint8Array): Promise<Store> {
  const state = await store.open(false);
  if (content.length > 0) await state.pwrite!(content, 0, {});
  await state.close?.();
  return store;
}
