/**
 * An entry of a table that cannot be, met on the way to a change. Whoever reads is told, and that is all;
 * whoever writes finds the image marked corrupt from then on, so that nobody goes on to write to tables
 * of which one is known to be wrong. (QEMU: qcow2_signal_corruption(), which marks for a reader, too.)
 */

import { BlockError } from "../../../base/errors.ts";
import type { Image } from "./image.ts";

export class CorruptEntry extends BlockError {
  constructor(message: string) {
    super("EIO", message);
  }
}

/**
 * Does what changes an image. Where that meets such an entry, all that was changed before goes into the
 * file first: nothing is wrong with it.
 *
 * @param work takes the mutex itself
 */
export async function marking<T>(image: Image, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof CorruptEntry) throw await image.mutex.run(() => mark(image, error));
    throw error;
  }
}

async function mark(image: Image, found: CorruptEntry): Promise<BlockError> {
  if (image.isCorrupt) return found;
  try {
    await image.epoch.finish();
  } catch (error) {
    // What it met may be the same entry; the mark matters more.
    if (!(error instanceof BlockError)) throw error;
  }
  return image.markCorrupt(found);
}
