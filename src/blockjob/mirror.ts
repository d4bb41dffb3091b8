/**
 * mirror: keeps a second disk the same as the first while guests write, until somebody says which
 * of the two they are to go on with.
 *
 *   before   device ──▶ [source]                        [target]
 *   while    device ──▶ [mirror_top] ──▶ [source]  ══▶  [target]
 *   after    device ──▶ [target]                                   block-job-complete
 *   after    device ──▶ [source]                        [target]   block-job-cancel
 *
 * Nothing that guests write is missed: in one drained section of the source, when no write is under
 * way, the filter is put in and the source's dirty bitmap begins to record; what was there before
 * is looked for while it records already. (QEMU, block/mirror.c, since 8.2 loses writes that are in
 * flight at the start; and it copies without a speed limit once it is ready.)
 */

import { assert, BlockError } from "../base/errors.ts";
import type { BlockBackend } from "../block/backend.ts";
import { getLength } from "../block/io.ts";
import type { BlockNode } from "../block/node.ts";
import { RangeLock } from "../block/range-lock.ts";
import { chainOf, linkDown, skipFilters } from "../block/status.ts";
import type { JobDriver } from "../job/driver.ts";
import type { ActiveCommitAgain } from "./active-commit.ts";
import { BlockJob, type BlockJobChange, type BlockJobServices } from "./block-job.ts";
import { MirrorCopies, type MirrorDisks } from "./mirror-copies.ts";
import { MirrorDirty } from "./mirror-dirty.ts";
import { endMirror, type Mirror } from "./mirror-end.ts";
import { GuestWrites, type MirrorTap, mirrorTop } from "./mirror-filter.ts";
import { MirrorIntent } from "./mirror-intent.ts";
import {
  claim,
  filtersAndData,
  imagesOf,
  nodesOf,
  takeNodes,
  wholeClusters,
} from "./mirror-nodes.ts";
import {
  type BackingMode,
  type MirrorManners,
  type MirrorOptions,
  type MirrorSync,
  mirrorSizes,
  planMirror,
} from "./mirror-options.ts";
import { MirrorRun } from "./mirror-run.ts";

export type { MirrorOptions } from "./mirror-options.ts";

import { checkSources } from "./preflight.ts";

/**
 * blockdev-mirror: starts the job and returns it running.
 *
 * @throws BlockError ENOENT (device, target, replaces), EINVAL (options that do not fit), EBUSY
 *   (another job is at work there), EEXIST (id), EROFS (target), EPERM (permission conflict); the
 *   graph is as before
 */
export async function startMirror(
  services: BlockJobServices,
  options: MirrorOptions,
): Promise<BlockJob> {
  const { graph } = services;
  const plan = planMirror(graph, options);
  const { copyMode = "background", device, targetIsZero, unmap, backingMode } = options;
  const id = options.jobId ?? (graph.find(device) ? "" : device);
  services.jobs.checkId(id);
  return startMirrorJob(services, {
    ...plan,
    ...options,
    type: "mirror",
    id,
    target: plan.target,
    sync: plan.sync,
    base: plan.sync === "top" ? linkDown(skipFilters(plan.source))!.node : null,
    isWriteBlocking: copyMode === "write-blocking",
    targetIsZero: targetIsZero ?? false,
    unmap: unmap ?? true,
    backingMode: backingMode ?? "leave",
    again: again(plan, options),
  });
}

/** What starts it again: with what its intent has on record, or from the beginning. */
export type MirrorAgain = { readonly kind: "mirror" } & MirrorOptions;

function again(plan: ReturnType<typeof planMirror>, options: MirrorOptions): MirrorAgain {
  const { source, target, replaced, sync } = plan;
  // Now the target is anything but zero; and where only writes were copied, those are among the rest.
  const { jobId: _id, speed: _speed, autoFinalize: _f, autoDismiss: _d, ...others } = options;
  return {
    ...others,
    kind: "mirror",
    device: source.name,
    target: target.name,
    replaces: replaced.name,
    sync: sync === "none" ? "full" : sync,
    targetIsZero: false,
  };
}

