/**
 * The work of block-stream: whose is this range? copy it up if a lower layer decides it
 * (QEMU: stream_run() in block/stream.c).
 */

import { alignUp } from "../base/bytes.ts";
import type { BlockBackend } from "../block/backend.ts";
import * as io from "../block/io.ts";
import type { BlockNode } from "../block/node.ts";
import { placed } from "../block/request.ts";
import { backingOf, chainStatus } from "../block/status.ts";
import type { BlockJob } from "./block-job.ts";
import { LinearCopy } from "./linear-copy.ts";

/**
 * @param source the job's way to the copy-on-read filter over `overlay`
 * @param lowest the last layer to pull; what is below it stays there
 */
export function streamRun(
  job: BlockJob,
  source: BlockBackend,
  overlay: BlockNode,
  lowest: BlockNode,
): LinearCopy {
  const granule = Math.max(1, overlay.state.limits.clusterSize);
  return new LinearCopy(job, {
    length: source.length,
    granule,
    whenIgnored: "pass",

    async look(offset, bytes) {
      // Afresh: a commit may have put another image there.
      const base = backingOf(lowest);
      const run = await chainStatus(overlay, base, offset, bytes);
      const isInherited = run.node !== null && run.node !== overlay;
      // With no backing file left, what the overlay does not hold reads as zeroes by itself.
      const isNeeded = isInherited && !(run.zero && base === null);
      if (!isNeeded) return { bytes: run.bytes, action: "pass" };
      // All of the overlay's cluster comes up with its first byte.
      const end = Math.min(alignUp(offset + run.bytes, granule), offset + bytes);
      return { bytes: end - offset, action: "copy" };
    },

    copy({ offset, bytes }) {
      job.trace?.stream_one_iteration?.(job.id ?? "", offset, bytes);
      return source.copyUp(offset, bytes, { signal: job.signal });
    },

    flush: () =>
      placed({ node: overlay.name, op: "flush", offset: 0, bytes: 0 }, () => io.flush(overlay)),
  });
}
