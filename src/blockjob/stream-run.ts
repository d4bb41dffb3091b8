/**
 * The work of block-stream: whose is this range? copy it up if a lower layer decides it
 * (QEMU: stream_run() in block/stream.c).
 */

import type { BlockBackend } from "../block/backend.ts";
import * as io from "../block/io.ts";
import type { BlockNode } from "../block/node.ts";
import { placed } from "../block/request.ts";
import { chainStatus } from "../block/status.ts";
import type { BlockJob } from "./block-job.ts";
import { LinearCopy } from "./linear-copy.ts";

/**
 * @param source the job's way to the copy-on-read filter over `overlay`
 * @param base the layer that stays below; null: the whole chain is streamed
 */
export function streamRun(
  job: BlockJob,
  source: BlockBackend,
  overlay: BlockNode,
  base: BlockNode | null,
): LinearCopy {
  return new LinearCopy(job, {
    length: source.length,
    granule: Math.max(1, overlay.state.limits.clusterSize),
    whenIgnored: "pass",

    async look(offset, bytes) {
      const run = await chainStatus(overlay, base, offset, bytes);
      const isInherited = run.node !== null && run.node !== overlay;
      // With no backing file left, what the overlay does not hold reads as zeroes by itself.
      const isNeeded = isInherited && !(run.zero && base === null);
      return { bytes: run.bytes, action: isNeeded ? "copy" : "pass" };
    },

    copy: ({ offset, bytes }) => source.copyUp(offset, bytes, { signal: job.signal }),

    flush: () =>
      placed({ node: overlay.name, op: "flush", offset: 0, bytes: 0 }, () => io.flush(overlay)),
  });
}
