/** The engine's parts as its worker puts them together, without QMP: graph, jobs, drivers. */

import kernelUrl from "../../../build/kernel.wasm?url";
import { SystemClock } from "../../../src/base/clock.ts";
import { systemRandom } from "../../../src/base/random.ts";
import type { BlockBackend } from "../../../src/block/backend.ts";
import { Graph } from "../../../src/block/graph.ts";
import { Perm } from "../../../src/block/permissions.ts";
import type { BlockJobServices } from "../../../src/blockjob/block-job.ts";
import { browserDrivers } from "../../../src/drivers/index.ts";
import { JobList } from "../../../src/job/list.ts";
import { type Kernel, loadKernel } from "../../../src/kernel/kernel.ts";

let kernel: Promise<Kernel> | undefined;

/** One for the worker's life, as in the engine. */
export function sharedKernel(): Promise<Kernel> {
  kernel ??= fetch(kernelUrl)
    .then((response) => response.arrayBuffer())
    .then((bytes) => loadKernel(bytes));
  return kernel;
}

/** A graph with no nodes and a list with no jobs. */
export async function makeServices(): Promise<BlockJobServices> {
  const clock = new SystemClock();
  const world = { clock, random: systemRandom(), kernel: await sharedKernel(), trace: {} };
  return {
    graph: new Graph(world, browserDrivers(new Map())),
    // The job it happened in fails, and with it the bench.
    jobs: new JobList({ onBug: (bug) => console.error(bug) }),
    clock,
    emit() {},
  };
}

/** A way to a node, for the bench itself. */
export function openNode(graph: Graph, name: string, take: number): BlockBackend {
  const permissions = { take, share: Perm.all };
  return graph.openBackend(graph.get(name), { name: "", description: "the bench", permissions });
}
