/**
 * What the image says about itself (QEMU: ImageInfoSpecificQCow2 in qapi/block-core.json).
 */

import type { StateInfo } from "../../../block/driver.ts";
import { luksInfo } from "../luks/header.ts";
import { Compatible, Incompatible } from "./header.ts";
import type { Image } from "./image.ts";

export function infoOf(image: Image): StateInfo {
  const { header, extensions, layout } = image;
  const { backingName, backingFormat, dataFileName } = extensions;
  return {
    "cluster-size": layout.clusterBytes,
    ...(image.encryption && { encrypted: true }),
    "dirty-flag": (header.incompatible.lo & Incompatible.dirty) !== 0,
    ...(backingName !== null && { "backing-filename": backingName }),
    ...(backingName !== null &&
      backingFormat !== null && { "backing-filename-format": backingFormat }),
    "format-specific": {
      type: "qcow2",
      data: {
        compat: header.version === 3 ? "1.1" : "0.10",
        "compression-type": header.compression,
        ...(header.version === 3 && {
          "lazy-refcounts": (header.compatible.lo & Compatible.lazyRefcounts) !== 0,
        }),
        "refcount-bits": 2 ** layout.refcountOrder,
        ...(image.encryption && { encrypt: luksInfo(image.encryption.header) }),
        ...(dataFileName !== null && { "data-file": dataFileName }),
        ...(image.externalData && { "data-file-raw": image.isRawExternal }),
        ...(header.version === 3 && {
          corrupt: image.isCorrupt,
          "extended-l2": layout.extendedL2,
        }),
      },
    },
  };
}
