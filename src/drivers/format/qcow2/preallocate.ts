/**
 * A place for every cluster of a new disk, before anything is written there.
 */

import type { BlockChild } from "../../../block/child.ts";
import type { CreateContext } from "../../../block/driver.ts";
import { allocateLocked } from "./allocate.ts";
import { readImage } from "./open.ts";

/**
 * Maps the whole disk; the file ends after the last cluster, so that all of them read as zeroes.
 *
 * @throws BlockError what the file throws; the image is a whole one then, with less preallocated
 */
export async function preallocate(
  { world, signal }: CreateContext<unknown>,
  file: BlockChild,
): Promise<void> {
  const image = await readImage({
    world,
    nodeName: "new image",
    readOnly: false,
    children: { file },
    options: {},
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
        await room.commitLocked();
        at += room.bytes;
      }
      await image.epoch.finish();
    });
  } finally {
    image.pages.close();
  }
}
