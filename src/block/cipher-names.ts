/**
 * QEMU's words for ciphers (qapi/crypto.json). Which of them a driver takes is the driver's affair: it
 * refuses the others by name.
 */

import * as v from "valibot";

export const cipherName = v.picklist([
  "aes-128",
  "aes-192",
  "aes-256",
  "des",
  "3des",
  "cast5-128",
  "serpent-128",
  "serpent-192",
  "serpent-256",
  "twofish-128",
  "twofish-192",
  "twofish-256",
  "sm4",
]);

export const hashName = v.picklist([
  "md5",
  "sha1",
  "sha224",
  "sha256",
  "sha384",
  "sha512",
  "ripemd160",
  "sm3",
]);

export const cipherMode = v.picklist(["ecb", "cbc", "xts", "ctr"]);
export const ivGenerator = v.picklist(["plain", "plain64", "essiv"]);
