/**
 * block-stream: copy what an overlay inherits into the overlay itself.
 *
 *   before   [base] <── [mid] <── [top]        stream top, base-node: base
 *   while    [base] <── [mid] <── [top] <── [copy-on-read]
 *   after    [base] <───────────── [top]       mid's clusters now live in top
 *
 * Safe to stop at any byte: until prepare() changes the chain, top reads the same with or without
 * the copied clusters. So there is no log and nothing to undo, and a new stream skips what an
 * earlier one has copied. (QEMU: block/stream.c, docs/interop/live-block-operations.rst.)
 *
 * Beyond QEMU: several chunks in flight; a flush every few seconds, so that a closed tab loses
 * little; runs known to be zero are skipped where the whole chain is streamed, as nothing in the
 * overlay reads as zero too once there is no backing file.
 */

import { assert, BlockError } from "../base/errors.ts";
import type { BlockBackend } from "../block/backend.ts";
import type { Graph } from "../block/graph.ts";
import * as io from "../block/io.ts";
import type { BlockNode } from "../block/node.ts";
import { Perm } from "../block/permissions.ts";
import { backingOf, chainOf, linkDown, skipFilters } from "../block/status.ts";
import type { JobDriver } from "../job/driver.ts";
import type { Job } from "../job/job.ts";
import { findByFileName, formatFor, nameFor } from "./backing-names.ts";
import { BlockJob, type BlockJobServices } from "./block-job.ts";
import type { LinearCopy } from "./linear-copy.ts";
import type { OnErrorPolicy } from "./on-error.ts";
import { checkSources } from "./preflight.ts";
import { streamRun } from "./stream-run.ts";
import { protect, withWritable } from "./writable.ts";

export interface StreamOptions {
  readonly jobId?: string | undefined;
  /** Name of a device or node. */
  readonly device: string;
  /** At most one of these three: the layer that stays below, or the last one to pull. */
  readonly base?: string | undefined;
  readonly baseNode?: string | undefined;
  readonly bottom?: string | undefined;
  /** What to write into the overlay's header instead of the base's own name. */
  readonly backingFile?: string | undefined;
  /** Write "raw" as the base's format where that is the name of a protocol driver. */
  readonly maskProtocol?: boolean | undefined;
  readonly speed?: number | undefined;
  readonly onError?: OnErrorPolicy | undefined;
  readonly filterNodeName?: string | undefined;
  readonly autoFinalize?: boolean | undefined;
  readonly autoDismiss?: boolean | undefined;
}

/**
 * Starts the job and returns it running.
 *
 * @throws BlockError ENOENT (device, base), EINVAL (options that do not fit), EBUSY (another job is
 *   at work there), EROFS (the overlay lies where nothing can write), EPERM (permission conflict);
 *   the graph is as before then
 */
export async function startStream(
  services: BlockJobServices,
  options: StreamOptions,
): Promise<BlockJob> {
  const { graph } = services;
  const device = graph.getDeviceOrNode(options.device);
  const overlay = skipFilters(device);
  const plan = planStream(graph, device, options);
  const id = options.jobId ?? (graph.find(options.device) ? "" : options.device);
  services.jobs.checkId(id);

  // Others have their turn while the filter is put in: from now on the layers are ours.
  const claim = { reason: "block device is in use by block job: stream" };
  for (const node of plan.layers) node.blockers.add(claim);
  try {
    await checkSources(plan.layers);
    return await withWritable(graph, overlay, async (isReadOnly) => {
      const filter = await graph.insertFilter(
        {
          driver: "copy-on-read",
          ...(options.filterNodeName !== undefined && { "node-name": options.filterNodeName }),
          ...(plan.bottom && { bottom: plan.bottom.name }),
        },
        device,
      );
      const stream = {
        services,
        overlay,
        filter,
        plan,
        isReadOnly,
        isInserted: true,
        source: null,
      };
      return startOverFilter(stream, id, options);
    });
  } finally {
    for (const node of plan.layers) node.blockers.delete(claim);
  }
}

