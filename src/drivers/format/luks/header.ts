/**
 * The header of LUKS, version 1, and what must hold of it before a passphrase is tried.
 *
 *        0 magic, 6 bytes     6 version u16        8 cipher name, 32      40 cipher mode, 32
 *       72 hash name, 32    104 payload u32      108 key bytes u32       112 digest, 20
 *      132 salt, 32         164 iterations u32   168 uuid, 40            208 eight slots of 48 bytes
 *
 *     slot    0 state u32     4 iterations u32     8 salt, 32    40 place u32    44 stripes u32
 *
 * Numbers are big-endian, places in sectors of 512 bytes from the header's own start. Behind the
 * header each slot has room for the master key, split into stripes, under that slot's passphrase.
 *
 * The header was written by somebody else: no number of it decides how much memory or time is spent
 * before it was looked at here. Source: LUKS On-Disk Format Specification 1.2.1.
 */

import { readU16, readU32, writeU16, writeU32 } from "../../../base/bytes.ts";
import { assert, BlockError } from "../../../base/errors.ts";

export const HEADER_BYTES = 592;
export const SECTOR_BYTES = 512;
export const SLOTS = 8;
export const STRIPES = 4000;
export const SALT_BYTES = 32;
export const DIGEST_BYTES = 20;
/** Where the first slot's key lies; each begins on a multiple of this. */
export const AREA_GRANULE = 4096;
/**
 * Most rounds of one derivation, 15 s or so of one processor: six times what QEMU takes for two
 * seconds. A header that asks for more is not opened: it would keep the machine busy for hours.
 */
export const ITERATIONS_MAX = 2 ** 25;
/** Most rounds of all that are tried to open an image. */
export const ITERATIONS_TOTAL_MAX = 2 ** 27;

const MAGIC = [0x4c, 0x55, 0x4b, 0x53, 0xba, 0xbe];
const SLOTS_AT = 208;
const SLOT_BYTES = 48;
const ACTIVE = 0x00ac71f3;
const INACTIVE = 0x0000dead;

export const HASHES = ["sha1", "sha256", "sha512"] as const;
export type Hash = (typeof HASHES)[number];

/** By the bytes of both keys of XTS. */
export const CIPHERS: ReadonlyMap<number, string> = new Map([
  [32, "aes-128"],
  [48, "aes-192"],
  [64, "aes-256"],
]);

export interface Slot {
  readonly active: boolean;
  readonly iterations: number;
  readonly salt: Uint8Array;
  /** In sectors. */
  readonly place: number;
}

export interface LuksHeader {
  readonly hash: Hash;
  /** In sectors. */
  readonly payload: number;
  readonly keyBytes: number;
  /** Of the master key. */
  readonly digest: Uint8Array;
  readonly salt: Uint8Array;
  readonly iterations: number;
  readonly uuid: string;
  readonly slots: readonly Slot[];
}

/** Bytes that a slot's key takes. */
export function materialBytes(keyBytes: number): number {
  return keyBytes * STRIPES;
}

/**
 * @param bytes HEADER_BYTES from the area's start
 * @param areaBytes of the header with all keys
 * @throws BlockError EINVAL that names the field, ENOTSUP that names the cipher or the hash
 */
export function parseLuks(bytes: Uint8Array, areaBytes: number): LuksHeader {
  if (bytes.length < HEADER_BYTES || areaBytes < HEADER_BYTES)
    throw invalid("the header is cut off");
  if (MAGIC.some((byte, i) => bytes[i] !== byte)) throw invalid("it does not begin with 'LUKS'");
  const version = readU16(bytes, 6);
  if (version !== 1) throw new BlockError("ENOTSUP", `LUKS version ${version} is not supported`);
  const keyBytes = readU32(bytes, 108);
  checkCipher(text(bytes, 8, 32, "cipher name"), text(bytes, 40, 32, "cipher mode"), keyBytes);
  const header: LuksHeader = {
    hash: checkHash(text(bytes, 72, 32, "hash name")),
    payload: readU32(bytes, 104),
    keyBytes,
    digest: bytes.slice(112, 112 + DIGEST_BYTES),
    salt: bytes.slice(132, 132 + SALT_BYTES),
    iterations: readU32(bytes, 164),
    uuid: text(bytes, 168, 40, "uuid"),
    slots: Array.from({ length: SLOTS }, (_, i) => parseSlot(bytes, i)),
  };
  checkIterations(header.iterations, "the master key");
  checkPlaces(header, areaBytes);
  return header;
}

function parseSlot(bytes: Uint8Array, index: number): Slot {
  const at = SLOTS_AT + index * SLOT_BYTES;
  const state = readU32(bytes, at);
  if (state !== ACTIVE && state !== INACTIVE) {
    throw invalid(`the state of key slot ${index} is 0x${state.toString(16)}`);
  }
  const stripes = readU32(bytes, at + 44);
  if (stripes !== STRIPES) {
    throw invalid(`key slot ${index} has ${stripes} stripes; ${STRIPES} are supported`);
  }
  const iterations = readU32(bytes, at + 4);
  if (state === ACTIVE) checkIterations(iterations, `key slot ${index}`);
  return {
    active: state === ACTIVE,
    iterations,
    salt: bytes.slice(at + 8, at + 8 + SALT_BYTES),
    place: readU32(bytes, at + 40),
  };
}