/** A mirror job of any kind, all of it checked. */
export interface MirrorSetup extends MirrorManners {
  readonly type: "mirror" | "commit";
  readonly id: string;
  readonly source: BlockNode;
  /** In a commit a node below the source. */
  readonly target: BlockNode;
  readonly replaced: BlockNode;
  readonly sync: MirrorSync;
  /** With sync `top`: what is allocated above this is to be copied. */
  readonly base: BlockNode | null;
  readonly isWriteBlocking: boolean;
  readonly targetIsZero: boolean;
  readonly unmap: boolean;
  readonly backingMode: BackingMode;
  /** Of a mirror that goes on: its write intent (mirror-intent.ts). */
  readonly intent?: string | undefined;
  /** See JobDriver.journal. */
  readonly again: MirrorAgain | ActiveCommitAgain;
  /** Called at the job's end when the target has not taken the source's place. */
  onStay?(): Promise<void>;
}

/** @throws BlockError; the graph is as before */
export async function startMirrorJob(
  services: BlockJobServices,
  setup: MirrorSetup,
): Promise<BlockJob> {
  const { graph } = services;
  // Others have their turn while the source is drained: from now on the nodes are ours.
  const release = claim([...nodesOf(setup), setup.target], setup.type);
  try {
    const section = await graph.drain(filtersAndData(setup.source));
    let job: BlockJob;
    try {
      await checkSources(chainOf(setup.source));
      job = await createJob(services, setup);
    } finally {
      section.end();
    }
    // In the same turn: the guests go on after it.
    job.start();
    return job;
  } finally {
    release();
  }
}

/** With the source drained: from the moment this is called nothing written is missed. */
async function createJob(services: BlockJobServices, setup: MirrorSetup): Promise<BlockJob> {
  const { graph } = services;
  const { source, target, filterNodeName } = setup;
  const tap: MirrorTap = { writes: null, isCommit: setup.type === "commit" };
  const driver = mirrorTop(tap);
  const name = filterNodeName === undefined ? {} : { "node-name": filterNodeName };
  const filter = await graph.insertFilter({ driver: driver.name, ...name }, source, driver);
  const data = skipFilters(source);
  const { granularity } = mirrorSizes(target, setup);
  const bitmap = data.bitmaps.add({ name: null, granularity });
  const mirror: Mirror = {
    ...setup,
    graph,
    filter,
    tap,
    data,
    bitmap,
    intent: MirrorIntent.begin(imagesOf(setup), bitmap, wholeClusters(target), setup.intent),
    nodes: [...filtersAndData(source), target],
    holds: [],
    run: null,
    isOver: false,
  };
  let job: BlockJob | null = null;
  try {
    job = makeJob(services, setup, mirror);
    job.setSpeed(setup.speed ?? 0);
    const { reader, writer } = takeNodes(job, setup, mirror);
    mirror.run = setUpRun(job, setup, mirror, reader, writer);
    return job;
  } catch (error) {
    // At once, so that nobody can ask anything of a job that will never run.
    job?.earlyFail();
    await job?.releaseNodes();
    mirror.intent?.end();
    data.bitmaps.remove(bitmap);
    await graph.removeFilter(filter);
    throw error;
  }
}

function makeJob(services: BlockJobServices, setup: MirrorSetup, mirror: Mirror): BlockJob {
  const isMirror = setup.type === "mirror";
  return new BlockJob(services, {
    id: setup.id,
    driver: mirrorDriver(setup, mirror),
    onError: setup.onSourceError ?? "report",
    onTargetError: setup.onTargetError ?? "report",
    autoFinalize: setup.autoFinalize,
    autoDismiss: setup.autoDismiss,
    info: isMirror ? () => ({ "actively-synced": mirror.run?.isSynced ?? false }) : undefined,
    change: isMirror ? (change) => changeCopyMode(mirror, change) : undefined,
  });
}

