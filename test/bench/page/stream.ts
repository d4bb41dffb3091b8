/**
 * block-stream as the bench times it: an empty overlay in OPFS over a base, streamed without a speed
 * limit, and compared with the base when the clock has stopped.
 */

import { MiB } from "../../../src/base/bytes.ts";
import type { Graph } from "../../../src/block/graph.ts";
import type { BlockNode } from "../../../src/block/node.ts";
import type { BlockdevOptions } from "../../../src/block/options.ts";
import { Perm } from "../../../src/block/permissions.ts";
import { chainStatus } from "../../../src/block/status.ts";
import type { BlockJobServices } from "../../../src/blockjob/block-job.ts";
import { startStream } from "../../../src/blockjob/stream.ts";
import { makeServices, openNode } from "./engine.ts";
import { removeFile, type Timed } from "./raw-io.ts";

const OVERLAY = "overlay.qcow2";
const COMPARE_BYTES = 1 * MiB;

export interface StreamArgument {
  /** The base image, qcow2: a file in OPFS, or a URL. */
  readonly from: { readonly filename: string } | { readonly url: string };
  /** The same image in OPFS, to compare with afterwards. */
  readonly expected: string;
}

/** @returns `bytes`: those that lower layers held as data, all of which must be in the overlay now */
export async function streamImage(argument: StreamArgument): Promise<Timed> {
  await removeFile(OVERLAY);
  const services = await makeServices();
  const { graph } = services;
  const base = await graph.add(image("base", source(argument.from), true));
  await createOverlay(services, base);
  await graph.add({ ...image("top", opfs(OVERLAY), false), backing: "base" });
  const ms = await timeStream(services);
  await graph.remove("top");
  await graph.remove("base");
  const bytes = await compare(graph, argument.expected);
  // After a failure the file may still be open, and goes with the next stream.
  await removeFile(OVERLAY);
  return { ms, bytes };
}

async function timeStream(services: BlockJobServices): Promise<number> {
  const { graph, clock } = services;
  const startMs = clock.now();
  const job = await startStream(services, { jobId: "stream", device: "top" });
  await job.finished;
  const ms = clock.now() - startMs;
  if (job.error) throw job.error;
  if (graph.get("top").children.has("backing")) throw new Error("The overlay has a base still");
  return ms;
}

async function createOverlay({ graph }: BlockJobServices, base: BlockNode): Promise<void> {
  const { world } = graph;
  await graph.driver("opfs").create?.({ world, options: { filename: OVERLAY, size: 0 } as never });
  await graph.add({ ...opfs(OVERLAY), "node-name": "new" });
  const file = openNode(graph, "new", Perm.consistentRead | Perm.write | Perm.resize);
  const size = base.state.getLength?.();
  const options = { size, "backing-file": "base.qcow2", "backing-fmt": "qcow2" };
  await graph.driver("qcow2").create?.({ world, options: options as never, file: file.edge });
  await graph.closeBackend(file);
  await graph.remove("new");
}

/** Opens the overlay alone and looks whether it reads as the base. @returns bytes of data in both */
async function compare(graph: Graph, expected: string): Promise<number> {
  const left = await graph.add(image("left", opfs(expected), true));
  const right = await graph.add(image("right", opfs(OVERLAY), true));
  const [a, b] = [left, right].map(({ name }) => openNode(graph, name, Perm.consistentRead));
  const { kernel } = graph.world;
  const [x, y] = [kernel.allocate(COMPARE_BYTES)!, kernel.allocate(COMPARE_BYTES)!];
  if (a!.length !== b!.length) throw new Error(`The overlay has ${b!.length} bytes`);
  let data = 0;
  for (let at = 0; at < a!.length; ) {
    const runs = await Promise.all(
      [left, right].map((node) => chainStatus(node, null, at, a!.length - at)),
    );
    const zero = runs.every((run) => run.zero);
    const bytes = Math.min(...runs.map((run) => run.bytes), zero ? Infinity : COMPARE_BYTES);
    if (!zero) {
      await a!.read(x.subarray(0, bytes), at);
      await b!.read(y.subarray(0, bytes), at);
      const difference = kernel.firstDifference(x.subarray(0, bytes), y.subarray(0, bytes));
      if (difference >= 0) throw new Error(`The overlay differs at byte ${at + difference}`);
      data += bytes;
    }
    at += bytes;
  }
  kernel.free(x);
  kernel.free(y);
  for (const backend of [a!, b!]) await graph.closeBackend(backend);
  for (const node of [left, right]) await graph.remove(node.name);
  return data;
}

function source(from: StreamArgument["from"]): BlockdevOptions {
  if ("filename" in from) return opfs(from.filename);
  return { driver: "http", url: new URL(from.url, location.href).href };
}

function opfs(filename: string): BlockdevOptions {
  return { driver: "opfs", filename };
}

function image(name: string, file: BlockdevOptions, readOnly: boolean): BlockdevOptions {
  return { driver: "qcow2", "node-name": name, "read-only": readOnly, file };
}
