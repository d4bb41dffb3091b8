/**
 * Encrypted images: LUKS keeps the key in clusters of its own, data goes through AES-XTS, sector by
 * sector, under the offset that it has in its file. Tables are never encrypted, nor is packed data,
 * which is why such an image takes none.
 *
 *     header ─▶ extension ─▶ │ LUKS header │ slot 0 │ … │ slot 7 │      whole clusters
 *                                 passphrase ──▶ master key ──▶ cipher
 */

import * as v from "valibot";
import { size } from "../../../base/check.ts";
import { assert, BlockError } from "../../../base/errors.ts";
import { cipherMode, cipherName, hashName, ivGenerator } from "../../../block/cipher-names.ts";
import type { OpenContext, SectorCipher } from "../../../block/driver.ts";
import type { Secrets } from "../../../block/secrets.ts";
import { xtsKey } from "../../../kernel/aes.ts";
import type { Kernel } from "../../../kernel/kernel.ts";
import { HASHES, HEADER_BYTES, type LuksHeader, parseLuks, SECTOR_BYTES } from "../luks/header.ts";
import { type LuksArea, unlock } from "../luks/unlock.ts";
import type { Image } from "./image.ts";
import type { OpenOptions } from "./open-options.ts";

export interface Encryption {
  /** As in the file now: amend.ts replaces it. */
  header: LuksHeader;
  readonly area: LuksArea;
  /** null: the image was opened without it, only to be looked at. */
  readonly key: Uint8Array | null;
  readonly cipher: SectorCipher;
}

/**
 * @param before of the same node, reopened: the key that it has is taken again if it still fits
 * @throws BlockError EINVAL, ENOTSUP, EFBIG for what the header says; EINVAL, ENOENT without a secret,
 *   EACCES with the wrong one
 */
export async function openEncryption(
  image: Image,
  { options, noIo, secrets, signal }: OpenContext<OpenOptions>,
  before: Encryption | null,
): Promise<Encryption | null> {
  const place = image.extensions.encryption;
  const wanted = options.encrypt;
  if (!place) {
    if (!wanted) return null;
    throw new BlockError("EINVAL", "'encrypt' is given, but the image is not encrypted");
  }
  if (wanted && wanted.format !== "luks") {
    throw new BlockError("EINVAL", `The image is encrypted with 'luks', not '${wanted.format}'`);
  }
  const { file, kernel } = image;
  if (place.offset + place.bytes > file.length) {
    throw new BlockError(
      "EINVAL",
      `The keys of the image end at ${place.offset + place.bytes}, past the file's end at ${file.length}`,
    );
  }
  const area: LuksArea = {
    bytes: place.bytes,
    read: (buf, offset) => file.read(buf, place.offset + offset),
    write: (buf, offset) => file.write(buf, place.offset + offset),
    flush: () => file.flush(),
  };
  const bytes = new Uint8Array(Math.min(HEADER_BYTES, place.bytes));
  await area.read(bytes, 0);
  const header = parseLuks(bytes, place.bytes);
  if (noIo) return { header, area, key: null, cipher: NO_KEY };
  const secret = wanted?.["key-secret"];
  if (secret === undefined) {
    throw new BlockError(
      "EINVAL",
      "Parameter 'encrypt.key-secret' is missing: the image is encrypted",
    );
  }
  const passphrase = secretOf(secrets, secret);
  const known = before?.key && `${before.header.digest}` === `${header.digest}` ? before.key : null;
  const key =
    known ?? (await unlock({ kernel, area, header, passphrase, ...(signal && { signal }) }));
  return { header, area, key, cipher: cipherOf(kernel, key) };
}

/** @throws BlockError ENOENT, EINVAL */
export function secretOf(secrets: Secrets | undefined, id: string): Uint8Array {
  if (!secrets) throw new BlockError("ENOENT", `No secret with id '${id}'`);
  return secrets.passphrase(id);
}