function setUpRun(
  job: BlockJob,
  setup: MirrorSetup,
  mirror: Mirror,
  reader: BlockBackend,
  target: BlockBackend,
): MirrorRun {
  const { source } = setup;
  const { bitmap, tap, nodes, intent } = mirror;
  const { bufferBytes, chunkBytes } = mirrorSizes(setup.target, setup);
  const whole = wholeClusters(setup.target);
  const dirty = new MirrorDirty(bitmap, getLength(source), whole, source.world.kernel);
  const locks = new RangeLock();
  const mayUnmap = setup.unmap;
  const disks: MirrorDisks = { source, nodes, reader, target, dirty, locks, mayUnmap };
  const copies = new MirrorCopies(job, disks, bufferBytes);
  const writes = new GuestWrites(job, disks, setup.isWriteBlocking, (failure) => {
    copies.fail(failure);
    job.endSleep();
  });
  copies.onSuccess = () => {
    writes.isHeldOff = false;
  };
  tap.writes = writes;
  const { sync, base, targetIsZero } = setup;
  return new MirrorRun({
    job,
    disks,
    copies,
    writes,
    intent,
    chunkBytes,
    sync,
    base,
    // What is below a commit's layers is the source's, wherever they hold nothing.
    isAgain: setup.type === "mirror" && setup.intent !== undefined,
    targetIsZero,
    matchLength: () => matchLength(setup, target),
  });
}

async function matchLength(setup: MirrorSetup, target: BlockBackend): Promise<void> {
  const length = getLength(setup.source);
  if (target.length === length) return;
  if (setup.type === "commit") {
    // A longer base stays as long as it is.
    if (target.length < length) await target.truncate(length);
    return;
  }
  throw new BlockError(
    "EINVAL",
    `Source and target have different sizes: node '${setup.source.name}' has ${length} bytes, ` +
      `'${setup.target.name}' ${target.length}`,
  );
}

function changeCopyMode({ tap }: Mirror, { copyMode }: BlockJobChange): void {
  const { writes } = tap;
  assert(writes, "a job that can be changed has its filter");
  const isOn = copyMode === "write-blocking";
  if (writes.isOn && !isOn) {
    throw new BlockError("EINVAL", "A mirror cannot go back from write-blocking to background");
  }
  writes.isOn = isOn;
}

function mirrorDriver(setup: MirrorSetup, mirror: Mirror): JobDriver {
  const { graph, replaced } = mirror;
  const runOf = () => {
    assert(mirror.run, "the run is set up before the job starts");
    return mirror.run;
  };
  const end = async (job: BlockJob, isPivot: boolean) => {
    if (mirror.isOver) return;
    let isTaken = false;
    try {
      await endMirror(mirror, job, isPivot);
      isTaken = isPivot;
    } finally {
      if (!isTaken) await setup.onStay?.();
    }
  };

  return {
    type: setup.type,
    run: () => runOf().run(),
    pause: () => runOf().rest(),
    userResume: () => runOf().forgive(),

    complete(job) {
      if (graph.find(replaced.name) !== replaced) {
        throw new BlockError(
          "ENOENT",
          `Node '${replaced.name}', which was to be replaced, is gone`,
        );
      }
      runOf().completeRequested = true;
      job.enter();
    },

    cancel(job, force) {
      // One that is not ready has no good end to come to, nor one that waits for its pivot.
      const byForce = force || !job.ready;
      if (byForce) mirror.tap.writes?.stop();
      return byForce;
    },

    journal() {
      const isWriteBlocking = mirror.tap.writes?.isOn;
      return {
        ...setup.again,
        ...(isWriteBlocking && { copyMode: "write-blocking" }),
        ...(mirror.intent && { intent: mirror.intent.id }),
      };
    },

    prepare: (job) => end(job as BlockJob, runOf().completeRequested),
    abort: (job) => end(job as BlockJob, false),
    clean: (job) => (job as BlockJob).releaseNodes(),
  };
}
