/**
 * What a secret object is made of (QEMU: SecretProperties in qapi/crypto.json). Errors about one name the
 * member, never what is in it.
 */

import * as v from "valibot";
import { BlockError } from "../base/errors.ts";

export const secretProperties = {
  /** The secret itself, */
  data: v.optional(v.string()),
  /** or the file that it is in. */
  file: v.optional(v.string()),
  format: v.optional(v.picklist(["raw", "base64"])),
  // Of secrets that are encrypted with another one.
  keyid: v.optional(v.string()),
  iv: v.optional(v.string()),
};
export type SecretProperties = v.InferOutput<
  v.StrictObjectSchema<typeof secretProperties, undefined>
>;

/** @throws BlockError EINVAL that names the member, ENOTSUP; what reading the file throws */
export async function secretOf(
  { data, file, format = "raw", keyid, iv }: SecretProperties,
  readFile: ((filename: string) => Promise<Uint8Array>) | undefined,
): Promise<Uint8Array> {
  if (keyid !== undefined || iv !== undefined) {
    throw new BlockError(
      "ENOTSUP",
      "Secrets that are encrypted with another one ('keyid', 'iv') are not supported; use 'file'",
    );
  }
  if (data !== undefined && file !== undefined) {
    throw new BlockError("EINVAL", "'file' and 'data' exclude each other");
  }
  if (file !== undefined) {
    if (!readFile) throw new BlockError("ENOTSUP", "There are no files here: use 'data'");
    const bytes = await readFile(file);
    return format === "raw" ? bytes : decoded(new TextDecoder().decode(bytes), "file");
  }
  if (data === undefined) throw new BlockError("EINVAL", "Either 'file' or 'data' must be given");
  return format === "raw" ? new TextEncoder().encode(data) : decoded(data, "data");
}

/** Line ends are allowed: tools put them there. */
function decoded(text: string, member: string): Uint8Array {
  const digits = text.replace(/[\r\n]/g, "");
  if (/^[A-Za-z0-9+/]*={0,2}$/.test(digits) && digits.length % 4 === 0) {
    return Uint8Array.from(atob(digits), (character) => character.charCodeAt(0));
  }
  throw new BlockError("EINVAL", `'${member}' is not what its format 'base64' looks like`);
}
