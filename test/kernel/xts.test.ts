import { createCipheriv } from "node:crypto";
import { beforeAll, describe, expect, it } from "vitest";
import { MiB } from "../../src/base/bytes.ts";
import { xtsKey } from "../../src/kernel/aes.ts";
import type { Kernel } from "../../src/kernel/kernel.ts";
import { eachSeed, pick, place } from "./chance.ts";
import { testKernel } from "./load.ts";

let kernel: Kernel;
beforeAll(async () => {
  kernel = await testKernel();
});

/** AES-XTS as OpenSSL has it; its 192-bit key, which OpenSSL leaves out, by AES alone. */
function expected(buf: Uint8Array, key: Uint8Array, sector: number): Uint8Array {
  const result = new Uint8Array(buf.length);
  for (let at = 0; at < buf.length; at += 512, sector++) {
    const number = new Uint8Array(16);
    new DataView(number.buffer).setBigUint64(0, BigInt(sector), true);
    const plain = buf.subarray(at, at + 512);
    if (key.length === 48) result.set(byHand(plain, key, number), at);
    else {
      const cipher = createCipheriv(`aes-${key.length * 4}-xts`, key, number);
      result.set(cipher.update(plain), at);
    }
  }
  return result;
}

function byHand(plain: Uint8Array, key: Uint8Array, number: Uint8Array): Uint8Array {
  const block = (half: Uint8Array, bytes: Uint8Array) =>
    createCipheriv("aes-192-ecb", half, null).setAutoPadding(false).update(bytes);
  let tweak: Uint8Array = new Uint8Array(block(key.subarray(24), number));
  const result = new Uint8Array(plain.length);
  for (let at = 0; at < plain.length; at += 16) {
    const mixed = plain.slice(at, at + 16).map((byte, i) => byte ^ tweak[i]!);
    const encrypted = new Uint8Array(block(key.subarray(0, 24), mixed));
    result.set(
      encrypted.map((byte, i) => byte ^ tweak[i]!),
      at,
    );
    const carry = tweak[15]! >> 7;
    tweak = tweak.map((byte, i) => (byte << 1) | (i > 0 ? tweak[i - 1]! >> 7 : 0));
    if (carry) tweak[0] = tweak[0]! ^ 0x87;
  }
  return result;
}

describe("xts", () => {
  it("gives the standard's own example", () => {
    // IEEE 1619-2007, annex B, vector 4: 512 bytes, both keys 16 bytes, sector 0.
    const hex = (text: string) => new Uint8Array(Buffer.from(text, "hex"));
    const key = hex("2718281828459045235360287471352631415926535897932384626433832795");
    const buf = Uint8Array.from({ length: 512 }, (_, i) => i % 256);
    kernel.xts(buf, xtsKey(key), 0, "encrypt");
    expect(buf.subarray(0, 16)).toEqual(hex("27a7479befa1d476489f308cd4cfa6e2"));
    expect(buf.subarray(496)).toEqual(hex("0a282df920147beabe421ee5319d0568"));
  });

  it.each([32, 48, 64])("agrees with OpenSSL under keys of %d bytes, both ways", (keyBytes) => {
    eachSeed(12, (random) => {
      const key = new Uint8Array(keyBytes);
      random.fill(key);
      const bytes = new Uint8Array(512 * (1 + random.below(40)));
      random.fill(bytes);
      const sector = pick(random, [0, 1, 2 ** 32 - 3, 2 ** 32 + 5, 2 ** 44 - 100]);
      const encrypted = expected(bytes, key, sector);
      for (const inside of [true, false]) {
        const { buf, leave } = place(kernel, bytes, inside, random.below(16));
        kernel.xts(buf, xtsKey(key), sector, "encrypt");
        expect(Buffer.compare(buf, encrypted)).toBe(0);
        kernel.xts(buf, xtsKey(key), sector, "decrypt");
        expect(Buffer.compare(buf, bytes)).toBe(0);
        leave();
      }
    });
  });

  it("numbers the sectors of a buffer that does not fit scratch on", () => {
    const key = new Uint8Array(64).map((_, i) => i);
    const bytes = new Uint8Array(5 * MiB);
    const buf = bytes.slice();
    kernel.xts(buf, xtsKey(key), 7, "encrypt");
    expect(Buffer.compare(buf, expected(bytes, key, 7))).toBe(0);
  });

  it("takes whole sectors only, and keys of the three lengths", () => {
    const key = xtsKey(new Uint8Array(32));
    expect(() => kernel.xts(new Uint8Array(511), key, 0, "encrypt")).toThrow(/whole sectors/);
    expect(() => kernel.xts(new Uint8Array(512), key, -1, "encrypt")).toThrow(/number/);
    expect(() => xtsKey(new Uint8Array(31))).toThrow(/two AES keys/);
  });
});
