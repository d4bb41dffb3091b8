/**
 * An opened qcow2 image as the block floor sees it: every request to the part that answers it.
 *
 * A disk whose size is no whole number of sectors is as long as the sectors it touches, and what is
 * missing of the last one reads as zeroes. Such an image is only read: see open.ts.
 */

import { alignUp, MiB } from "../../../base/bytes.ts";
import type { Clock } from "../../../base/clock.ts";
import { BlockError } from "../../../base/errors.ts";
import type { BlockState } from "../../../block/driver.ts";
import { allocate } from "./allocate.ts";
import { amend, type ImageAmend } from "./amend.ts";
import { bitmapStoreOf } from "./bitmaps.ts";
import { readEncoded, writeCompressed } from "./compressed.ts";
import { marking } from "./corrupt-entry.ts";
import { makeEmpty } from "./empty.ts";
import type { Encryption } from "./encryption.ts";
import { cutFileEnd } from "./file-end.ts";
import type { Image } from "./image.ts";
import { infoOf } from "./info.ts";
import { mapRun } from "./l2.ts";
import { SECTOR_BYTES } from "./layout.ts";
import type { OpenOptions } from "./open-options.ts";
import { checkPlausible } from "./plausible.ts";
import { resize } from "./resize.ts";
import { changeBackingFile } from "./rewrite.ts";
import { snapshotsOf } from "./snapshots.ts";
import { discard, writeZeroes } from "./zeroes.ts";

/** More bytes than these, written since a flush began, are flushed before the mutex is taken. */
const MUCH_BYTES = 16 * MiB;

/** Reads the image anew, from what is its file now. */
type OpenAs = (
  readOnly: boolean,
  options: OpenOptions,
  before: Encryption | null,
) => Promise<Image>;

export function stateOf(
  first: Image,
  openAs: OpenAs,
  given: OpenOptions,
  clock: Clock,
): BlockState {
  let image = first;
  let options = given;
  let unflushedBytes = 0;
  const { clusterBytes } = image.layout;
  return {
    limits: {
      requestAlignment: image.encryption ? SECTOR_BYTES : 1,
      clusterSize: clusterBytes,
      hasSubclusters: image.layout.subclusters > 1,
      growable: false,
    },
    getLength: () => alignUp(image.header.size, SECTOR_BYTES),

    async map(offset, bytes) {
      const inside = image.header.size - offset;
      if (inside <= 0) return { kind: "zero", bytes };
      return mapRun(image, offset, Math.min(bytes, inside));
    },
    get cipher() {
      return image.encryption?.cipher;
    },
    readEncoded: (buf, offset) => readEncoded(image, buf, offset),
    allocate(offset, bytes, options) {
      unflushedBytes += bytes;
      return marking(image, () => allocate(image, offset, bytes, options));
    },
    pwriteZeroes: (offset, bytes, options) =>
      marking(image, () => writeZeroes(image, offset, bytes, options)),
    pdiscard: (offset, bytes, options) =>
      marking(image, () => discard(image, offset, bytes, options)),
    pwriteCompressed: (buf, offset) => marking(image, () => writeCompressed(image, buf, offset)),

    truncate: (length, options = {}) =>
      marking(image, () => image.mutex.run(() => resize(image, length, options))),
    changeBackingFile: (name, format) =>
      image.mutex.run(() => changeBackingFile(image, name, format)),
    makeEmpty: () => image.mutex.run(() => makeEmpty(image)),
    amend: (options, request) =>
      image.mutex.run(
        () =>
          amend(image, options as ImageAmend, (length) => resize(image, length, {}), {
            ...request,
            clock,
          }),
        request.signal,
      ),
    get bitmapStore() {
      return bitmapStoreOf(image);
    },
    get snapshots() {
      return snapshotsOf(image);
    },
    flush: () =>
      marking(image, async () => {
        // An epoch keeps all who allocate waiting: they need not wait for the store to write all this.
        const isMuch = unflushedBytes >= MUCH_BYTES;
        unflushedBytes = 0;
        if (isMuch) await image.epoch.flushStores();
        await image.mutex.run(() => flush(image));
      }),
    async reopen(readOnly, changed) {
      if (image.readOnly === readOnly && changed === undefined) return;
      const next = (changed as OpenOptions | undefined) ?? options;
      image = await reopen(image, readOnly, () => openAs(readOnly, next, image.encryption));
      options = next;
    },
    close: () => close(image),
    checkPlausible: () => checkPlausible(image),
    info: () => infoOf(image),
  };
}

async function flush(image: Image): Promise<void> {
  if (!image.hasBegunChanging) return;
  if (!image.isCorrupt) {
    await image.epoch.run();
    return cutFileEnd(image);
  }
  if (image.epoch.abandon()) {
    throw new BlockError(
      "EIO",
      `The image of node '${image.nodeName}' is corrupt: what was written to it since the last ` +
        "flush may be lost",
    );
  }
  await image.epoch.flushStores();
}

/**
 * Leaves the image in the file as close() does and goes on with it as open() finds it, with all that is
 * asked of an image to be written. So nothing of the one mode is left over in the other.
 */
async function reopen(
  image: Image,
  readOnly: boolean,
  openAnew: () => Promise<Image>,
): Promise<Image> {
  await finish(image);
  const next = await openAnew();
  try {
    // A version 2 header has no place to say that it is corrupt.
    if (!readOnly) image.checkUsable();
    if (next.layout.clusterBytes !== image.layout.clusterBytes) {
      throw new BlockError("ESTALE", `The image of node '${image.nodeName}' is another one now`);
    }
  } catch (error) {
    next.pages.close();
    throw error;
  }
  if (image.isCorrupt) next.isCorrupt = true;
  image.pages.close();
  return next;
}

async function finish(image: Image): Promise<void> {
  await image.mutex.run(async () => {
    if (!image.hasBegunChanging || image.isCorrupt) return;
    await image.epoch.finish();
    await cutFileEnd(image);
  });
}

async function close(image: Image): Promise<void> {
  try {
    await finish(image);
  } finally {
    image.pages.close();
  }
}
