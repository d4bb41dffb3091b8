/**
 * What the persistent bitmaps of an image refer to. When their directory makes no sense nobody can load
 * them, and nobody may write to the image: a repair turns them off, which costs a full backup and not a
 * disk.
 */

import {
  type DirectoryEntry,
  findDirectory,
  readDirectory,
  tableEntries,
} from "../bitmap-directory.ts";
import { Autoclear } from "../header.ts";
import type { Checked } from "./context.ts";
import { problemOf, type Walk } from "./walk.ts";

/** Turns off bitmaps that make no sense, if that is allowed. To be called before the first walk. */
export async function repairBitmaps({ image, fix, tally }: Checked): Promise<void> {
  const problem = await problemOf(() => checkAll(image));
  if (!problem) return;
  if (fix !== "all") {
    tally.corruption(problem.message);
    tally.isIncomplete = true;
    return;
  }
  tally.fixedCorruption(`${problem.message}: the bitmaps are turned off`);
  const { hi, lo } = image.header.autoclear;
  await image.writeAutoclear({ hi, lo: (lo & ~Autoclear.bitmaps) >>> 0 });
}

async function checkAll(image: Checked["image"]): Promise<void> {
  await readDirectory(image);
}

export async function countBitmaps(walk: Walk): Promise<void> {
  const { image, tally } = walk.checked;
  let entries: readonly DirectoryEntry[] = [];
  const problem = await problemOf(async () => {
    const directory = findDirectory(image.header, image.extensions);
    if (!directory) return;
    walk.countRegion("bitmap directory", directory.offset, directory.bytes);
    entries = await readDirectory(image);
  });
  // Told already.
  if (problem) return;
  for (const entry of entries) {
    walk.countRegion(`table of bitmap '${entry.name}'`, entry.tableOffset, entry.tableEntries * 8);
    let index = 0;
    for await (const found of tableEntries(image, entry)) {
      if (found.kind === "invalid") {
        tally.corruption(`Entry ${index} of bitmap '${entry.name}' is not valid`);
      }
      if (found.kind === "data") walk.count(found.offset, image.layout.clusterBytes, 1);
      index++;
      if (index % 8192 === 0) await tally.step(65536);
    }
  }
}
