/**
 * An overlay that has been committed decides nothing any more: its tables are given up, all at once.
 * Snapshots keep what is theirs. (QEMU: qcow2_make_empty() in block/qcow2.c.)
 *
 *     before   header ─▶ L1 ─▶ L2 tables ─▶ clusters         after   header ─▶ L1', nothing but zeroes
 *
 * It is a rebuild (rebuild.ts): a crash leaves the one or the other. The new tables stand behind all that
 * it has freed, and keep the file as long as it was. So it is done twice: the second time there is room
 * before them, and the end of the file is cut off.
 */

import type { Image } from "./image.ts";
import { l1EntriesFor } from "./layout.ts";
import { rebuild } from "./rebuild.ts";
import { giveUp, wholeL1 } from "./snapshots.ts";

/** Caller holds the mutex; no request is in flight. @throws BlockError as rebuild() */
export async function makeEmpty(image: Image): Promise<void> {
  await image.beginChange();
  await image.epoch.finish();
  for (let times = 0; times < 2; times++) await emptyOnce(image);
}

async function emptyOnce(image: Image): Promise<void> {
  const { size } = image.header;
  const old = wholeL1(image);
  await rebuild(image, {
    size,
    l1Entries: l1EntriesFor(image.layout, size),
    l2Tables: 0,
    snapshots: image.snapshots,
    fill: (build) => giveUp(image, build, old),
  });
}
