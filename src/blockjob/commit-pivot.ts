/**
 * The end of an intermediate commit: base takes the place of the merged layers (QEMU:
 * bdrv_drop_intermediate() in block.c).
 *
 *   1  headers   [overlay]: "backing file: top" ──▶ "backing file: base"     what may fail
 *   2  links     [overlay] ──▶ [base]                                      all at once
 *
 * By then base reads as top does, so whoever finds the old name in a header and whoever finds the
 * new one see the same disk. Where a header cannot be written, those written before are put back.
 */

import { BlockError } from "../base/errors.ts";
import type { Graph } from "../block/graph.ts";
import * as io from "../block/io.ts";
import type { BlockNode } from "../block/node.ts";
import { chainOf, skipFilters } from "../block/status.ts";
import type { Job } from "../job/job.ts";
import { formatFor, nameFor } from "./backing-names.ts";
import type { Commit } from "./commit.ts";
import { overlaysAbove } from "./commit-plan.ts";
import { protect, withWritable } from "./writable.ts";

interface Label {
  readonly name: string | null;
  readonly format: string | null;
}

/**
 * How many bytes of base have to be gone over. Usually top's length; if base is longer, and an
 * overlay is longer than top, too: what base has there must not show up in the overlay, which reads
 * as zeroes past the end of top.
 */
export function committedLength({ plan, filter }: Commit): number {
  const overlays = Math.max(0, ...overlaysAbove(filter).map(io.getLength));
  return Math.max(io.getLength(plan.top), Math.min(io.getLength(plan.base), overlays));
}

/**
 * Gives all users of the commit's filter to base, and takes the filter out.
 *
 * @param dropWriter lets go of the job's right to write to base: who stands above may not share it
 * @throws BlockError; the links are as before then
 */
export async function dropMerged(
  commit: Commit,
  job: Job,
  dropWriter: () => Promise<void>,
): Promise<void> {
  const { services, plan, filter } = commit;
  const { graph } = services;
  await graph.drained([filter, plan.base], async (section) => {
    if (committedLength(commit) > commit.length) {
      throw new BlockError(
        "EINVAL",
        `An overlay of node '${plan.top.name}' has become longer than what was committed`,
      );
    }
    await dropWriter();
    const undo = await relabelAll(commit);
    try {
      graph.replaceNode(filter, plan.base);
    } catch (error) {
      throw await undo(error);
    }
    section.atEnd(() => {
      job.hasTakenEffect = true;
    });
  });
  await graph.removeFilter(filter);
  commit.isInserted = false;
}

/**
 * Writes base's name into the headers of all overlays.
 *
 * @returns to put them back, and to tell of what went wrong with that
 */
async function relabelAll(commit: Commit): Promise<(error: unknown) => Promise<unknown>> {
  const { services, filter, plan, options } = commit;
  const { graph } = services;
  const base = skipFilters(plan.base);
  const layers = chainOf(plan.top);
  const lowest = layers[layers.indexOf(base) - 1]!;
  const relabelled: { overlay: BlockNode; old: Label }[] = [];

  const undo = async (error: unknown): Promise<unknown> => {
    if (!(error instanceof BlockError)) return error;
    let told: BlockError = error;
    for (const { overlay, old } of relabelled.reverse()) {
      try {
        await relabel(graph, overlay, old);
      } catch (second) {
        if (!(second instanceof BlockError)) throw second;
        const stuck = `the header of node '${overlay.name}' already names the new backing file`;
        told = new BlockError(told.errno, `${told.message}; ${stuck}: ${second.message}`, {
          cause: error,
        });
      }
    }
    return told;
  };

  try {
    for (const overlay of overlaysAbove(filter)) {
      const name = options.backingFile ?? nameFor(overlay, lowest, base);
      const old = labelOf(overlay);
      await relabel(graph, overlay, {
        name,
        format: formatFor(base, options.maskProtocol ?? false),
      });
      relabelled.push({ overlay, old });
    }
  } catch (error) {
    throw await undo(error);
  }
  return undo;
}

/** In the header, and for good. A read-only overlay is made writable for that long. */
function relabel(graph: Graph, overlay: BlockNode, label: Label): Promise<void> {
  return withWritable(graph, overlay, async (wasReadOnly) => {
    await overlay.state.changeBackingFile?.(label.name, label.format);
    if (wasReadOnly) await protect(graph, overlay);
  });
}

function labelOf(overlay: BlockNode): Label {
  const info = overlay.state.info?.();
  return {
    name: info?.["backing-filename"] ?? null,
    format: info?.["backing-filename-format"] ?? null,
  };
}
