/**
 * block-commit: copy what layers decide into the image below them, and take the layers out.
 *
 *   before   [base] <── [mid] <── [top] <────────────────── [overlay]   top to base
 *   while    [base] <── [mid] <── [top] <── [commit_top] <── [overlay]
 *   after    [base] <────────────────────────────────────── [overlay]   base has their data
 *
 * Safe to stop at any byte: base changes only where the layers above hide it, so the overlay reads
 * the same all the time. mid does not, as it lets through what base gets from top: nobody else may
 * read the merged layers, and commit_top is there so that the overlay needs no right to. Where
 * guests write to top, the copy has to keep up with them: active-commit.ts. (QEMU: block/commit.c.)
 *
 * Beyond QEMU: several chunks in flight; what is ignored is tried again after a while; a base that
 * is longer than top does not show its own end through a longer overlay afterwards.
 */

import { assert } from "../base/errors.ts";
import type { BlockBackend } from "../block/backend.ts";
import * as io from "../block/io.ts";
import type { BlockNode } from "../block/node.ts";
import { Perm } from "../block/permissions.ts";
import { linkDown, skipFilters } from "../block/status.ts";
import type { JobDriver } from "../job/driver.ts";
import { startActiveCommit } from "./active-commit.ts";
import { BlockJob, type BlockJobServices } from "./block-job.ts";
import { committedLength, dropMerged } from "./commit-pivot.ts";
import { type CommitPlan, type CommitRange, nodesBetween, planCommit } from "./commit-plan.ts";
import { commitRun } from "./commit-run.ts";
import { commitTop } from "./commit-top.ts";
import { holding } from "./hold.ts";
import type { LinearCopy } from "./linear-copy.ts";
import type { OnErrorPolicy } from "./on-error.ts";
import { checkSources } from "./preflight.ts";
import { protect, withWritable } from "./writable.ts";

export interface CommitOptions extends CommitRange {
  readonly jobId?: string | undefined;
  /** Write "raw" as base's format where that is the name of a protocol driver. */
  readonly maskProtocol?: boolean | undefined;
  readonly speed?: number | undefined;
  readonly onError?: OnErrorPolicy | undefined;
  readonly filterNodeName?: string | undefined;
  readonly autoFinalize?: boolean | undefined;
  readonly autoDismiss?: boolean | undefined;
}

/** One intermediate commit, from its filter's insertion on. */
export interface Commit {
  readonly services: BlockJobServices;
  readonly plan: CommitPlan;
  readonly filter: BlockNode;
  readonly options: CommitOptions;
  readonly isBaseReadOnly: boolean;
  isInserted: boolean;
  /** The job's own way to top, and to base while it may write there. */
  source: BlockBackend | null;
  target: BlockBackend | null;
  /** How much of base is right when the work is done. */
  length: number;
}

/**
 * Starts the job and returns it running. With the active layer as top, or one that is written to,
 * it is an active commit: it becomes ready, and has to be completed.
 *
 * @throws BlockError what planCommit() throws; EINVAL, EEXIST (id, speed, filter name), EROFS (base
 *   cannot be written), EPERM (permission conflict); the graph is as before then
 */
export async function startCommit(
  services: BlockJobServices,
  options: CommitOptions,
): Promise<BlockJob> {
  const { graph } = services;
  const plan = planCommit(graph, options);
  const jobId = options.jobId ?? (graph.find(options.device) ? "" : options.device);
  services.jobs.checkId(jobId);
  if (plan.isActive) {
    const { top, base } = plan;
    const { speed, onError, filterNodeName, autoFinalize, autoDismiss } = options;
    const manners = { speed, onError, filterNodeName, autoFinalize, autoDismiss };
    return startActiveCommit(services, { jobId, top, base, ...manners });
  }

  // Others have their turn while the filter is put in: from now on the nodes are ours.
  const release = claim(plan);
  try {
    await checkSources(plan.merged);
    return await withWritable(graph, plan.base, (isBaseReadOnly) =>
      startOverFilter(services, plan, { ...options, jobId }, isBaseReadOnly),
    );
  } finally {
    release();
  }
}

/** Keeps other operations away while no job does. @returns to end that */
function claim({ root, merged, base }: CommitPlan): () => void {
  const blocker = { reason: "block device is in use by block job: commit" };
  const nodes = new Set([root, ...merged, base]);
  for (const node of nodes) node.blockers.add(blocker);
  return () => {
    for (const node of nodes) node.blockers.delete(blocker);
  };
}

