/**
 * An opened qcow2 image as the block floor sees it: every request to the part that answers it.
 *
 * A disk whose size is no whole number of sectors is as long as the sectors it touches, and what is
 * missing of the last one reads as zeroes. Such an image is only read: see open.ts.
 */

import { alignUp } from "../../../base/bytes.ts";
import { BlockError } from "../../../base/errors.ts";
import type { BlockState } from "../../../block/driver.ts";
import { allocate } from "./allocate.ts";
import { readEncoded, writeCompressed } from "./compressed.ts";
import { grow } from "./grow.ts";
import type { Image } from "./image.ts";
import { infoOf } from "./info.ts";
import { mapRun } from "./l2.ts";
import { SECTOR_BYTES } from "./layout.ts";
import { changeBackingFile } from "./rewrite.ts";
import { discard, writeZeroes } from "./zeroes.ts";

export function stateOf(image: Image): BlockState {
  const { layout, mutex } = image;
  return {
    limits: { requestAlignment: 1, clusterSize: layout.clusterBytes, growable: false },
    getLength: () => alignUp(image.header.size, SECTOR_BYTES),

    async map(offset, bytes) {
      const inside = image.header.size - offset;
      if (inside <= 0) return { kind: "zero", bytes };
      return mapRun(image, offset, Math.min(bytes, inside));
    },
    readEncoded: (buf, offset) => readEncoded(image, buf, offset),
    allocate: (offset, bytes, options) => allocate(image, offset, bytes, options),
    pwriteZeroes: (offset, bytes, options) => writeZeroes(image, offset, bytes, options),
    pdiscard: (offset, bytes, options) => discard(image, offset, bytes, options),
    pwriteCompressed: (buf, offset) => writeCompressed(image, buf, offset),

    truncate: (length) => mutex.run(() => grow(image, length)),
    changeBackingFile: (name, format) => mutex.run(() => changeBackingFile(image, name, format)),
    flush: () => mutex.run(() => flush(image)),
    close: () => close(image),
    info: () => infoOf(image),
  };
}

async function flush(image: Image): Promise<void> {
  if (!image.hasBegunChanging) return;
  if (!image.isCorrupt) return image.epoch.run();
  if (image.epoch.abandon()) {
    throw new BlockError(
      "EIO",
      `The image of node '${image.nodeName}' is corrupt: what was written to it since the last ` +
        "flush may be lost",
    );
  }
  await image.epoch.flushStores();
}

async function close(image: Image): Promise<void> {
  try {
    await image.mutex.run(async () => {
      if (image.hasBegunChanging && !image.isCorrupt) await image.epoch.finish();
    });
  } finally {
    image.pages.close();
  }
}
