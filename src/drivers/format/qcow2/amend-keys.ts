/**
 * Other passphrases for an encrypted image; the key, and so the data, stays.
 */

import type { Clock } from "../../../base/clock.ts";
import { assert, BlockError } from "../../../base/errors.ts";
import type { AmendRequest } from "../../../block/driver.ts";
import { changeSlots } from "../luks/amend.ts";
import { unlock } from "../luks/unlock.ts";
import { type AmendEncrypt, secretOf } from "./encryption.ts";
import type { Image } from "./image.ts";

export interface AmendContext extends AmendRequest {
  readonly clock: Clock;
}

/** @throws BlockError ENOTSUP where nothing is encrypted; ENOENT (secrets); as changeSlots() */
export async function amendKeys(
  image: Image,
  encrypt: AmendEncrypt,
  { force, secrets, signal, clock }: AmendContext,
): Promise<void> {
  const { encryption, kernel } = image;
  if (!encryption) throw new BlockError("ENOTSUP", "The image is not encrypted, and stays so");
  if (encrypt.format !== "luks") {
    throw new BlockError("EINVAL", `The image is encrypted with 'luks', not '${encrypt.format}'`);
  }
  const { area, key, header } = encryption;
  assert(key, "an image that can be amended was opened with its key");
  const passphrase = (id: string | undefined) =>
    id === undefined ? undefined : secretOf(secrets, id);
  const change = {
    state: encrypt.state,
    slot: encrypt.keyslot,
    oldPassphrase: passphrase(encrypt["old-secret"]),
    newPassphrase: passphrase(encrypt["new-secret"]),
    iterTimeMs: encrypt["iter-time"],
    force,
  };
  // The key is known since the image was opened: this only asks whether the one who asks knows it.
  const known = passphrase(encrypt.secret);
  if (known) await unlock({ kernel, area, header, passphrase: known, ...(signal && { signal }) });
  await image.beginChange();
  const maker = { kernel, clock, ...(signal && { signal }) };
  await changeSlots(maker, encryption, key, change);
}
