/** Records in slots of one file: the store's suite, and machines that stop amid a save. */

import { describe, expect, it } from "vitest";
import { BlockError } from "../../../src/base/errors.ts";
import { Mutex } from "../../../src/base/mutex.ts";
import { type Random, seededRandom } from "../../../src/base/random.ts";
import { MemoryState, MemoryStore } from "../../../src/drivers/protocol/memory.ts";
import { emptyRecord, type JournalRecord } from "../../../src/engine/journal/record.ts";
import { type SlotFile, SlotStore } from "../../../src/engine/journal/slot-store.ts";
import { journalSuite } from "../../conformance/journal.ts";

const SEED = 1;
const SECTOR = 512;
const ROOM_BYTES = 65_536;

/** Opened by one at a time. */
class OneFile {
  readonly turns = new Mutex();
  readonly store = new MemoryStore();

  open = (): Promise<SlotFile> =>
    new Promise((resolve) => {
      const opened = (letGo: () => void) => {
        const state = new MemoryState(this.store);
        resolve(Object.assign(state, { close: async () => letGo() }));
      };
      void this.turns.run(() => new Promise<void>(opened));
    });
}

journalSuite("slots of a file", async () => {
  const file = new OneFile();
  return { open: () => new SlotStore(file.open), end: async () => {} };
});

/** A disk that may lose what was not flushed, sector by sector. */
class Disk {
  /** As it would be after a crash that loses all that it may lose. */
  #durable = new Uint8Array(0);
  #now = new Uint8Array(0);
  /** Called after each step that a crash may follow. */
  onStep: () => Promise<void> = async () => {};
  /** No file can grow. */
  isFull = false;
  /** So many flushes fail from now on. */
  badFlushes = 0;

  open = async (): Promise<SlotFile> => ({
    getLength: () => this.#now.length,
    pread: async (buf, offset) => buf.set(this.#now.subarray(offset, offset + buf.length)),
    pwrite: async (buf, offset) => {
      if (this.isFull && offset + buf.length > this.#now.length) {
        throw new BlockError("ENOSPC", "no space left");
      }
      const longer = new Uint8Array(Math.max(this.#now.length, offset + buf.length));
      longer.set(this.#now);
      longer.set(buf, offset);
      this.#now = longer;
      await this.onStep();
    },
    truncate: async (length) => {
      if (this.isFull) throw new BlockError("ENOSPC", "no space left");
      const other = new Uint8Array(length);
      other.set(this.#now.subarray(0, length));
      this.#now = other;
      await this.onStep();
    },
    flush: async () => {
      if (this.badFlushes-- > 0) throw new BlockError("EIO", "not flushed");
      this.#durable = this.#now.slice();
      await this.onStep();
    },
    close: async () => {},
  });

  /** @returns what a crash now might leave */
  crashed(random: Random): Uint8Array {
    const length = random.below(2) === 0 ? this.#now.length : this.#durable.length;
    const left = this.#now.slice(0, length);
    for (let at = 0; at < length; at += SECTOR) {
      if (random.below(2) === 0) continue;
      left.fill(0, at, at + SECTOR);
      left.set(this.#durable.subarray(at, Math.min(at + SECTOR, length)), at);
    }
    return left;
  }
}

function fileOf(bytes: Uint8Array): () => Promise<SlotFile> {
  return async () => {
    const state = new MemoryState(new MemoryStore());
    if (bytes.length > 0) await state.pwrite(bytes, 0);
    return state as SlotFile;
  };
}

describe("a record in slots of a file", () => {
  it("is the old one or the new one after a crash at any step, and the new one when it is saved", async () => {
    const random = seededRandom(SEED);
    const disk = new Disk();
    let store = new SlotStore(disk.open);
    let possible: unknown[] = [undefined];
    let count = 0;
    disk.onStep = async () => {
      for (let times = 0; times < 4; times++) {
        const left = new SlotStore(fileOf(disk.crashed(random)));
        expect(possible, `seed ${SEED}, step ${count}`).toContainEqual(await left.load());
        count++;
      }
    };
    for (let seq = 1; seq <= 200; seq++) {
      const filling = { id: "x".repeat(random.below(seq % 9 === 0 ? 20_000 : 3000)), kind: "?" };
      const broken = [{ kind: "record", name: "", why: "", entry: filling }] as const;
      const record: JournalRecord = { ...emptyRecord(1), seq, broken };
      possible.push(record);
      // As a kill before the flush, too: the machine may stop before another engine has flushed it.
      if (random.below(4) === 0) {
        disk.badFlushes = 1;
        await expect(store.save(record)).rejects.toMatchObject({ errno: "EIO" });
      } else {
        await store.save(record);
        possible = [record];
      }
      disk.badFlushes = 0;
      await disk.onStep();
      if (random.below(3) === 0) store = new SlotStore(disk.open);
    }
  });

  it("is told as damaged where there is something else", async () => {
    for (const length of [1, 511, 1024, 5000]) {
      expect(await new SlotStore(fileOf(new Uint8Array(length).fill(7))).load()).toBeNull();
      expect(await new SlotStore(fileOf(new Uint8Array(length))).load()).toBeUndefined();
    }
  });

  it("takes four times the room of its longest, and one step of room", async () => {
    const file = new OneFile();
    const store = new SlotStore(file.open);
    const random = seededRandom(SEED);
    let longest = 0;
    for (let seq = 1; seq <= 500; seq++) {
      const why = "y".repeat(random.below(5000));
      const record = {
        ...emptyRecord(1),
        seq,
        broken: [{ kind: "record", name: "", why, entry: 0 }],
      };
      longest = Math.max(longest, JSON.stringify(record).length);
      await store.save(record as JournalRecord);
      expect(file.store.length).toBeLessThanOrEqual(1024 + 4 * longest + ROOM_BYTES);
    }
  });

  const long = (seq: number, bytes: number): JournalRecord => {
    const broken = [{ kind: "record", name: "", why: "z".repeat(bytes), entry: 0 }] as const;
    return { ...emptyRecord(1), seq, broken };
  };

  it("can be saved where the disk is full, for as long as it is not much longer than before", async () => {
    const disk = new Disk();
    const store = new SlotStore(disk.open);
    await store.save(long(0, 40_000));
    disk.isFull = true;
    for (let seq = 1; seq <= 50; seq++) {
      await store.save(long(seq, 40_000 + 400 * seq));
      expect(await store.load()).toEqual(long(seq, 40_000 + 400 * seq));
    }
  });

  it("stays what it was where there is no room for a new one", async () => {
    const disk = new Disk();
    const store = new SlotStore(disk.open);
    await store.save(emptyRecord(1));
    disk.isFull = true;
    await expect(store.save(long(1, 100_000))).rejects.toMatchObject({ errno: "ENOSPC" });
    expect(await store.load()).toEqual(emptyRecord(1));
    disk.isFull = false;
    await store.save(long(2, 100_000));
    expect(await store.load()).toEqual(long(2, 100_000));
  });
});
