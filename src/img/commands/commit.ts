/**
 * `commit`: an overlay's data goes into its backing file, or a deeper one; then the overlay is empty.
 *
 *     before   [base] <── [mid] <── [image]        -b base: mid's goes as well, and nothing is emptied,
 *     after    [base'] <── [mid] <── [image], empty         since mid is no longer what it was
 *
 * The copying is a block-commit job. The overlay is emptied after its data is in the base for good: a
 * crash in between leaves both.
 */

import { sleep } from "../../base/clock.ts";
import { BlockError } from "../../base/errors.ts";
import type { BlockBackend } from "../../block/backend.ts";
import * as io from "../../block/io.ts";
import type { BlockNode } from "../../block/node.ts";
import { backingOf, skipFilters } from "../../block/status.ts";
import { startCommit } from "../../blockjob/commit.ts";
import type { Job } from "../../job/job.ts";
import { JobList } from "../../job/list.ts";
import { finishSync } from "../../job/sync.ts";
import { verbs } from "../../job/verbs.ts";
import { cacheMode } from "../cache-mode.ts";
import {
  type Arguments,
  CACHE,
  FORMAT,
  IMAGE_OPTS,
  type ImgCommand,
  OBJECT,
  PROGRESS,
  QUIET,
  RATE,
  rateOf,
  showsProgress,
} from "../command.ts";
import { findInChain } from "../in-chain.ts";
import { openImage } from "../open.ts";
import { Progress } from "../progress.ts";
import type { Session } from "../session.ts";

/** How often it is looked at how far the job is. */
const LOOK_MS = 100;

export const commit: ImgCommand = {
  name: "commit",
  summary: "Moves an overlay's data into its backing file",
  operands: "FILENAME",
  options: [
    QUIET,
    PROGRESS,
    FORMAT,
    IMAGE_OPTS,
    CACHE,
    { name: "drop", short: "d", help: "leaves the overlay as it is afterwards" },
    {
      name: "base",
      short: "b",
      value: "FILENAME",
      help: "a deeper backing file to go into; as with -d",
    },
    RATE,
    OBJECT,
  ],
  run,
};

async function run(session: Session, args: Arguments): Promise<number> {
  const name = args.oneImage();
  const rate = rateOf(args);
  const cache = cacheMode(args.last("cache") ?? "writeback");
  const image = args.theImage(name);
  const base = args.last("base");
  const top = await openImage(session, image, { writable: true, keepsSize: true, cache });
  const progress = new Progress(session, showsProgress(args));
  try {
    await progress.report(0);
    const node = skipFilters(top.node);
    const target = await findBase(session, node, name, base);
    await copyDown(session, top, target, rate, progress);
    // Closed, so that all of the base is in its file before the overlay's data goes.
    await session.close();
    if (!args.has("drop") && base === undefined) {
      const again = await openImage(session, image, { writable: true, cache, noBacking: true });
      await empty(session, again);
      await session.release(again);
    }
    await progress.report(100);
  } finally {
    await progress.end();
  }
  if (!args.has("quiet")) await session.print("Image committed.\n");
  return 0;
}

async function findBase(
  session: Session,
  top: BlockNode,
  image: string,
  name: string | undefined,
): Promise<BlockNode> {
  const base = name === undefined ? backingOf(top) : await findInChain(session, top, image, name);
  if (base) return base;
  throw new BlockError(
    "EINVAL",
    name === undefined
      ? "The image has no backing file"
      : `'${name}' is not in the chain of backing files of '${image}'`,
  );
}

async function copyDown(
  session: Session,
  top: BlockBackend,
  base: BlockNode,
  speed: number,
  progress: Progress,
): Promise<void> {
  const { graph } = session;
  const bugs: unknown[] = [];
  const jobs = new JobList({ onBug: (bug) => bugs.push(bug) });
  const { clock } = graph.world;
  const job = await startCommit(
    { graph, jobs, clock, emit: () => {} },
    { jobId: "commit", device: top.node.name, baseNode: base.name, speed, autoDismiss: false },
  );
  const stop = () => job.requestCancel(true);
  session.signal?.addEventListener("abort", stop, { once: true });
  try {
    if (session.signal?.aborted) stop();
    await untilReady(session, job, progress);
    const error = await finishSync(job, (one) =>
      one.status === "ready" ? verbs.complete(one) : undefined,
    );
    if (bugs.length > 0) throw bugs[0];
    if (error) throw error;
  } finally {
    session.signal?.removeEventListener("abort", stop);
    // One that has not ended holds its nodes.
    if (!job.completed) await jobs.cancelAll();
  }
}

/** Until it has copied all, or failed. */
async function untilReady({ graph }: Session, job: Job, progress: Progress): Promise<void> {
  while (!job.completed && job.status !== "ready") {
    const { current, total } = job.progress;
    if (total > 0) await progress.report((current / total) * 100);
    await sleep(graph.world.clock, LOOK_MS);
  }
}

/** What cannot be emptied stays as it is: nothing is wrong with it. */
async function empty({ graph }: Session, image: BlockBackend): Promise<void> {
  const node = skipFilters(image.node);
  const makeEmpty = node.state.makeEmpty?.bind(node.state);
  if (!makeEmpty) return;
  await graph.drained([image.node], makeEmpty);
  await io.flush(image.node);
}
