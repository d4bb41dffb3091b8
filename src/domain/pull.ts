/**
 * blockPull() and blockRebase() without COPY: what a disk inherits is copied into its top image, of all
 * images below or of those above `base`, which stays.
 *
 *     [base] <── [mid] <── [top]     pull to base      [base] <── [top]
 *                                    pull              [top]
 */

import { findLayer, relativeName } from "./chain.ts";
import { DomainError } from "./errors.ts";
import type { Operation } from "./operation.ts";
import { formatNode } from "./record.ts";
import { checkNoJob, newJob, startJob } from "./start-job.ts";

export interface PullOptions {
  readonly disk: string;
  /** Null: all. */
  readonly base: string | null;
  /** Bytes per second; 0: no limit. */
  readonly speed: number;
  /** The top's header is to name base by a relative name. */
  readonly relative: boolean;
  readonly flags: number;
}

export async function pull(op: Operation, options: PullOptions): Promise<void> {
  const disk = op.disk(options.disk);
  if (disk.readonly) {
    throw new DomainError("OPERATION_INVALID", `Disk '${disk.target}' is read-only`);
  }
  checkNoJob(op, disk);
  const [top] = disk.layers;
  const at = options.base === null ? null : findLayer(disk, options.base);
  if (at === 0) {
    const text = `'${options.base}' is the top of '${disk.target}' and cannot be its base`;
    throw new DomainError("INVALID_ARG", text);
  }
  const base = at === null ? null : disk.layers[at]!;
  const { layers } = disk;
  const backingFile = options.relative && at ? await relativeName(op, layers, 0, at) : undefined;
  const job = { ...newJob(op, "pull", disk, top!, options.flags), base: base?.n ?? null };
  await startJob(op, job, () =>
    op.execute("block-stream", {
      "job-id": job.name,
      device: formatNode(top!),
      ...(base && { "base-node": formatNode(base) }),
      ...(backingFile !== undefined && { "backing-file": backingFile }),
      speed: options.speed,
      "on-error": op.host.onPullError,
      "auto-dismiss": false,
    }),
  );
}
