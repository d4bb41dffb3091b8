/**
 * block-stream as the bench times it: an empty overlay in OPFS over a base, streamed without a speed
 * limit, and compared with the base when the clock has stopped.
 */

import { getLength } from "../../../src/block/io.ts";
import type { BlockdevOptions } from "../../../src/block/options.ts";
import type { BlockJobServices } from "../../../src/blockjob/block-job.ts";
import { startStream } from "../../../src/blockjob/stream.ts";
import { makeServices } from "./engine.ts";
import { compareImages, image, makeImage, opfs } from "./images.ts";
import { removeFile, type Timed } from "./raw-io.ts";

const OVERLAY = "overlay.qcow2";

export interface StreamArgument {
  /** The base image, qcow2: a file in OPFS, or a URL. */
  readonly from: { readonly filename: string } | { readonly url: string };
  /** The same image in OPFS, to compare with afterwards. */
  readonly expected: string;
}

/** @returns `bytes`: those that lower layers held as data, all of which must be in the overlay now */
export async function streamImage(argument: StreamArgument): Promise<Timed> {
  const services = await makeServices();
  const { graph } = services;
  const base = await graph.add(image("base", source(argument.from), true));
  await makeImage(graph, OVERLAY, getLength(base), "base.qcow2");
  await graph.add({ ...image("top", opfs(OVERLAY), false), backing: "base" });
  const ms = await timeStream(services);
  await graph.remove("top");
  await graph.remove("base");
  const bytes = await compareImages(graph, argument.expected, OVERLAY);
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

function source(from: StreamArgument["from"]): BlockdevOptions {
  if ("filename" in from) return opfs(from.filename);
  return { driver: "http", url: new URL(from.url, location.href).href };
}