function checkCipher(name: string, mode: string, keyBytes: number): void {
  // A hash behind the generator is for others than this one, and is ignored by all.
  if (name !== "aes" || mode.replace(/:.*/, "") !== "xts-plain64") {
    throw new BlockError(
      "ENOTSUP",
      `The image is encrypted with '${name}-${mode}', which is not supported; 'aes-xts-plain64' is`,
    );
  }
  if (!CIPHERS.has(keyBytes))
    throw invalid(`key bytes are ${keyBytes}; 32, 48 and 64 are possible`);
}

function checkHash(name: string): Hash {
  const known = HASHES.find((hash) => hash === name);
  if (known) return known;
  throw new BlockError(
    "ENOTSUP",
    `The image's keys are hashed with '${name}', which is not supported; ${HASHES.join(", ")} are`,
  );
}

function checkIterations(iterations: number, whose: string): void {
  if (iterations === 0) throw invalid(`the iteration count of ${whose} is 0`);
  if (iterations <= ITERATIONS_MAX) return;
  throw new BlockError(
    "EFBIG",
    `The iteration count of ${whose} is ${iterations}; at most ${ITERATIONS_MAX} are tried`,
  );
}

/** Slots, used or not, lie behind the header, within the area, before the payload, and apart. */
function checkPlaces({ slots, keyBytes, payload }: LuksHeader, areaBytes: number): void {
  const sectors = Math.ceil(materialBytes(keyBytes) / SECTOR_BYTES);
  const end = Math.min(payload, Math.floor(areaBytes / SECTOR_BYTES));
  for (const [i, { place }] of slots.entries()) {
    if (place < AREA_GRANULE / SECTOR_BYTES) throw invalid(`key slot ${i} overlaps the header`);
    if (place + sectors > end) throw invalid(`key slot ${i} reaches past the end of the keys`);
    const other = slots.findIndex(
      (slot, j) => j > i && slot.place < place + sectors && place < slot.place + sectors,
    );
    if (other >= 0) throw invalid(`key slots ${i} and ${other} overlap`);
  }
}

function text(bytes: Uint8Array, at: number, length: number, what: string): string {
  const field = bytes.subarray(at, at + length);
  const end = field.indexOf(0);
  if (end < 0) throw invalid(`the ${what} has no end`);
  return new TextDecoder().decode(field.subarray(0, end));
}

function invalid(problem: string): BlockError {
  return new BlockError("EINVAL", `Invalid LUKS header: ${problem}`);
}

export function serializeLuks(header: LuksHeader): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES);
  const put = (value: string, at: number) =>
    new TextEncoder().encodeInto(value, bytes.subarray(at));
  bytes.set(MAGIC);
  writeU16(bytes, 6, 1);
  put("aes", 8);
  put("xts-plain64", 40);
  put(header.hash, 72);
  writeU32(bytes, 104, header.payload);
  writeU32(bytes, 108, header.keyBytes);
  bytes.set(header.digest, 112);
  bytes.set(header.salt, 132);
  writeU32(bytes, 164, header.iterations);
  put(header.uuid, 168);
  for (const [i, slot] of header.slots.entries()) bytes.set(serializeSlot(slot), slotOffset(i));
  return bytes;
}

/** Where a slot's 48 bytes lie. Two slots may share a sector, and one may lie across two. */
export function slotOffset(index: number): number {
  return SLOTS_AT + index * SLOT_BYTES;
}

export function serializeSlot({ active, iterations, salt, place }: Slot): Uint8Array {
  assert(salt.length === SALT_BYTES, "a salt has its length");
  const bytes = new Uint8Array(SLOT_BYTES);
  writeU32(bytes, 0, active ? ACTIVE : INACTIVE);
  writeU32(bytes, 4, iterations);
  bytes.set(salt, 8);
  writeU32(bytes, 40, place);
  writeU32(bytes, 44, STRIPES);
  return bytes;
}

/** What images tell of it (QEMU: QCryptoBlockInfoLUKS). */
export function luksInfo(header: LuksHeader): object {
  return {
    format: "luks",
    "cipher-alg": CIPHERS.get(header.keyBytes),
    "cipher-mode": "xts",
    "ivgen-alg": "plain64",
    "hash-alg": header.hash,
    "detached-header": false,
    "payload-offset": header.payload * SECTOR_BYTES,
    "master-key-iters": header.iterations,
    uuid: header.uuid,
    slots: header.slots.map(({ active, iterations, place }) => ({
      active,
      ...(active && { iters: iterations, stripes: STRIPES }),
      "key-offset": place * SECTOR_BYTES,
    })),
  };
}
