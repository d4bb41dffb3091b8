/**
 * The keys of an encrypted image, LUKS version 1, made by Node's own cryptography: nothing of the code
 * that is tested. One passphrase fits, in the first slot; what it costs to try is next to nothing.
 *
 *     0 header │ 4096 key of slot 0, in stripes │ room for slots 1 to 7, one behind the other
 *
 * The data of such an image may be any bytes: they are what something comes to when it is encrypted.
 */

import { createCipheriv, createHash, pbkdf2Sync } from "node:crypto";
import { readU32, writeU16, writeU32 } from "../../../src/base/bytes.ts";
import { seededRandom } from "../../../src/base/random.ts";

export const PASSPHRASE = "hunter2";
/** What the object that holds it is called. */
export const SECRET = "s";

const KEY_BYTES = 32;
const STRIPES = 4000;
const SLOTS = 8;
const SLOTS_AT = 208;
const SLOT_BYTES = 48;
const ACTIVE = 0x00ac71f3;
const INACTIVE = 0x0000dead;
/** Of a slot's key, and from one to the next. */
const MATERIAL_BYTES = KEY_BYTES * STRIPES;
const SLOT_SECTORS = 256;
const ITERATIONS = 4;
const MAGIC = Uint8Array.of(0x4c, 0x55, 0x4b, 0x53, 0xba, 0xbe);

/** Rounds that are no work; more than the other is refused by its number. What lies between is waited for. */
const QUICK_ITERATIONS = 1000;
const REFUSED_ITERATIONS = 2 ** 25;

let made: Uint8Array | null = null;

/** The same each time; whoever changes it takes a copy. */
export function luksArea(): Uint8Array {
  made ??= makeArea();
  return made;
}

function makeArea(): Uint8Array {
  const random = seededRandom(5);
  const some = (bytes: number) => {
    const all = new Uint8Array(bytes);
    random.fill(all);
    return all;
  };
  const area = new Uint8Array((8 + SLOTS * SLOT_SECTORS) * 512);
  const put = (at: number, text: string) => area.set(new TextEncoder().encode(text), at);
  const key = some(KEY_BYTES);
  const salt = some(32);
  area.set(MAGIC);
  writeU16(area, 6, 1);
  put(8, "aes");
  put(40, "xts-plain64");
  put(72, "sha256");
  writeU32(area, 104, area.length / 512);
  writeU32(area, 108, KEY_BYTES);
  area.set(pbkdf2Sync(key, salt, ITERATIONS, 20, "sha256"), 112);
  area.set(salt, 132);
  writeU32(area, 164, ITERATIONS);
  put(168, "00000000-0000-4000-8000-000000000000");
  for (let i = 0; i < SLOTS; i++) {
    const at = SLOTS_AT + i * SLOT_BYTES;
    writeU32(area, at, INACTIVE);
    writeU32(area, at + 40, 8 + i * SLOT_SECTORS);
    writeU32(area, at + 44, STRIPES);
  }
  const slotSalt = some(32);
  writeU32(area, SLOTS_AT, ACTIVE);
  writeU32(area, SLOTS_AT + 4, ITERATIONS);
  area.set(slotSalt, SLOTS_AT + 8);
  const slotKey = pbkdf2Sync(PASSPHRASE, slotSalt, ITERATIONS, KEY_BYTES, "sha256");
  area.set(encrypt(slotKey, split(key, some(MATERIAL_BYTES - KEY_BYTES))), 4096);
  return area;
}

/** AES-XTS, sector by sector from number 0 on. */
function encrypt(key: Uint8Array, plain: Uint8Array): Uint8Array {
  const all = new Uint8Array(plain.length);
  for (let at = 0; at < plain.length; at += 512) {
    const tweak = new Uint8Array(16);
    new DataView(tweak.buffer).setUint32(0, at / 512, true);
    all.set(createCipheriv("aes-128-xts", key, tweak).update(plain.subarray(at, at + 512)), at);
  }
  return all;
}

/** Stripes that add up to the key, each diffused by the hash before the next is added. */
function split(key: Uint8Array, stripes: Uint8Array): Uint8Array {
  let sum = new Uint8Array(KEY_BYTES);
  for (let at = 0; at < stripes.length; at += KEY_BYTES) {
    const mixed = sum.map((byte, i) => byte ^ stripes[at + i]!);
    sum = new Uint8Array(createHash("sha256").update(new Uint8Array(4)).update(mixed).digest());
  }
  const all = new Uint8Array(MATERIAL_BYTES);
  all.set(stripes);
  for (let i = 0; i < KEY_BYTES; i++) all[stripes.length + i] = sum[i]! ^ key[i]!;
  return all;
}

/**
 * Rounds that take long, and are allowed, become few: a mutant may cost 15 s of a processor on purpose,
 * and thousands of them would try nothing else. (`test/drivers/format/qcow2/luks.test.ts` is about them.)
 */
export function withoutWork(image: Uint8Array): void {
  const view = Buffer.from(image.buffer, image.byteOffset, image.length);
  for (let at = view.indexOf(MAGIC); at >= 0; at = view.indexOf(MAGIC, at + 1)) {
    const places = [164, ...Array.from({ length: SLOTS }, (_, i) => SLOTS_AT + 4 + i * SLOT_BYTES)];
    for (const place of places) {
      if (at + place + 4 > image.length) continue;
      const iterations = readU32(image, at + place);
      if (iterations <= QUICK_ITERATIONS || iterations > REFUSED_ITERATIONS) continue;
      writeU32(image, at + place, (iterations % QUICK_ITERATIONS) + 1);
    }
  }
}
