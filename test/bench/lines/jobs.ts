/** What the other jobs move, next to a bare loop; and how long a page waits meanwhile. */

import { MiB } from "../../../src/base/bytes.ts";
import type { Lab } from "../lab.ts";
import type { Line } from "../line.ts";
import type { TimedJob } from "../page/jobs.ts";
import type { Latency, LatencyArgument } from "../page/latency.ts";
import { BASE, BASE_RECIPE, copyOpfs, speed } from "./stream.ts";

/** Packing takes a hundred times as long as copying. */
const SMALL = "small-source.qcow2";
const SMALL_RECIPE = { virtualSize: 32 * MiB, dataBytes: 32 * MiB };

export const JOB_LINES: readonly Line[] = [
  jobLine("commit", "a layer into an empty base"),
  jobLine("active-commit", "the active layer into an empty base, and completed"),
  jobLine("mirror", "a disk to an empty image, and completed"),
  jobLine("backup", "a disk to an empty image"),
  jobLine("backup-compressed", "a disk to an empty image, packing what cannot be packed"),
  latencyLine("query-jobs", "backup"),
  latencyLine("query-jobs", "mirror"),
  latencyLine("read", "backup"),
  latencyLine("read", "mirror"),
];

function jobLine(job: TimedJob, what: string): Line {
  const isPacked = job === "backup-compressed";
  const [source, recipe] = isPacked
    ? ([SMALL, SMALL_RECIPE] as const)
    : ([BASE, BASE_RECIPE] as const);
  return {
    name: `${job}-opfs`,
    unit: "MiB/s",
    reference:
      "bare loop of sync access handle read() and write(), one flush at the end, over the same " +
      `${recipe.dataBytes / MiB} MiB of random data on the same OPFS; the job moves ${what}`,
    aim: isPacked ? null : { atLeast: 0.7 },
    runs: 5,
    async prepare(lab) {
      await lab.imported(source, recipe);
      return {
        warmUp: true,
        ours: async () => speed(await lab.call("runJob", { job, source })),
        theirs: () => copyOpfs(lab, source),
      };
    },
  };
}

function latencyLine(ask: LatencyArgument["ask"], job: "backup" | "mirror"): Line {
  return {
    name: `p99-${ask}-${job}`,
    unit: "ms",
    reference:
      `99th percentile of 400 ${ask === "read" ? "reads of 4 KiB" : "query-jobs"}, one after the ` +
      `other, of an idle engine instead of one that runs a ${job} over and over without a limit`,
    aim: null,
    runs: 3,
    async prepare(lab) {
      await lab.imported(BASE, BASE_RECIPE);
      const seen: Latency[] = [];
      return {
        warmUp: false,
        ours: async () => {
          const latency = await ask99(lab, { ask, job, source: BASE });
          seen.push(latency);
          return latency.p99;
        },
        theirs: async () => (await ask99(lab, { ask, job: null, source: BASE })).p99,
        note: () => {
          const { p50, max, jobs } = seen.at(-1)!;
          return `Last run: median ${p50.toFixed(2)} ms, most ${max.toFixed(1)} ms, ${jobs} jobs`;
        },
      };
    },
  };
}

function ask99(lab: Lab, argument: LatencyArgument): Promise<Latency> {
  return lab.call("latency", argument);
}
