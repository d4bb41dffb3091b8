/**
 * Checking an image, and mending it, in this order:
 *
 *     1. snapshot table: read         what its entries refer to must be known
 *     2. uses: noted                  before a repair: what it must not write over
 *     3. references: counted          entries that cannot be right are mended on the way
 *     4. refcounts: compared          mended in place, or all made anew
 *     5. COPIED flags                 by the refcounts as they are now
 *     6. snapshot table: mended       needs refcounts that hold
 *     7. the dirty and corrupt marks  gone if nothing is left
 *
 * From its first write to its last a repair has the image marked dirty. A crash in between leaves
 * something that another repair mends: references only go where nothing was, or were never good; refcounts
 * come nearer to what they must be, or are switched as a whole.
 */

import { alignDown } from "../../../../base/bytes.ts";
import type { Clock } from "../../../../base/clock.ts";
import { BlockError } from "../../../../base/errors.ts";
import type { CheckRequest, CheckResult } from "../../../../block/check.ts";
import { findDirectory } from "../bitmap-directory.ts";
import { Guard } from "../guard.ts";
import { Incompatible } from "../header.ts";
import type { Image } from "../image.ts";
import { SECTOR_BYTES } from "../layout.ts";
import { isPossibleL1 } from "../snapshot-table.ts";
import { repairBitmaps } from "./bitmap-check.ts";
import { compare } from "./compare.ts";
import { type Checked, fileBytes, writeIncompatible } from "./context.ts";
import { checkCopied } from "./copied.ts";
import { rebuildRefcounts } from "./rebuild-refcounts.ts";
import { readBlockTable } from "./refcount-blocks.ts";
import { RefcountOnes } from "./refcount-ones.ts";
import { COUNT_BYTES } from "./reference-counts.ts";
import { readSnapshotTable, repairSnapshotTable } from "./snapshot-check.ts";
import { Tally } from "./tally.ts";
import { Uses } from "./uses.ts";
import { problemOf, Walk } from "./walk.ts";

/** More clusters nobody checks (QEMU: INT_MAX). */
const CLUSTERS_MAX = 2 ** 31 - 1;

/**
 * @param image opened for checking: nothing of it is in memory
 * @param countBytes most memory for the counts of one walk
 * @throws BlockError EFBIG, EIO where refcounts must be made anew and may not; what reading throws
 */
export async function checkImage(
  image: Image,
  request: CheckRequest,
  clock: Clock,
  countBytes = COUNT_BYTES,
): Promise<CheckResult> {
  const tally = new Tally(request, clock);
  const { fix } = request;
  const wasMarked = image.header.incompatible.lo;
  const { snapshots, wrong } = await readSnapshotTable(image, tally);
  const nothing = new Guard(image.layout.clusterBytes);
  const checked: Checked = {
    image,
    fix,
    tally,
    snapshots,
    countBytes,
    guard: nothing,
    uses: null,
    beyond: [],
  };
  const clusters = Math.ceil(fileBytes(checked) / image.layout.clusterBytes);
  if (clusters > CLUSTERS_MAX) {
    throw new BlockError(
      "EFBIG",
      `The file has ${clusters} clusters; at most ${CLUSTERS_MAX} can be checked`,
    );
  }
  tally.counts["total-clusters"] = Math.ceil(
    alignDown(image.header.size, SECTOR_BYTES) / image.layout.clusterBytes,
  );
  await repairBitmaps(checked);
  if (fix !== "none") checked.uses = await findUses(checked, request, clock, clusters);
  const ones = new RefcountOnes(clusters);
  await checkRefcounts(checked, ones);
  await checkCopied(checked, await readBlockTable(checked), ones);
  await repairSnapshotTable(checked, wrong);
  if (fix !== "none") await finishRepair(checked, wasMarked);
  tally.finish();
  return { ...tally.counts };
}

/** Looked for before anything is written. */
async function findUses(
  checked: Checked,
  { signal }: CheckRequest,
  clock: Clock,
  clusters: number,
): Promise<Uses> {
  const uses = new Uses(clusters);
  const tally = new Tally({ fix: "none", ...(signal && { signal }) }, clock);
  tally.isSilent = true;
  await new Walk({ ...checked, fix: "none", tally, beyond: [] }, 0, uses).run(false);
  return uses;
}

async function checkRefcounts(checked: Checked, ones: RefcountOnes): Promise<void> {
  const { tally, fix } = checked;
  const blocks = await readBlockTable(checked);
  checked.guard = await placesOf(checked, blocks);
  for (let start = 0; start !== Number.POSITIVE_INFINITY; ) {
    const walk = new Walk(checked, start);
    tally.isSilent = start > 0;
    await walk.run();
    tally.isSilent = false;
    if (tally.needsRebuild && fix === "leaks") throw needsAll();
    await compare(walk, blocks, tally.needsRebuild ? "none" : fix, ones);
    start = walk.counts.end;
  }
  if (!tally.needsRebuild || fix === "none") return;
  if (fix === "leaks") throw needsAll();
  await rebuildRefcounts(checked, ones);
  checked.guard = await placesOf(checked, await readBlockTable(checked));
  tally.settleRebuilt();
}

/** QEMU's repair of leaks ends in the same way. */
function needsAll(): BlockError {
  return new BlockError(
    "EIO",
    "Refcounts are missing, so leaks alone cannot be repaired: repair all (check -r all)",
  );
}

/** Tables that are no L2 tables: none of theirs may be written over as if it was one. */
async function placesOf({ image, snapshots }: Checked, blocks: Float64Array): Promise<Guard> {
  const { header, layout, extensions } = image;
  const guard = new Guard(layout.clusterBytes);
  guard.setArea("header", 0, layout.clusterBytes);
  guard.setArea(
    "refcount table",
    header.refcountTableOffset,
    header.refcountTableClusters * layout.clusterBytes,
  );
  guard.setArea("L1 table", header.l1Offset, header.l1Entries * 8);
  const tableBytes = snapshots.reduce((sum, entry) => sum + entry.tableBytes, 0);
  guard.setArea("snapshot table", header.snapshotsOffset, tableBytes);
  for (const [i, entry] of snapshots.entries()) {
    if (entry.l1.entries === 0 || !isPossibleL1(entry, header)) continue;
    guard.setArea(`snapshot ${i}'s L1 table`, entry.l1.offset, entry.l1.entries * 8);
  }
  await problemOf(async () => {
    const directory = findDirectory(header, extensions);
    if (directory) guard.setArea("bitmap directory", directory.offset, directory.bytes);
  });
  for (const offset of blocks) guard.addTable(offset, "refcount block");
  return guard;
}

/** What the image is marked with says how it is: nothing wrong, or as before. */
async function finishRepair({ image, tally }: Checked, wasMarked: number): Promise<void> {
  const { counts } = tally;
  const { dirty, corrupt } = Incompatible;
  const isWell = counts["check-errors"] === 0 && counts.corruptions === 0;
  const wanted = isWell ? wasMarked & ~(dirty | corrupt) : wasMarked;
  if (wanted === image.header.incompatible.lo) {
    if (counts["corruptions-fixed"] + counts["leaks-fixed"] > 0) await image.file.flush();
    return;
  }
  await image.file.flush();
  await writeIncompatible(image, wanted >>> 0);
  image.isCorrupt = (wanted & corrupt) !== 0;
}
