/**
 * From a passphrase to the master key and back.
 *
 *     passphrase ──PBKDF2──▶ slot key ──XTS──▶ stripes ──merge──▶ master key ──PBKDF2──▶ digest
 *
 * The stripes are random but for the last, which is such that all of them, each diffused by a hash,
 * add up to the key: without any one of them nothing of it can be known (LUKS' anti-forensic split).
 */

import { sha1 } from "@noble/hashes/legacy.js";
import { sha256, sha512 } from "@noble/hashes/sha2.js";
import { writeU32 } from "../../../base/bytes.ts";
import { BlockError, throwIfAborted } from "../../../base/errors.ts";
import { fillSecret } from "../../../base/random.ts";
import { xtsKey } from "../../../kernel/aes.ts";
import type { Kernel } from "../../../kernel/kernel.ts";
import { type Hash, STRIPES } from "./header.ts";

const HASH_FUNCTIONS = { sha1, sha256, sha512 };
const SUBTLE_NAMES: Readonly<Record<Hash, string>> = {
  sha1: "SHA-1",
  sha256: "SHA-256",
  sha512: "SHA-512",
};

/**
 * PBKDF2 by the platform, off this thread. It cannot be told to stop: after an abort nobody waits for
 * it any more, and it ends by itself, after ITERATIONS_MAX rounds at most.
 *
 * @throws BlockError ECANCELED; ENOTSUP where there is no WebCrypto, as on pages without https
 */
export async function derive(
  hash: Hash,
  passphrase: Uint8Array,
  salt: Uint8Array,
  iterations: number,
  bytes: number,
  signal?: AbortSignal,
): Promise<Uint8Array> {
  const subtle = globalThis.crypto?.subtle;
  if (!subtle) {
    throw new BlockError("ENOTSUP", "Keys cannot be derived here: it takes a page served by https");
  }
  throwIfAborted(signal);
  const key = await subtle.importKey("raw", passphrase.slice(), "PBKDF2", false, ["deriveBits"]);
  const way = { name: "PBKDF2", hash: SUBTLE_NAMES[hash], salt: salt.slice(), iterations };
  const derived = subtle.deriveBits(way, key, bytes * 8);
  return new Uint8Array(await untilAborted(derived, signal));
}

function untilAborted<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return work;
  return new Promise((resolve, reject) => {
    const stop = () => reject(new BlockError("ECANCELED", "Operation canceled"));
    if (signal.aborted) stop();
    signal.addEventListener("abort", stop, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener("abort", stop));
  });
}

/** Decrypts or encrypts a slot's stripes in place: whole sectors, whatever the key's length. */
export function cryptMaterial(
  kernel: Kernel,
  slotKey: Uint8Array,
  material: Uint8Array,
  way: "encrypt" | "decrypt",
): void {
  kernel.xts(material, xtsKey(slotKey), 0, way);
}

export function split(hash: Hash, key: Uint8Array): Uint8Array {
  const stripes = new Uint8Array(key.length * STRIPES);
  const last = stripes.length - key.length;
  fillSecret(stripes.subarray(0, last));
  const sum = diffusedSum(hash, stripes.subarray(0, last), key.length);
  for (const [i, byte] of key.entries()) stripes[last + i] = sum[i]! ^ byte;
  return stripes;
}

export function merge(hash: Hash, stripes: Uint8Array, keyBytes: number): Uint8Array {
  const last = stripes.length - keyBytes;
  const sum = diffusedSum(hash, stripes.subarray(0, last), keyBytes);
  return sum.map((byte, i) => byte ^ stripes[last + i]!);
}

function diffusedSum(hash: Hash, stripes: Uint8Array, keyBytes: number): Uint8Array {
  let sum: Uint8Array = new Uint8Array(keyBytes);
  for (let at = 0; at < stripes.length; at += keyBytes) {
    for (let i = 0; i < keyBytes; i++) sum[i] = sum[i]! ^ stripes[at + i]!;
    sum = diffused(hash, sum);
  }
  return sum;
}

/** Each piece as long as a digest is replaced by the digest of its number and itself. */
function diffused(hash: Hash, bytes: Uint8Array): Uint8Array {
  const digest = HASH_FUNCTIONS[hash];
  const result = new Uint8Array(bytes.length);
  const size = digest.outputLen;
  for (let at = 0, number = 0; at < bytes.length; at += size, number++) {
    const piece = bytes.subarray(at, at + size);
    const numbered = new Uint8Array(4 + piece.length);
    writeU32(numbered, 0, number);
    numbered.set(piece, 4);
    result.set(digest(numbered).subarray(0, piece.length), at);
  }
  return result;
}

/** In a time that tells nothing about where they differ. */
export function isSame(a: Uint8Array, b: Uint8Array): boolean {
  return a.reduce((difference, byte, i) => difference | (byte ^ b[i]!), 0) === 0;
}
