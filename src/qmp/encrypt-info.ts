/** What queries tell of an encrypted image: everything but what would open it. */

import * as v from "valibot";
import { cipherMode, cipherName, hashName, ivGenerator } from "../block/cipher-names.ts";
import { int } from "./schema.ts";
import { union } from "./union.ts";

/** ImageInfoSpecificQCow2Encryption: how the data is encrypted, and who may read it. */
export const qcow2EncryptInfo = union(
  "format",
  {},
  {
    aes: {},
    luks: {
      "cipher-alg": cipherName,
      "cipher-mode": cipherMode,
      "ivgen-alg": ivGenerator,
      "ivgen-hash-alg": v.exactOptional(hashName),
      "hash-alg": hashName,
      "detached-header": v.boolean(),
      "payload-offset": int,
      "master-key-iters": int,
      uuid: v.string(),
      slots: v.array(
        v.strictObject({
          active: v.boolean(),
          iters: v.exactOptional(int),
          stripes: v.exactOptional(int),
          "key-offset": int,
        }),
      ),
    },
  },
);