/** Makes the job over the filter that is in place, and starts it; or takes the filter out again. */
async function startOverFilter(
  stream: Stream,
  id: string,
  options: StreamOptions,
): Promise<BlockJob> {
  const { services, filter } = stream;
  let job: BlockJob | null = null;
  try {
    job = new BlockJob(services, {
      id,
      driver: streamDriver(stream, options),
      onError: options.onError ?? "report",
      autoFinalize: options.autoFinalize,
      autoDismiss: options.autoDismiss,
    });
    job.setSpeed(options.speed ?? 0);
    takeNodes(job, stream);
  } catch (error) {
    // At once, so that nobody can ask anything of a job that will never run.
    job?.earlyFail();
    await job?.releaseNodes();
    await services.graph.removeFilter(filter);
    throw error;
  }
  job.start();
  return job;
}

/** What starts it again: JobDriver.journal(). */
export type StreamAgain = { readonly kind: "stream" } & StreamOptions;

/** What is pulled: the layers from the overlay down to `bottom`; `base` stays below. */
interface StreamPlan {
  /** overlay … bottom, filters left out. */
  readonly layers: readonly BlockNode[];
  readonly bottom: BlockNode | null;
  /** null: the whole chain is pulled. */
  readonly base: BlockNode | null;
  readonly backingFile: string | undefined;
  readonly maskProtocol: boolean;
}

interface Stream {
  readonly services: BlockJobServices;
  readonly overlay: BlockNode;
  readonly filter: BlockNode;
  readonly plan: StreamPlan;
  /** The overlay was, before the job, and shall be again. */
  readonly isReadOnly: boolean;
  isInserted: boolean;
  /** The job's own way to the filter. */
  source: BlockBackend | null;
}

function planStream(graph: Graph, device: BlockNode, options: StreamOptions): StreamPlan {
  const given = [options.base, options.baseNode, options.bottom].filter((o) => o !== undefined);
  if (given.length > 1) {
    throw new BlockError("EINVAL", "'base', 'base-node' and 'bottom' exclude each other");
  }
  const chain = chainOf(device);
  const overlay = chain[0]!;
  const base = findBase(graph, chain, options);
  if (options.backingFile !== undefined && base === null) {
    throw new BlockError("EINVAL", "'backing-file' needs a base: the whole chain is streamed");
  }
  const layers = base === null ? chain : chain.slice(0, chain.indexOf(base));
  if (!overlay.state.allocate || !overlay.state.changeBackingFile) {
    const { name } = overlay.driver;
    throw new BlockError(
      "ENOTSUP",
      `Driver '${name}' of node '${overlay.name}' has no backing files`,
    );
  }
  const nodes = nodesDown(device, base);
  // Those that have a name first: that is what the user knows.
  for (const node of nodes) if (!node.implicit) node.checkOperation("stream");
  for (const node of nodes) node.checkOperation("stream");
  const bottom = layers.at(-1)!;
  return {
    layers,
    base,
    bottom: base === null || bottom === overlay ? null : bottom,
    backingFile: options.backingFile,
    maskProtocol: options.maskProtocol ?? false,
  };
}

/** All that is streamed, filters in between included: their links will be frozen. */
function nodesDown(device: BlockNode, base: BlockNode | null): BlockNode[] {
  const nodes: BlockNode[] = [];
  for (let node: BlockNode | undefined = device; node; node = linkDown(node)?.node) {
    if (skipFilters(node) === base) break;
    nodes.push(node);
  }
  return nodes;
}

/** null: none was given, the whole chain goes. */
function findBase(
  graph: Graph,
  chain: readonly BlockNode[],
  options: StreamOptions,
): BlockNode | null {
  const [overlay] = chain;
  if (options.bottom !== undefined) {
    const bottom = graph.get(options.bottom);
    if (bottom.driver.kind === "filter") {
      throw new BlockError("EINVAL", `Node '${bottom.name}' is a filter: 'bottom' cannot be one`);
    }
    if (bottom === overlay || !chain.includes(bottom)) throw notBelow(bottom.name, overlay!);
    return backingOf(bottom);
  }
  if (options.baseNode !== undefined) {
    const base = skipFilters(graph.get(options.baseNode));
    if (base === overlay || !chain.includes(base)) throw notBelow(options.baseNode, overlay!);
    return base;
  }
  if (options.base !== undefined) {
    const found = findByFileName(chain, options.base);
    if (!found || found === overlay) throw notBelow(options.base, overlay!);
    return found;
  }
  return null;
}

