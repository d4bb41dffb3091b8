/**
 * Another size for a disk: grow.ts and shrink.ts.
 */

import { BlockError } from "../../../base/errors.ts";
import type { TruncateOptions } from "../../../block/driver.ts";
import { grow } from "./grow.ts";
import type { Image } from "./image.ts";
import { SECTOR_BYTES } from "./layout.ts";
import { shrink } from "./shrink.ts";

/**
 * Makes the disk `length` bytes long. Caller holds the mutex; no request is in flight.
 *
 * @throws BlockError EINVAL if not whole sectors; ENOTSUP where version 2 has no place for the sizes of
 *   snapshots; see grow() and shrink()
 */
export async function resize(
  image: Image,
  length: number,
  options: TruncateOptions,
): Promise<void> {
  const { header } = image;
  if (length % SECTOR_BYTES !== 0) {
    throw new BlockError("EINVAL", `The new size must be a multiple of ${SECTOR_BYTES}`);
  }
  if (header.version === 2 && header.snapshotCount > 0) {
    throw new BlockError("ENOTSUP", "A version 2 image with snapshots cannot change its size");
  }
  if (length > header.size) await grow(image, length, options);
  else if (length < header.size) await shrink(image, length);
}
