/**
 * Other passphrases for an image: key slots filled and wiped (QEMU: QCryptoBlockAmendOptionsLUKS).
 *
 * A crash never costs the last passphrase. A slot is filled while it is marked unused, flushed, and
 * then switched on by its 48 bytes in the header; it is marked unused, flushed, and then wiped. Where
 * the only slot in use is filled anew, another one has the new passphrase meanwhile.
 */

import { BlockError } from "../../../base/errors.ts";
import { fillSecret } from "../../../base/random.ts";
import { ITERATION_TIME_MS, type KeyMaker, makeSlot } from "./create.ts";
import {
  type LuksHeader,
  materialBytes,
  SECTOR_BYTES,
  SLOTS,
  type Slot,
  serializeSlot,
  slotOffset,
} from "./header.ts";
import { type LuksArea, openSlot } from "./unlock.ts";

/** Where an image's keys are; the header as in the file, or with fewer slots in use. */
export interface Keys {
  header: LuksHeader;
  readonly area: LuksArea;
}

/** How often a slot's stripes are overwritten, each time with other bytes. */
const WIPES = 4;

export interface SlotChange {
  readonly state: "active" | "inactive";
  readonly slot?: number | undefined;
  /** Of the slots to be emptied. */
  readonly oldPassphrase?: Uint8Array | undefined;
  /** Of the slot to be filled. */
  readonly newPassphrase?: Uint8Array | undefined;
  readonly iterTimeMs?: number | undefined;
  /** Also what may make the image unreadable for good. */
  readonly force: boolean;
}

/**
 * @param key the master key
 * @throws BlockError EINVAL, EPERM (needs force), EBUSY (no slot is free), EACCES (no slot has the old
 *   passphrase), ECANCELED: nothing has changed then; what writing throws
 */
export function changeSlots(
  maker: KeyMaker,
  keys: Keys,
  key: Uint8Array,
  change: SlotChange,
): Promise<void> {
  const { slot } = change;
  if (slot !== undefined && (slot < 0 || slot >= SLOTS)) {
    throw new BlockError("EINVAL", `There is no key slot ${slot}; 0 to ${SLOTS - 1} are there`);
  }
  return change.state === "active" ? fill(maker, keys, key, change) : empty(maker, keys, change);
}

async function fill(
  maker: KeyMaker,
  keys: Keys,
  key: Uint8Array,
  { slot, oldPassphrase, newPassphrase, iterTimeMs = ITERATION_TIME_MS, force }: SlotChange,
): Promise<void> {
  const { header } = keys;
  if (oldPassphrase) {
    throw new BlockError("EINVAL", "'old-secret' is not taken with the state 'active'");
  }
  if (!newPassphrase) throw new BlockError("EINVAL", "'new-secret' is missing: the new passphrase");
  const free = header.slots.findIndex(({ active }) => !active);
  const index = slot ?? free;
  const before = header.slots[index];
  if (!before) throw new BlockError("EBUSY", "All key slots are in use: empty one first");
  if (before.active && !force) {
    throw new BlockError("EPERM", `Key slot ${index} is in use; only 'force' overwrites it`);
  }
  const made = await makeSlot(maker, header, before, key, newPassphrase, iterTimeMs);
  const isOnly = header.slots.every(({ active }, i) => active === (i === index));
  if (isOnly) await put(keys, free, made);
  await put(keys, index, made);
  if (isOnly) await wipe(keys, free);
}

async function put(
  keys: Keys,
  index: number,
  { slot, material }: { readonly slot: Slot; readonly material: Uint8Array },
): Promise<void> {
  const { place } = keys.header.slots[index]!;
  // While its stripes are half old and half new nobody may take the slot for a good one.
  await switchSlot(keys, index, off(keys.header.slots[index]!));
  await keys.area.write(material, place * SECTOR_BYTES);
  // One slot lies across two sectors: all of it first, then the word that switches it on.
  await switchSlot(keys, index, { ...slot, place, active: false });
  await switchSlot(keys, index, { ...slot, place });
}

async function empty(
  { kernel, signal }: KeyMaker,
  keys: Keys,
  { slot, oldPassphrase, newPassphrase, iterTimeMs, force }: SlotChange,
): Promise<void> {
  const { area, header } = keys;
  const notTaken = newPassphrase ? "new-secret" : iterTimeMs === undefined ? null : "iter-time";
  if (notTaken) {
    throw new BlockError("EINVAL", `'${notTaken}' is not taken with the state 'inactive'`);
  }
  if (slot === undefined && !oldPassphrase) {
    throw new BlockError("EINVAL", "Which slots are to be emptied? Give 'keyslot' or 'old-secret'");
  }
  const wanted = slot === undefined ? header.slots.map((_, i) => i) : [slot];
  const found: number[] = [];
  for (const index of wanted) {
    if (!oldPassphrase) found.push(index);
    else {
      const attempt = {
        kernel,
        area,
        header,
        passphrase: oldPassphrase,
        ...(signal && { signal }),
      };
      if (await openSlot(attempt, index)) found.push(index);
    }
  }
  if (found.length === 0) {
    const where = slot === undefined ? "No key slot has" : `Key slot ${slot} does not have`;
    throw new BlockError("EACCES", `${where} the passphrase of 'old-secret'`);
  }
  const left = header.slots.filter(({ active }, i) => active && !found.includes(i));
  if (!force && slot !== undefined && !header.slots[slot]?.active) {
    throw new BlockError("EPERM", `Key slot ${slot} is empty already; only 'force' wipes it again`);
  }
  if (!force && left.length === 0) {
    throw new BlockError(
      "EPERM",
      "No passphrase would be left, and all data lost for good; only 'force' does that",
    );
  }
  for (const index of found) await wipe(keys, index);
}

async function wipe(keys: Keys, index: number): Promise<void> {
  const { area, header } = keys;
  const slot = header.slots[index]!;
  await switchSlot(keys, index, off(slot));
  const junk = new Uint8Array(materialBytes(header.keyBytes));
  for (let i = 0; i < WIPES; i++) {
    fillSecret(junk);
    await area.write(junk, slot.place * SECTOR_BYTES);
    await area.flush();
  }
}

/** Without salt and iterations: of an empty slot nothing is left. */
function off({ salt, place }: Slot): Slot {
  return { active: false, iterations: 0, salt: new Uint8Array(salt.length), place };
}

/**
 * Writes a slot's place in the header, nothing else of it, and flushes. If that fails nobody knows what
 * the file has, and the slot is not in use as far as is known: no other may be emptied for its sake.
 */
async function switchSlot(keys: Keys, index: number, slot: Slot): Promise<void> {
  const { area, header } = keys;
  const slots = header.slots.map((one, i) => (i === index ? slot : one));
  if (!slot.active) keys.header = { ...header, slots };
  await area.write(serializeSlot(slot), slotOffset(index));
  await area.flush();
  keys.header = { ...header, slots };
}
