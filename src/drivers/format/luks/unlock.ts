/**
 * Tries a passphrase on the key slots.
 */

import { BlockError, throwIfAborted } from "../../../base/errors.ts";
import type { Kernel } from "../../../kernel/kernel.ts";
import {
  DIGEST_BYTES,
  ITERATIONS_TOTAL_MAX,
  type LuksHeader,
  materialBytes,
  SECTOR_BYTES,
} from "./header.ts";
import { cryptMaterial, derive, isSame, merge } from "./keys.ts";

/** Where a header with its keys lies; offsets from its start. */
export interface LuksArea {
  readonly bytes: number;
  read(buf: Uint8Array, offset: number): Promise<void>;
  write(buf: Uint8Array, offset: number): Promise<void>;
  flush(): Promise<void>;
}

export interface Attempt {
  readonly kernel: Kernel;
  readonly area: LuksArea;
  readonly header: LuksHeader;
  readonly passphrase: Uint8Array;
  readonly signal?: AbortSignal;
}

/**
 * The master key.
 *
 * @throws BlockError EACCES if no slot takes the passphrase; EFBIG if the slots together are more
 *   work than anybody should wait for; ECANCELED; what reading throws
 */
export async function unlock(attempt: Attempt): Promise<Uint8Array> {
  let left = ITERATIONS_TOTAL_MAX;
  for (const [i, { active, iterations }] of attempt.header.slots.entries()) {
    if (!active) continue;
    left -= iterations + attempt.header.iterations;
    if (left < 0) {
      throw new BlockError(
        "EFBIG",
        `The passphrase fits none of the first key slots, and to try them all would take more than ` +
          `${ITERATIONS_TOTAL_MAX} iterations`,
      );
    }
    const key = await openSlot(attempt, i);
    if (key) return key;
  }
  throw new BlockError("EACCES", "The passphrase fits no key slot of the image");
}

/** The master key, or null if the slot has another passphrase or none. */
export async function openSlot(
  { kernel, area, header, passphrase, signal }: Attempt,
  index: number,
): Promise<Uint8Array | null> {
  const { hash, keyBytes } = header;
  const slot = header.slots[index]!;
  if (!slot.active) return null;
  const slotKey = await derive(hash, passphrase, slot.salt, slot.iterations, keyBytes, signal);
  const material = new Uint8Array(materialBytes(keyBytes));
  await area.read(material, slot.place * SECTOR_BYTES);
  throwIfAborted(signal);
  cryptMaterial(kernel, slotKey, material, "decrypt");
  const key = merge(hash, material, keyBytes);
  const digest = await derive(hash, key, header.salt, header.iterations, DIGEST_BYTES, signal);
  return isSame(digest, header.digest) ? key : null;
}