async function startOverFilter(
  services: BlockJobServices,
  plan: CommitPlan,
  options: CommitOptions & { readonly jobId: string },
  isBaseReadOnly: boolean,
): Promise<BlockJob> {
  const { graph } = services;
  const { filterNodeName, speed = 0, onError = "report", autoFinalize, autoDismiss } = options;
  const name = filterNodeName === undefined ? {} : { "node-name": filterNodeName };
  // Read-only: who would write through it is a writer on top, which is another kind of commit.
  const filter = await graph.insertFilter(
    { driver: commitTop.name, "read-only": true, ...name },
    plan.top,
    commitTop,
  );
  let job: BlockJob | null = null;
  const commit: Commit = {
    services,
    plan,
    filter,
    options,
    isBaseReadOnly,
    isInserted: true,
    source: null,
    target: null,
    length: 0,
  };
  try {
    const driver = commitDriver(commit);
    job = new BlockJob(services, { id: options.jobId, driver, onError, autoFinalize, autoDismiss });
    job.setSpeed(speed);
    takeNodes(job, commit);
  } catch (error) {
    // At once, so that nobody can ask anything of a job that will never run.
    job?.earlyFail();
    await job?.releaseNodes();
    await graph.removeFilter(filter);
    throw error;
  }
  job.start();
  return job;
}

/** Permissions, blocks and frozen links of the table in the QEMU notes. */
function takeNodes(job: BlockJob, commit: Commit): void {
  const { plan, filter } = commit;
  const { root, top, base } = plan;
  job.addNode(root, { take: Perm.none, share: Perm.all });
  job.block(root);
  // Afresh: others had their turn since it was planned.
  const merged = nodesBetween(top, base);
  for (const node of merged) {
    // A filter right above base shows what base is at the moment, to whoever likes that.
    const isBase = skipFilters(node) === skipFilters(base);
    const reading = isBase ? Perm.consistentRead : Perm.none;
    const share = Perm.writeUnchanged | Perm.write | reading;
    const backend = job.addNode(node, { take: Perm.none, share });
    if (node === top) commit.source = backend;
    job.block(node);
  }
  const isShort = io.getLength(base) < io.getLength(top);
  commit.target = job.addNode(base, {
    take: Perm.consistentRead | Perm.write | (isShort ? Perm.resize : Perm.none),
    share: Perm.consistentRead | Perm.writeUnchanged,
  });
  job.block(base);
  for (const node of [filter, ...merged]) job.freeze(linkDown(node)!);
}

/** What starts it again, from the beginning: copying twice does no harm. */
export type CommitAgain = { readonly kind: "commit" } & CommitOptions;

function again({ plan, options }: Commit): CommitAgain {
  const { backingFile, maskProtocol, onError, filterNodeName } = options;
  const manners = { backingFile, maskProtocol, onError, filterNodeName };
  const { root, top, base } = plan;
  return {
    kind: "commit",
    device: root.name,
    topNode: top.name,
    baseNode: base.name,
    ...manners,
  };
}

function commitDriver(commit: Commit): JobDriver {
  const { services, filter } = commit;
  const { graph } = services;
  let run: LinearCopy | null = null;

  const dropWriter = async (job: BlockJob) => {
    const { target } = commit;
    commit.target = null;
    if (target) await job.removeNode(target);
  };

  return {
    type: "commit",

    async run(job) {
      const { source, target } = commit;
      assert(source && target, "the nodes were taken before the start");
      // Before any copy; it stays longer whatever becomes of the job.
      if (target.length < source.length) await target.truncate(source.length);
      commit.length = committedLength(commit);
      run = commitRun(job as BlockJob, source, target, commit.length);
      await run.run();
    },

    async pause() {
      await run?.quiesce();
    },

    async prepare(job) {
      // The headers may name base only when a crash cannot take back any more what is in it.
      await commit.target?.flush();
      (job as BlockJob).thaw();
      await dropMerged(commit, job, () => dropWriter(job as BlockJob));
    },

    journal: () => again(commit),

    async clean(job) {
      const { plan } = commit;
      const release = claim(plan);
      try {
        await holding(graph, [plan.base], `job '${job.id}'`, async () => {
          // First, as the overlays could not read top again while the job does not share that.
          await (job as BlockJob).releaseNodes();
          if (commit.isInserted) await graph.removeFilter(filter);
          if (commit.isBaseReadOnly) await protect(graph, plan.base);
        });
      } finally {
        release();
      }
    },
  };
}
