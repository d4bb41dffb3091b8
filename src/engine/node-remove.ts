/** Takes an image's file away, on Node: a plain file, and none that somebody has open here. */

import { lstat, stat, unlink } from "node:fs/promises";
import { BlockError } from "../base/errors.ts";
import { storeError } from "../drivers/protocol/errors.ts";

/**
 * That there is no such file is no error.
 *
 * @param open names of files that stay, whatever name `filename` has for one of them
 * @throws BlockError EBUSY if it is one of those; EINVAL if it is no plain file; EACCES and the like
 */
export async function removeFile(filename: string, open: readonly string[]): Promise<void> {
  const found = await attempt(filename, () => lstat(filename, { bigint: true }));
  if (!found) return;
  if (!found.isFile()) throw new BlockError("EINVAL", `'${filename}' is not a plain file`);
  for (const name of open) {
    const other = await attempt(name, () => stat(name, { bigint: true }));
    if (other?.ino !== found.ino || other.dev !== found.dev) continue;
    throw new BlockError("EBUSY", `'${filename}' is in use`);
  }
  await attempt(filename, () => unlink(filename));
}

/** @returns null if there is no such file */
async function attempt<T>(filename: string, step: () => Promise<T>): Promise<T | null> {
  try {
    return await step();
  } catch (error) {
    const told = storeError(error, `Removing '${filename}'`);
    if (told.errno === "ENOENT") return null;
    throw told;
  }
}
