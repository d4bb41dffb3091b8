/**
 * Key slots filled and emptied, cut at every moment and failing at every change: some passphrase always
 * opens what is there, and nobody counts on a slot that does not open.
 */

import { expect, it } from "vitest";
import { SystemClock } from "../../../../src/base/clock.ts";
import { seededRandom } from "../../../../src/base/random.ts";
import {
  changeSlots,
  type Keys,
  type SlotChange,
} from "../../../../src/drivers/format/luks/amend.ts";
import { areaBytes, makeLuks } from "../../../../src/drivers/format/luks/create.ts";
import {
  HEADER_BYTES,
  type LuksHeader,
  materialBytes,
  parseLuks,
  SECTOR_BYTES,
  SLOTS,
  serializeLuks,
} from "../../../../src/drivers/format/luks/header.ts";
import { type LuksArea, openSlot, unlock } from "../../../../src/drivers/format/luks/unlock.ts";
import { choicesOf, StateMaker } from "../../../crash/states.ts";
import { testKernel } from "../../../kernel/load.ts";
import { LogStore } from "../log-store.ts";

const OLD = new TextEncoder().encode("old");
const NEW = new TextEncoder().encode("new");
const KEY_BYTES = 32;
const STATES = 16;

const CHANGES: readonly (readonly [string, SlotChange])[] = [
  ["another slot filled", { state: "active", newPassphrase: NEW, iterTimeMs: 0, force: false }],
  [
    "the only slot filled anew",
    { state: "active", slot: 0, newPassphrase: NEW, iterTimeMs: 0, force: true },
  ],
];
const EMPTIED: SlotChange = { state: "inactive", oldPassphrase: OLD, force: false };

it.each(CHANGES)("some passphrase opens the image after any crash: %s", async (_, change) => {
  const { store, keys, key, maker } = await made();
  const start = store.bytes.slice();
  await changeSlots(maker, keys, key, change);
  if (change.slot === undefined) await changeSlots(maker, keys, key, EMPTIED);
  expect(keys.header.slots.filter(({ active }) => active)).toHaveLength(1);
  expect(await opens(areaOf(store), NEW)).toBe(true);
  expect(await opens(areaOf(store), OLD)).toBe(false);
  // Nor does what it was under lie around.
  const before = materialOf(start, 0);
  for (let i = 0; i < SLOTS; i++) expect(materialOf(store.bytes, i)).not.toEqual(before);

  const states = new StateMaker(new Map([["store", start]]), store.log);
  const choices = [...choicesOf(store.log, seededRandom(1))];
  const every = Math.ceil(choices.length / STATES);
  for (const choice of choices.filter((_, i) => i % every === 0)) {
    const area = areaOf(new LogStore(states.make(choice).get("store")!));
    const isOpened = (await opens(area, OLD)) || (await opens(area, NEW));
    expect(isOpened, `cut ${choice.cut}, kept ${choice.kept}`).toBe(true);
  }
});

it.each(CHANGES)("what counts as in use after a failure opens the image: %s", async (_, change) => {
  for (let failAt = 1; ; failAt++) {
    const { store, keys, key, maker } = await made();
    store.failAt = store.changes + failAt;
    const all = async () => {
      await changeSlots(maker, keys, key, change);
      if (change.slot === undefined) await changeSlots(maker, keys, key, EMPTIED);
    };
    const failure = await all().catch((error: unknown) => error);
    const { area, header } = keys;
    for (const [index, { active }] of header.slots.entries()) {
      if (!active) continue;
      const found = headerOf(store);
      const tries = [OLD, NEW].map((passphrase) =>
        openSlot({ kernel: maker.kernel, area, header: found, passphrase }, index),
      );
      const [old, fresh] = await Promise.all(tries);
      expect(old ?? fresh, `change ${failAt} failed, slot ${index}`).toEqual(key);
    }
    if (failure === undefined) break;
    expect(failure).toMatchObject({ errno: "ENOSPC" });
  }
});

async function made() {
  const maker = { kernel: await testKernel(), clock: new SystemClock() };
  const wanted = { keyBytes: KEY_BYTES, hash: "sha256", passphrase: OLD, iterTimeMs: 0 } as const;
  const { header, material } = await makeLuks(maker, wanted);
  const bytes = new Uint8Array(areaBytes(KEY_BYTES));
  bytes.set(serializeLuks(header));
  bytes.set(material, header.slots[0]!.place * SECTOR_BYTES);
  const store = new LogStore(bytes);
  const area = areaOf(store);
  const key = await unlock({ kernel: maker.kernel, area, header, passphrase: OLD });
  const keys: Keys = { area, header };
  return { store, keys, key, maker };
}

function areaOf(store: LogStore): LuksArea {
  return {
    bytes: store.bytes.length,
    read: async (buf, offset) => buf.set(store.bytes.subarray(offset, offset + buf.length)),
    write: async (buf, offset) => store.apply({ kind: "write", offset, bytes: buf.slice() }),
    flush: async () => store.apply({ kind: "flush" }),
  };
}

function materialOf(bytes: Uint8Array, slot: number): Uint8Array {
  const at = headerOf({ bytes }).slots[slot]!.place * SECTOR_BYTES;
  return bytes.slice(at, at + materialBytes(KEY_BYTES));
}

function headerOf({ bytes }: { readonly bytes: Uint8Array }): LuksHeader {
  return parseLuks(bytes.subarray(0, HEADER_BYTES), bytes.length);
}

async function opens(area: LuksArea, passphrase: Uint8Array): Promise<boolean> {
  const head = new Uint8Array(HEADER_BYTES);
  await area.read(head, 0);
  const attempt = { kernel: await testKernel(), area, header: parseLuks(head, area.bytes) };
  return unlock({ ...attempt, passphrase }).then(
    () => true,
    () => false,
  );
}
