/**
 * The end of a mirror job: the filter goes, and in a good end the target takes the source's place.
 *
 *   before   device ──▶ [mirror_top] ──▶ [source]      [target]
 *   after    device ──▶ [target]         [source]                completed: the pivot
 *   after    device ──▶ [source]         [target]                cancelled, failed
 *
 * All of it in the drained section in which run() found both disks to be the same; where there is
 * none, in one of its own. (QEMU: mirror_exit_common() in block/mirror.c.)
 */

import { assert, BlockError } from "../base/errors.ts";
import type { BlockBackend } from "../block/backend.ts";
import type { DirtyBitmap } from "../block/dirty-bitmap.ts";
import type { Graph } from "../block/graph.ts";
import { getLength } from "../block/io.ts";
import type { BlockNode } from "../block/node.ts";
import { backingOf } from "../block/status.ts";
import type { BlockJob } from "./block-job.ts";
import type { MirrorTap } from "./mirror-filter.ts";
import type { MirrorIntent } from "./mirror-intent.ts";
import { type BackingMode, checkReplaceable, type MirrorSync } from "./mirror-options.ts";
import type { MirrorRun } from "./mirror-run.ts";

/** One mirror job, from its filter's insertion on. */
export interface Mirror {
  readonly graph: Graph;
  readonly source: BlockNode;
  readonly target: BlockNode;
  /** What is drained for the end. */
  readonly nodes: readonly BlockNode[];
  readonly replaced: BlockNode;
  readonly filter: BlockNode;
  readonly tap: MirrorTap;
  /** The node that holds the data, below the source's filters; its bitmap. */
  readonly data: BlockNode;
  readonly bitmap: DirtyBitmap;
  /** null: nothing of it outlives the engine. */
  readonly intent: MirrorIntent | null;
  readonly sync: MirrorSync;
  readonly backingMode: BackingMode;
  /** What the job holds of nodes that whoever takes them over may not share. */
  readonly holds: BlockBackend[];
  run: MirrorRun | null;
  isOver: boolean;
}

/**
 * Once for each mirror.
 *
 * @throws BlockError if the target cannot take the source's place: everything else has been done
 */
export async function endMirror(mirror: Mirror, job: BlockJob, isPivot: boolean): Promise<void> {
  assert(!mirror.isOver, "a mirror ends once");
  mirror.isOver = true;
  const { graph, filter, run } = mirror;
  mirror.tap.writes?.stop();
  const section = run?.section ?? (await graph.drain(mirror.nodes));
  let closeOld = async () => {};
  try {
    mirror.tap.writes = null;
    mirror.intent?.end();
    mirror.data.bitmaps.remove(mirror.bitmap);
    job.thaw();
    for (const hold of mirror.holds.splice(0)) await job.removeNode(hold);
    try {
      if (isPivot) closeOld = await pivot(mirror);
      section.atEnd(() => {
        job.hasTakenEffect = job.error === null;
        if (isPivot) mirror.target.isLentForWriting = false;
      });
    } finally {
      await graph.removeFilter(filter);
    }
  } finally {
    section.end();
  }
  await job.close(closeOld);
}

/** @returns to be called after the drained section */
async function pivot(mirror: Mirror): Promise<() => Promise<void>> {
  const { graph, source, target, replaced } = mirror;
  // Days may have gone by since the start.
  checkReplaceable(source, replaced);
  if (getLength(target) < getLength(replaced)) {
    throw new BlockError(
      "EPERM",
      `Node '${target.name}' has become shorter than '${replaced.name}', whose place it would take`,
    );
  }
  const putBack = mirror.backingMode === "source" ? takeBacking(mirror) : async () => {};
  await graph.reopen(target, { readOnly: replaced.readOnly });
  const letGo = graph.replaceNode(replaced, target);
  return async () => {
    await putBack();
    await letGo();
  };
}

/** Gives the target the backing file that it was made for. @returns to be called afterwards */
function takeBacking({ graph, source, target, sync }: Mirror): () => Promise<void> {
  if (sync === "none") return graph.setBacking(target, source);
  return graph.setBacking(target, sync === "top" ? backingOf(source) : null);
}
