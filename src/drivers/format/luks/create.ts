/**
 * A new header with one passphrase, in memory: laid out as cryptsetup and QEMU do it, each key's room
 * on a multiple of 4 KiB.
 */

import { alignUp } from "../../../base/bytes.ts";
import type { Clock } from "../../../base/clock.ts";
import { fillSecret } from "../../../base/random.ts";
import type { Kernel } from "../../../kernel/kernel.ts";
import {
  AREA_GRANULE,
  DIGEST_BYTES,
  type Hash,
  ITERATIONS_MAX,
  type LuksHeader,
  materialBytes,
  SALT_BYTES,
  SECTOR_BYTES,
  SLOTS,
  type Slot,
} from "./header.ts";
import { cryptMaterial, derive, split } from "./keys.ts";

export const ITERATIONS_MIN = 1000;
export const ITERATION_TIME_MS = 2000;

/** What making keys needs of the outside. */
export interface KeyMaker {
  readonly kernel: Kernel;
  readonly clock: Clock;
  readonly signal?: AbortSignal;
}

export interface NewLuks {
  readonly keyBytes: number;
  readonly hash: Hash;
  readonly passphrase: Uint8Array;
  /** How long opening it is to take on a machine like this one. */
  readonly iterTimeMs?: number | undefined;
}

/** Bytes of a header with all its slots. */
export function areaBytes(keyBytes: number): number {
  return AREA_GRANULE + SLOTS * alignUp(materialBytes(keyBytes), AREA_GRANULE);
}

/** @returns the header, and the first slot's stripes @throws BlockError ECANCELED, ENOTSUP */
export async function makeLuks(
  maker: KeyMaker,
  { keyBytes, hash, passphrase, iterTimeMs = ITERATION_TIME_MS }: NewLuks,
): Promise<{ header: LuksHeader; material: Uint8Array }> {
  const key = secret(keyBytes);
  const salt = secret(SALT_BYTES);
  // An eighth, so that to try eight slots takes twice as long as one, not nine times.
  const iterations = await countIterations(maker, hash, DIGEST_BYTES, iterTimeMs / 8);
  const digest = await derive(hash, key, salt, iterations, DIGEST_BYTES, maker.signal);
  const pitch = alignUp(materialBytes(keyBytes), AREA_GRANULE) / SECTOR_BYTES;
  const slots: Slot[] = Array.from({ length: SLOTS }, (_, i) => ({
    active: false,
    iterations: 0,
    salt: new Uint8Array(SALT_BYTES),
    place: AREA_GRANULE / SECTOR_BYTES + i * pitch,
  }));
  const payload = areaBytes(keyBytes) / SECTOR_BYTES;
  const empty = { hash, payload, keyBytes, digest, salt, iterations, uuid: uuid(), slots };
  const { slot, material } = await makeSlot(maker, empty, slots[0]!, key, passphrase, iterTimeMs);
  return { header: { ...empty, slots: [slot, ...slots.slice(1)] }, material };
}

/** A slot that takes the passphrase, and its stripes; nothing is written. */
export async function makeSlot(
  maker: KeyMaker,
  { hash, keyBytes }: LuksHeader,
  { place }: Slot,
  key: Uint8Array,
  passphrase: Uint8Array,
  iterTimeMs: number,
): Promise<{ slot: Slot; material: Uint8Array }> {
  const salt = secret(SALT_BYTES);
  const iterations = await countIterations(maker, hash, keyBytes, iterTimeMs);
  const slotKey = await derive(hash, passphrase, salt, iterations, keyBytes, maker.signal);
  const material = split(hash, key);
  cryptMaterial(maker.kernel, slotKey, material, "encrypt");
  return { slot: { active: true, iterations, salt, place }, material };
}

const TRIED_FIRST = 2 ** 14;
const TRIED_MAX = 2 ** 20;
const TRIED_MS = 50;
/** A shorter try says more of the clock than of the machine. */
const TOLD_MS = 5;
/** Where a passphrase is to take a person's time, another tenth of a second for the count is well spent. */
const CAREFUL_MS = 1000;
const CAREFUL_TRIES = 3;

/**
 * How many iterations take that long here; never less than any machine should take. The best of some tries
 * counts: a busy machine must not make for a weak key.
 */
async function countIterations(
  { clock, signal }: KeyMaker,
  hash: Hash,
  bytes: number,
  wantedMs: number,
): Promise<number> {
  if (wantedMs === 0) return ITERATIONS_MIN;
  const nothing = new Uint8Array(SALT_BYTES);
  let tried = TRIED_FIRST;
  let perMs = 0;
  for (let left = wantedMs < CAREFUL_MS ? 1 : CAREFUL_TRIES; left > 0; ) {
    const begunMs = clock.now();
    await derive(hash, nothing, nothing, tried, bytes, signal);
    const tookMs = clock.now() - begunMs;
    if (tookMs >= TOLD_MS) perMs = Math.max(perMs, tried / tookMs);
    if (tookMs >= TRIED_MS || tried >= TRIED_MAX) left--;
    else tried *= 2;
  }
  // Where the clock does not move, what was tried has to do.
  const count = perMs > 0 ? Math.round(perMs * wantedMs) : tried;
  return Math.min(Math.max(count, ITERATIONS_MIN), ITERATIONS_MAX);
}

function secret(bytes: number): Uint8Array {
  const buf = new Uint8Array(bytes);
  fillSecret(buf);
  return buf;
}

/** Of random bits (RFC 4122, version 4). */
function uuid(): string {
  const bytes = secret(16);
  bytes[6] = (bytes[6]! & 0x0f) | 0x40;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}