function notBelow(name: string, overlay: BlockNode): BlockError {
  return new BlockError(
    "EINVAL",
    `'${name}' is not in the backing chain of node '${overlay.name}'`,
  );
}

/** Permissions and blocks of the table in the QEMU notes: stream takes nothing from its base. */
function takeNodes(job: BlockJob, stream: Stream): void {
  const { filter, overlay, plan } = stream;
  job.addNode(filter, { take: Perm.none, share: Perm.all });
  job.block(filter);
  stream.source = job.addNode(filter, {
    take: Perm.consistentRead,
    share: Perm.consistentRead | Perm.writeUnchanged | Perm.write,
  });
  for (const node of plan.layers) {
    job.block(node);
    job.addNode(node, {
      take: Perm.none,
      share:
        Perm.consistentRead | Perm.writeUnchanged | (node === overlay ? Perm.write : Perm.none),
    });
  }
  // Not the link into the base: what stands there may change meanwhile.
  const lowest = plan.layers.at(-1)!;
  for (let node = filter; node !== lowest; ) {
    const edge = linkDown(node)!;
    job.freeze(edge);
    node = edge.node;
  }
}

/** Starts the rest of it: what has been copied is passed over. Nodes, as they may be devices' no more. */
function again({ filter, overlay, plan }: Stream, options: StreamOptions): StreamAgain {
  const { backingFile, maskProtocol, onError, filterNodeName } = options;
  const { layers, base } = plan;
  const bottom = layers.at(-1)!;
  const to = bottom === overlay ? { baseNode: base?.name } : { bottom: bottom.name };
  return {
    kind: "stream",
    device: (filter.children.get("file")?.node ?? overlay).name,
    ...(base && to),
    backingFile,
    maskProtocol,
    onError,
    filterNodeName,
  };
}

function streamDriver(stream: Stream, options: StreamOptions): JobDriver {
  const { services, filter, overlay, plan } = stream;
  let run: LinearCopy | null = null;

  const dropFilter = async (job: BlockJob) => {
    job.thaw();
    if (!stream.isInserted) return;
    await services.graph.removeFilter(filter);
    stream.isInserted = false;
  };

  return {
    type: "stream",

    async run(job) {
      if (plan.layers.length === 1) return; // Nothing between top and base: done, 0 of 0.
      assert(stream.source, "the nodes were taken before the start");
      run = streamRun(job as BlockJob, stream.source, overlay, plan.layers.at(-1)!);
      await run.run();
    },

    async pause() {
      await run?.quiesce();
    },

    async prepare(job) {
      await dropFilter(job as BlockJob);
      const isLabelled = plan.backingFile !== undefined;
      if (plan.layers.length > 1 || isLabelled) await cutChain(stream, job);
    },

    journal: () => again(stream, options),

    async clean(job) {
      await dropFilter(job as BlockJob);
      if (stream.isReadOnly) await protect(services.graph, overlay);
      await (job as BlockJob).releaseNodes();
    },
  };
}

/**
 * Makes what is below the last streamed layer the overlay's backing file, or nothing.
 *
 * All that was copied is made to last before the header lets go of the layers it came from.
 */
async function cutChain({ services, overlay, plan }: Stream, job: Job): Promise<void> {
  const { graph } = services;
  const lowest = plan.layers.at(-1)!;
  const letGo = await graph.drained([overlay], async (section) => {
    await io.flush(overlay);
    // Not plan.base: that one may have been replaced meanwhile.
    const base = lowest.children.get("backing")?.node ?? null;
    const layer = base && skipFilters(base);
    const label: [string | null, string | null] = layer
      ? [plan.backingFile ?? nameFor(overlay, lowest, layer), formatFor(layer, plan.maskProtocol)]
      : [null, null];
    const old = overlay.children.get("backing")?.node ?? null;
    const done = graph.setBacking(overlay, base);
    try {
      await overlay.state.changeBackingFile?.(...label);
    } catch (error) {
      graph.setBacking(overlay, old);
      throw error;
    }
    section.atEnd(() => {
      job.hasTakenEffect = true;
    });
    return done;
  });
  await letGo();
}
