/**
 * Active commit: block-commit of a layer that guests write to. It is a mirror whose target is a
 * layer below, and whose end makes that layer the disk:
 *
 *   before   device ──▶ [top] ──▶ [mid] ──▶ [base]
 *   while    device ──▶ [mirror_top] ──▶ [top] ──▶ [mid] ──▶ [base]    base gets what top and mid hold
 *   after    device ──▶ [base]                                          completed
 *   after    device ──▶ [top] ──▶ [mid] ──▶ [base]                      cancelled
 *
 * The device reads the same all the time: whatever of base has changed is hidden by the layers
 * above. (QEMU: commit_active_start() in block/mirror.c.)
 */

import type { BlockNode } from "../block/node.ts";
import type { BlockJob, BlockJobServices } from "./block-job.ts";
import { nodesBetween } from "./commit-plan.ts";
import { startMirrorJob } from "./mirror.ts";
import { claim } from "./mirror-nodes.ts";
import type { OnErrorPolicy } from "./on-error.ts";
import { protect, withWritable } from "./writable.ts";

/** What starts it again, as a mirror; `top` and `base` are names. */
export interface ActiveCommitAgain {
  readonly kind: "active-commit";
  readonly top: string;
  readonly base: string;
  readonly onError?: OnErrorPolicy | undefined;
  readonly filterNodeName?: string | undefined;
  readonly intent?: string;
}

export interface ActiveCommitOptions {
  readonly jobId: string;
  /** The layer that guests write to, or a filter above it that goes with it. */
  readonly top: BlockNode;
  /** Below it, and not the same under filters. */
  readonly base: BlockNode;
  readonly speed?: number | undefined;
  /** For errors of both sides. */
  readonly onError?: OnErrorPolicy | undefined;
  readonly filterNodeName?: string | undefined;
  readonly autoFinalize?: boolean | undefined;
  readonly autoDismiss?: boolean | undefined;
  /** See MirrorSetup. */
  readonly intent?: string | undefined;
}

/**
 * Starts the job and returns it running. What may be committed into what has been checked.
 *
 * @throws BlockError EINVAL, EEXIST (id, speed, filter name), EROFS (base cannot be written), EPERM
 *   (permission conflict); the graph is as before then
 */
export async function startActiveCommit(
  services: BlockJobServices,
  options: ActiveCommitOptions,
): Promise<BlockJob> {
  const { graph } = services;
  const { jobId, top, base, onError, ...manners } = options;
  services.jobs.checkId(jobId);
  const release = claim([...nodesBetween(top, base), base], "commit");
  try {
    return await withWritable(graph, base, (wasReadOnly) =>
      startMirrorJob(services, {
        ...manners,
        type: "commit",
        id: jobId,
        source: top,
        target: base,
        replaced: top,
        sync: "top",
        base,
        isWriteBlocking: false,
        targetIsZero: false,
        unmap: true,
        backingMode: "leave",
        onSourceError: onError,
        onTargetError: onError,
        again: {
          kind: "active-commit",
          top: top.name,
          base: base.name,
          onError,
          filterNodeName: manners.filterNodeName,
        },
        async onStay() {
          if (wasReadOnly) await protect(graph, base);
        },
      }),
    );
  } finally {
    release();
  }
}
