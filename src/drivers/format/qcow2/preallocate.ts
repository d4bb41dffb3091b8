/**
 * A place for every cluster of a new disk, before anything is written there.
 */

import { MiB } from "../../../base/bytes.ts";
import { throwIfAborted } from "../../../base/errors.ts";
import type { BlockChild } from "../../../block/child.ts";
import type { CreateContext } from "../../../block/driver.ts";
import { allocateLocked } from "./allocate.ts";
import { readImage } from "./open.ts";
import { writeZeroesLocked } from "./zeroes.ts";

const ZEROES = new Uint8Array(1 * MiB);

/**
 * Maps the whole disk; the file ends after the last cluster, so that all of them read as zeroes.
 *
 * @param fill write these zeroes, too: where files may have holes that takes the room for good
 * @throws BlockError what the file throws; the image is a whole one then, with less preallocated
 */
export async function preallocate(
  { world, signal }: CreateContext<unknown>,
  file: BlockChild,
  fill: boolean,
): Promise<void> {
  const image = await readImage({
    world,
    nodeName: "new image",
    readOnly: false,
    children: { file },
    options: {},
    // Nothing is encrypted here.
    noIo: true,
    ...(signal && { signal }),
  });
  try {
    await image.mutex.run(async () => {
      const { size } = image.header;
      let end = 0;
      for (let at = 0; at < size; ) {
        const room = await allocateLocked(image, at, size - at);
        if (!image.externalData) end = Math.max(end, room.offset + room.bytes + room.tailBytes);
        // Fresh ends of files and new clusters alike: nothing must show what lay there before.
        if (file.length < end) await file.truncate(end);
        if (fill && !image.externalData) await writeZeroes(file, room.offset, room.bytes, signal);
        await room.commitLocked();
        // What was never encrypted does not decrypt to zeroes: the clusters have to say so.
        if (image.encryption) await writeZeroesLocked(image, at, room.bytes);
        at += room.bytes;
      }
      await image.epoch.finish();
    });
  } finally {
    image.pages.close();
  }
}

async function writeZeroes(
  file: BlockChild,
  offset: number,
  bytes: number,
  signal: AbortSignal | undefined,
): Promise<void> {
  for (let done = 0; done < bytes; ) {
    throwIfAborted(signal);
    const piece = Math.min(bytes - done, ZEROES.length);
    await file.write(ZEROES.subarray(0, piece), offset + done);
    done += piece;
  }
}