export function cipherOf(kernel: Kernel, key: Uint8Array): SectorCipher {
  const xts = xtsKey(key);
  const sectorOf = (offset: number) => {
    assert(offset % SECTOR_BYTES === 0, "data is encrypted in whole sectors");
    return offset / SECTOR_BYTES;
  };
  return {
    encrypt: (buf, offset) => kernel.xts(buf, xts, sectorOf(offset), "encrypt"),
    decrypt: (buf, offset) => kernel.xts(buf, xts, sectorOf(offset), "decrypt"),
  };
}

const withoutKey = (): never => {
  throw new BlockError("EACCES", "The image was opened without its key: its data cannot be read");
};
const NO_KEY: SectorCipher = { encrypt: withoutKey, decrypt: withoutKey };

/** blockdev-add's `encrypt` (QEMU: BlockdevQcow2Encryption). */
export const openEncrypt = v.variant("format", [
  v.strictObject({ format: v.literal("aes"), "key-secret": v.optional(v.string()) }),
  v.strictObject({ format: v.literal("luks"), "key-secret": v.optional(v.string()) }),
]);

/** blockdev-create's (QEMU: QCryptoBlockCreateOptions). */
export const createEncrypt = v.variant("format", [
  v.strictObject({ format: v.literal("qcow"), "key-secret": v.optional(v.string()) }),
  v.strictObject({
    format: v.literal("luks"),
    "key-secret": v.optional(v.string()),
    "cipher-alg": v.optional(cipherName),
    "cipher-mode": v.optional(cipherMode),
    "ivgen-alg": v.optional(ivGenerator),
    "ivgen-hash-alg": v.optional(hashName),
    "hash-alg": v.optional(hashName),
    /** In milliseconds. */
    "iter-time": v.optional(size),
  }),
]);
export type CreateEncrypt = v.InferOutput<typeof createEncrypt>;

/** x-blockdev-amend's (QEMU: QCryptoBlockAmendOptions). */
export const amendEncrypt = v.variant("format", [
  v.strictObject({ format: v.literal("qcow") }),
  v.strictObject({
    format: v.literal("luks"),
    state: v.picklist(["active", "inactive"]),
    "new-secret": v.optional(v.string()),
    "old-secret": v.optional(v.string()),
    keyslot: v.optional(v.pipe(v.number(), v.safeInteger())),
    "iter-time": v.optional(size),
    secret: v.optional(v.string()),
  }),
]);
export type AmendEncrypt = v.InferOutput<typeof amendEncrypt>;

/**
 * What a new image is to be encrypted with.
 *
 * @throws BlockError ENOTSUP that names what is not supported, EINVAL without a secret
 */
export function newLuksOf(encrypt: CreateEncrypt, secrets: Secrets | undefined) {
  const refuse = (what: string, instead: string) =>
    new BlockError("ENOTSUP", `Encryption with ${what} is not supported; ${instead}`);
  if (encrypt.format !== "luks") throw refuse("AES-CBC ('qcow')", "'luks' is");
  const cipher = encrypt["cipher-alg"] ?? "aes-256";
  const mode = encrypt["cipher-mode"] ?? "xts";
  const generator = encrypt["ivgen-alg"] ?? "plain64";
  const name = encrypt["hash-alg"] ?? "sha256";
  const keyBytes = { "aes-128": 32, "aes-192": 48, "aes-256": 64 }[cipher as string];
  if (keyBytes === undefined) throw refuse(`'${cipher}'`, "aes-128, aes-192 and aes-256 are");
  if (mode !== "xts") throw refuse(`the mode '${mode}'`, "'xts' is");
  if (generator !== "plain64") throw refuse(`IVs by '${generator}'`, "'plain64' is");
  const hash = HASHES.find((one) => one === name);
  if (!hash) throw refuse(`the hash '${name}'`, `${HASHES.join(", ")} are`);
  const secret = encrypt["key-secret"];
  if (secret === undefined) {
    throw new BlockError("EINVAL", "Parameter 'encrypt.key-secret' is missing: the passphrase");
  }
  const passphrase = secretOf(secrets, secret);
  return { keyBytes, hash, passphrase, iterTimeMs: encrypt["iter-time"] };
}
