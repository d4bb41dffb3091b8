/**
 * AES in XTS mode over whole 512-byte sectors, as LUKS' xts-plain64 has it (IEEE 1619):
 *
 *     tweak of a sector's first block    AES of the sector's number, under the second key
 *     tweak of the next block            the one before, times x in GF(2^128)
 *     block out                          AES(block in ^ tweak) ^ tweak, under the first key
 *
 * There are no tables in this module: they come with the key (src/kernel/aes.ts makes both), as
 *
 *     0 ─── 2048 ─── 2304 ──────────── 2544
 *     │ table │ s-box  │ round keys, u32  │
 *
 * An entry of the table is what the substitution and the mixing of one byte give, twice in a row: a
 * load at another byte of it is that word rotated. All words are little-endian, the first row lowest.
 */

const SECTOR: u32 = 512;
const BOX: usize = 2048;
const KEYS: usize = 2304;

/**
 * Encrypts or decrypts sectors in place.
 *
 * @param data the first key with its tables; `decrypts` says of which kind they are
 * @param tweak the second key with the tables of encryption
 * @param rounds 10, 12 or 14
 * @param address of the first sector, any alignment
 * @param low with `high`: the number of the first sector
 */
export function xtsSectors(
  data: usize,
  tweak: usize,
  rounds: u32,
  address: usize,
  sectors: u32,
  low: u32,
  high: u32,
  decrypts: bool,
): void {
  let number = (u64(high) << 32) | u64(low);
  for (let i: u32 = 0; i < sectors; ++i) {
    // The sector itself is the only memory there is to put a tweak in: its first block waits here.
    const first0 = load<u64>(address);
    const first1 = load<u64>(address, 8);
    store<u64>(address, number);
    store<u64>(address, 0, 8);
    encrypt(tweak, rounds, address, 0, 0);
    let t0 = load<u64>(address);
    let t1 = load<u64>(address, 8);
    store<u64>(address, first0);
    store<u64>(address, first1, 8);
    for (let at: u32 = 0; at < SECTOR; at += 16) {
      if (decrypts) decrypt(data, rounds, address + at, t0, t1);
      else encrypt(data, rounds, address + at, t0, t1);
      const carry = u64(i64(t1) >> 63) & 0x87;
      t1 = (t1 << 1) | (t0 >> 63);
      t0 = (t0 << 1) ^ carry;
    }
    address += SECTOR;
    ++number;
  }
}

/**
 * One block in place, with a tweak before and after. Each column of a round takes a byte of every
 * row: the rows are shifted. Written out, since calls in here would halve the speed.
 */
function encrypt(key: usize, rounds: u32, address: usize, t0: u64, t1: u64): void {
  let k = key + KEYS;
  const in0 = load<u64>(address) ^ t0 ^ load<u64>(k);
  const in1 = load<u64>(address, 8) ^ t1 ^ load<u64>(k, 8);
  let a = u32(in0);
  let b = u32(in0 >> 32);
  let c = u32(in1);
  let d = u32(in1 >> 32);
  for (let round: u32 = 1; round < rounds; ++round) {
    k += 16;
    const e =
      load<u32>(key + ((a & 255) << 3)) ^
      load<u32>(key + (((b >> 8) & 255) << 3), 3) ^
      load<u32>(key + (((c >> 16) & 255) << 3), 2) ^
      load<u32>(key + ((d >> 24) << 3), 1) ^
      load<u32>(k);
    const f =
      load<u32>(key + ((b & 255) << 3)) ^
      load<u32>(key + (((c >> 8) & 255) << 3), 3) ^
      load<u32>(key + (((d >> 16) & 255) << 3), 2) ^
      load<u32>(key + ((a >> 24) << 3), 1) ^
      load<u32>(k, 4);
    const g =
      load<u32>(key + ((c & 255) << 3)) ^
      load<u32>(key + (((d >> 8) & 255) << 3), 3) ^
      load<u32>(key + (((a >> 16) & 255) << 3), 2) ^
      load<u32>(key + ((b >> 24) << 3), 1) ^
      load<u32>(k, 8);
    const h =
      load<u32>(key + ((d & 255) << 3)) ^
      load<u32>(key + (((a >> 8) & 255) << 3), 3) ^
      load<u32>(key + (((b >> 16) & 255) << 3), 2) ^
      load<u32>(key + ((c >> 24) << 3), 1) ^
      load<u32>(k, 12);
    a = e;
    b = f;
    c = g;
    d = h;
  }
  k += 16;
  const out0 = boxed(key, a, b, c, d) | (boxed(key, b, c, d, a) << 32);
  const out1 = boxed(key, c, d, a, b) | (boxed(key, d, a, b, c) << 32);
  store<u64>(address, out0 ^ load<u64>(k) ^ t0);
  store<u64>(address, out1 ^ load<u64>(k, 8) ^ t1, 8);
}

/** The same with rows shifted back. */
function decrypt(key: usize, rounds: u32, address: usize, t0: u64, t1: u64): void {
  let k = key + KEYS;
  const in0 = load<u64>(address) ^ t0 ^ load<u64>(k);
  const in1 = load<u64>(address, 8) ^ t1 ^ load<u64>(k, 8);
  let a = u32(in0);
  let b = u32(in0 >> 32);
  let c = u32(in1);
  let d = u32(in1 >> 32);
  for (let round: u32 = 1; round < rounds; ++round) {
    k += 16;
    const e =
      load<u32>(key + ((a & 255) << 3)) ^
      load<u32>(key + (((d >> 8) & 255) << 3), 3) ^
      load<u32>(key + (((c >> 16) & 255) << 3), 2) ^
      load<u32>(key + ((b >> 24) << 3), 1) ^
      load<u32>(k);
    const f =
      load<u32>(key + ((b & 255) << 3)) ^
      load<u32>(key + (((a >> 8) & 255) << 3), 3) ^
      load<u32>(key + (((d >> 16) & 255) << 3), 2) ^
      load<u32>(key + ((c >> 24) << 3), 1) ^
      load<u32>(k, 4);
    const g =
      load<u32>(key + ((c & 255) << 3)) ^
      load<u32>(key + (((b >> 8) & 255) << 3), 3) ^
      load<u32>(key + (((a >> 16) & 255) << 3), 2) ^
      load<u32>(key + ((d >> 24) << 3), 1) ^
      load<u32>(k, 8);
    const h =
      load<u32>(key + ((d & 255) << 3)) ^
      load<u32>(key + (((c >> 8) & 255) << 3), 3) ^
      load<u32>(key + (((b >> 16) & 255) << 3), 2) ^
      load<u32>(key + ((a >> 24) << 3), 1) ^
      load<u32>(k, 12);
    a = e;
    b = f;
    c = g;
    d = h;
  }
  k += 16;
  const out0 = boxed(key, a, d, c, b) | (boxed(key, b, a, d, c) << 32);
  const out1 = boxed(key, c, b, a, d) | (boxed(key, d, c, b, a) << 32);
  store<u64>(address, out0 ^ load<u64>(k) ^ t0);
  store<u64>(address, out1 ^ load<u64>(k, 8) ^ t1, 8);
}

/** A column of the last round, which is not mixed: a byte of each row. */
function boxed(key: usize, row0: u32, row1: u32, row2: u32, row3: u32): u64 {
  const box = key + BOX;
  return u64(
    u32(load<u8>(box + (row0 & 255))) |
      (u32(load<u8>(box + ((row1 >> 8) & 255))) << 8) |
      (u32(load<u8>(box + ((row2 >> 16) & 255))) << 16) |
      (u32(load<u8>(box + (row3 >> 24))) << 24),
  );
}
