/**
 * What both QMP and qemu-img tell of an image, in QEMU's words (ImageInfo, SnapshotInfo and
 * Qcow2BitmapInfo of qapi/block-core.json).
 */

import { BlockError } from "../base/errors.ts";
import type { BlockState, SnapshotInfo, StateInfo, StoredBitmap } from "./driver.ts";

/** None where the image's list cannot be read: whoever wants to use it is told why. */
export function snapshotsOf(state: BlockState): readonly SnapshotInfo[] {
  try {
    return state.snapshots?.list() ?? [];
  } catch (error) {
    if (error instanceof BlockError) return [];
    throw error;
  }
}

export function snapshotJson(info: SnapshotInfo) {
  return {
    id: info.id,
    name: info.name,
    "vm-state-size": info.vmStateBytes,
    "date-sec": info.dateSeconds,
    "date-nsec": info.dateNanoseconds,
    "vm-clock-sec": Math.floor(info.clockNanoseconds / 1e9),
    "vm-clock-nsec": info.clockNanoseconds % 1e9,
    ...(info.icount !== undefined && { icount: info.icount }),
  };
}

type Specific = NonNullable<StateInfo["format-specific"]>;

/** What the format tells, and the bitmaps that the image keeps, if it has some. */
export function withBitmaps(specific: Specific, bitmaps: readonly StoredBitmap[]): Specific {
  if (bitmaps.length === 0) return specific;
  const shown = bitmaps.map(({ name, granularity, enabled, inconsistent }) => ({
    flags: [...(inconsistent ? ["in-use"] : []), ...(enabled ? ["auto"] : [])],
    name,
    granularity,
  }));
  return { ...specific, data: { ...specific.data, bitmaps: shown } };
}
