/**
 * The jobs as the bench times them: all data of one image in OPFS into another, without a speed limit,
 * and compared when the clock has stopped.
 *
 *   commit          [target] <── [source] <── [top]     the middle goes down
 *   active-commit   [target] <── [source]               and the disk with it
 *   mirror          [source] ──▶ [target]               until it is ready, and completed
 *   backup          [source] ──▶ [target]
 */

import { getLength } from "../../../src/block/io.ts";
import { startBackup } from "../../../src/blockjob/backup.ts";
import type { BlockJobServices } from "../../../src/blockjob/block-job.ts";
import { startCommit } from "../../../src/blockjob/commit.ts";
import { startMirror } from "../../../src/blockjob/mirror.ts";
import type { Job } from "../../../src/job/job.ts";
import { verbs } from "../../../src/job/verbs.ts";
import { makeServices } from "./engine.ts";
import { compareImages, image, makeImage, opfs } from "./images.ts";
import { removeFile, type Timed } from "./raw-io.ts";

const TARGET = "target.qcow2";
const TOP = "top.qcow2";

export type TimedJob = "commit" | "active-commit" | "mirror" | "backup" | "backup-compressed";

/**
 * @param argument.source qcow2 in OPFS; reads the same afterwards
 * @returns `bytes`: those that the source held as data, all of which must be in the target now
 */
export async function runJob(argument: { job: TimedJob; source: string }): Promise<Timed> {
  const { job, source } = argument;
  const services = await makeServices();
  const { graph } = services;
  const isCommit = job === "commit" || job === "active-commit";
  const isMiddle = job === "commit";

  const probe = await graph.add(image("probe", opfs(source), true));
  const size = getLength(probe);
  await graph.remove("probe");
  await makeImage(graph, TARGET, size);
  await graph.add(image("target", opfs(TARGET), isCommit));
  const backing = isCommit ? { backing: "target" } : {};
  await graph.add({ ...image("source", opfs(source), isMiddle), ...backing });
  if (isMiddle) {
    await makeImage(graph, TOP, size, source);
    await graph.add({ ...image("top", opfs(TOP), false), backing: "source" });
  }
  const startMs = services.clock.now();
  await finish(await start(services, job));
  const ms = services.clock.now() - startMs;

  for (const name of ["top", "source", "target"]) if (graph.find(name)) await graph.remove(name);
  const bytes = await compareImages(graph, source, TARGET);
  // After a failure these may still be open, and go with the next job.
  await removeFile(TARGET);
  await removeFile(TOP);
  return { ms, bytes };
}

function start(services: BlockJobServices, job: TimedJob): Promise<Job> {
  const copy = { jobId: "j", device: "source", target: "target", sync: "full" } as const;
  switch (job) {
    case "commit":
      return startCommit(services, { jobId: "j", device: "top", topNode: "source" });
    case "active-commit":
      return startCommit(services, { jobId: "j", device: "source" });
    case "mirror":
      return startMirror(services, copy);
    case "backup":
      return startBackup(services, copy);
    case "backup-compressed":
      return startBackup(services, { ...copy, compress: true });
  }
}

/** Completes it once it is ready, if it is of those that wait for that. */
async function finish(job: Job): Promise<void> {
  const completeIfReady = () => {
    if (job.status === "ready") void verbs.complete(job);
  };
  const unlisten = job.listen(({ kind }) => {
    if (kind === "status") completeIfReady();
  });
  completeIfReady();
  await job.finished;
  unlisten();
  if (job.error) throw job.error;
}
