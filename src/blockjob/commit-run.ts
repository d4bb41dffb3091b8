/**
 * The work of an intermediate commit: what the merged layers decide is written into base; what they
 * let through is there already (QEMU: commit_run() in block/commit.c).
 *
 *   merged    ##..00##    # data: copied    0 zeroes: zero write    . shows through: left alone
 *             ▼▼  ▼▼▼▼
 *   base      ########    whoever looks through the merged layers sees no difference meanwhile:
 *                         only what they hide is ever written
 */

import type { BlockBackend } from "../block/backend.ts";
import { placed, withBuffer } from "../block/request.ts";
import { chainStatus, skipFilters } from "../block/status.ts";
import type { BlockJob } from "./block-job.ts";
import { LinearCopy } from "./linear-copy.ts";

/**
 * @param source the job's way to top
 * @param target the job's way to base
 * @param length bytes to go over; what lies past the end of top is made zero
 */
export function commitRun(
  job: BlockJob,
  source: BlockBackend,
  target: BlockBackend,
  length: number,
): LinearCopy {
  const base = target.node;
  const baseLayer = skipFilters(base);
  const top = source.node;
  const { signal } = job;
  return new LinearCopy(job, {
    length,
    granule: Math.max(1, base.state.limits.clusterSize),
    whenIgnored: "retry",

    async look(offset, bytes) {
      const place = { node: top.name, op: "read", offset, bytes } as const;
      const run = await placed(place, () => chainStatus(top, baseLayer, offset, bytes));
      if (run.node === null) return { bytes: run.bytes, action: "pass" };
      return { bytes: run.bytes, action: run.zero ? "zero" : "copy" };
    },

    copy({ offset, bytes, action }) {
      job.trace?.commit_one_iteration?.(job.id ?? "", offset, bytes);
      const write = { node: base.name, op: "write", offset, bytes } as const;
      if (action === "zero") {
        return placed(write, () => target.writeZeroes(offset, bytes, { mayUnmap: true, signal }));
      }
      return withBuffer(base, bytes, async (buf) => {
        const read = { node: top.name, op: "read", offset, bytes } as const;
        await placed(read, () => source.read(buf, offset, { signal }));
        await placed(write, () => target.write(buf, offset, { signal }));
      });
    },

    flush: () =>
      placed({ node: base.name, op: "flush", offset: 0, bytes: 0 }, () => target.flush()),
  });
}
