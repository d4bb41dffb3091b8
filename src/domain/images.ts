/**
 * Images are opened as two nodes: one for the store, one for the format above it.
 *
 *     libvirt-7-format    qcow2, backing: libvirt-6-format
 *           │ file
 *     libvirt-7-storage   opfs, filename: disk.qcow2
 */

import { QmpError } from "../engine/client.ts";
import { nodesOf } from "./chain.ts";
import type { Format } from "./definition.ts";
import { DomainError } from "./errors.ts";
import type { Operation } from "./operation.ts";
import { dataNode, formatNode, type Layer, storageNode } from "./record.ts";
import { createOptions, describeSource, labelOf, type Source } from "./source.ts";
import { isRefused, unlessNeedless } from "./start-job.ts";

/** What stands below an image: a node, nothing (null), or nothing that could (undefined). */
export type Backing = string | null | undefined;

export interface OpenImageOptions {
  readonly readOnly: boolean;
  readonly backing?: Backing;
}

async function openStorage(op: Operation, layer: Layer, readOnly: boolean): Promise<void> {
  const access = readOnly ? { "auto-read-only": true } : {};
  await op.run("blockdev-add", { ...layer.source, "node-name": storageNode(layer), ...access });
}

async function openFormat(op: Operation, layer: Layer, options: OpenImageOptions): Promise<void> {
  await op.run("blockdev-add", formatOptions(layer, options));
}

/** A data file is written when the image is: it has no word about it of its own. */
function formatOptions(layer: Layer, { readOnly, backing }: OpenImageOptions) {
  const { format, dataStore } = layer;
  return {
    driver: format,
    "node-name": formatNode(layer),
    file: storageNode(layer),
    "read-only": readOnly,
    ...(dataStore && { "data-file": { ...dataStore, "node-name": dataNode(layer) } }),
    ...(format === "qcow2" && backing !== undefined && { backing }),
  };
}

/** An image below the top, for writing or not. @throws QmpError; then it is as it was */
export async function reopenImage(
  op: Operation,
  layer: Layer,
  below: Layer | undefined,
  readOnly: boolean,
): Promise<void> {
  const options = formatOptions(layer, { readOnly, backing: below ? formatNode(below) : null });
  await op.execute("blockdev-reopen", { options: [options] } as never);
}

/** @throws QmpError; then neither node is there */
export async function openImage(
  op: Operation,
  layer: Layer,
  options: OpenImageOptions,
): Promise<void> {
  await openStorage(op, layer, options.readOnly);
  try {
    await openFormat(op, layer, options);
  } catch (error) {
    await op.execute("blockdev-del", { "node-name": storageNode(layer) });
    throw error;
  }
}

export interface NewImage {
  readonly format: Format;
  readonly source: Source;
  /** Bytes of disk. */
  readonly size: number;
  /** What its header names, and what is below it. */
  readonly backing?: { readonly layer: Layer; readonly node: string | null } | undefined;
  /** What it is in libvirt that there is such a file already. */
  readonly taken: "CONFIG_UNSUPPORTED" | "INVALID_ARG";
}

/**
 * Makes an image, and opens it. Nothing that is there is written over.
 *
 * @throws DomainError of code `taken` if there is such a file already, CONFIG_UNSUPPORTED; QmpError. Then nothing is open, and
 *   a file that was made is taken away if the host can
 */
export async function makeImage(op: Operation, image: NewImage): Promise<Layer> {
  const { format, source, size, backing } = image;
  const file = createOptions(source, format === "raw" ? size : 0);
  const layer: Layer = { n: op.newLayerNumber(), format, source };
  // Kept first: whoever finds these nodes after a crash knows that nobody needs them.
  op.record.leftovers.push(...nodesOf([layer]));
  await op.save();
  await mustBeNew(op, layer, image.taken);
  op.record.making.push(layer);
  await op.save();
  try {
    await createImage(op, layer, file);
  } catch (error) {
    // If the domain was stopped, whoever has stopped it looks for the job.
    if (isRefused(error)) forgetMaking(op, [layer]);
    throw error;
  }
  try {
    if (op.ctx.signal?.aborted) throw new DomainError("OPERATION_ABORTED", "It was called off");
    await openStorage(op, layer, false);
    await dismissCreation(op, layer);
    if (format === "qcow2") {
      const label = backing && {
        "backing-file": labelOf(backing.layer.source),
        "backing-fmt": backing.layer.format,
      };
      await createImage(op, layer, { driver: format, file: storageNode(layer), size, ...label });
      await dismissCreation(op, layer);
    }
    await openFormat(op, layer, { readOnly: false, backing: backing?.node ?? null });
  } catch (error) {
    await unlessNeedless(dismissCreation(op, layer));
    await discardImages(op, [layer]);
    throw error;
  }
  return layer;
}

/** Images that were made here, and of which nobody has any use: their files go if the host can remove them. */
export async function discardImages(op: Operation, layers: readonly Layer[]): Promise<void> {
  await closeNodes(op, nodesOf(layers));
  const { files } = op.host;
  for (const { source } of layers) {
    if (files?.canRemove(source)) await op.unlocked(() => files.remove(source));
  }
  forgetMaking(op, layers);
}

/** The next save keeps that. */
export function forgetMaking(op: Operation, layers: readonly Layer[]): void {
  const known = new Set(layers.map(({ n }) => n));
  op.record.making = op.record.making.filter(({ n }) => !known.has(n));
}

/** They are somebody's now: leftovers no more. The next save keeps that. */
export function adopt(op: Operation, layers: readonly Layer[]): void {
  const mine = new Set(layers.flatMap((layer) => [formatNode(layer), storageNode(layer)]));
  op.record.leftovers = op.record.leftovers.filter((node) => !mine.has(node));
  forgetMaking(op, layers);
}

/** The job that makes it, one step after the other. */
export const creationId = (layer: Layer) => `create-${storageNode(layer)}`;

/**
 * A job of the engine's that we wait for. A crash leaves it behind, a domain that is stopped meanwhile as well: see
 * creations.ts. The wait is not called off: the job would go on, and nobody would know what it has made. One that has
 * ended well is not dismissed: until the file has a node, the job alone tells whoever looks that the file is ours.
 */
async function createImage(op: Operation, layer: Layer, options: object): Promise<void> {
  const id = creationId(layer);
  await op.run("blockdev-create", { "job-id": id, options });
  const { error } = await op.unlocked(() => op.host.qmp.waitForJob(id, "concluded"));
  if (error === undefined) return;
  await dismissCreation(op, layer);
  const text = `Making '${describeSource(layer.source)}' failed: ${error}`;
  throw new DomainError("OPERATION_FAILED", text);
}

async function dismissCreation(op: Operation, layer: Layer): Promise<void> {
  await op.execute("job-dismiss", { id: creationId(layer) });
}

/** @throws DomainError of that code: blockdev-create would empty it */
async function mustBeNew(op: Operation, layer: Layer, code: NewImage["taken"]): Promise<void> {
  try {
    await op.run("blockdev-add", {
      ...layer.source,
      "node-name": storageNode(layer),
      "read-only": true,
    });
  } catch (error) {
    // It cannot be opened: it is not there, or making it will say what is wrong.
    if (error instanceof QmpError && error.errno === undefined) return;
    throw error;
  }
  await op.execute("blockdev-del", { "node-name": storageNode(layer) });
  const text = `'${describeSource(layer.source)}' exists already, and would be written over`;
  throw new DomainError(code, text);
}

/**
 * Closes those of the nodes that are there. One that somebody still uses stays among the leftovers, and
 * is tried again when the domain stops or starts.
 */
export async function closeNodes(op: Operation, nodes: readonly string[]): Promise<void> {
  const known = await op.execute("query-named-block-nodes", { flat: true });
  const there = new Set(known.map((node) => node["node-name"]));
  const open = new Set<string>();
  for (const node of nodes.filter((name) => there.has(name))) {
    try {
      await op.execute("blockdev-del", { "node-name": node });
    } catch (error) {
      if (!(error instanceof QmpError) || error.errno !== undefined) throw error;
      open.add(node);
    }
  }
  const tried = new Set(nodes);
  const others = op.record.leftovers.filter((node) => !tried.has(node));
  op.record.leftovers = [...others, ...nodes.filter((node) => open.has(node))];
}

/** Bytes of disk of an open node. */
export async function sizeOf(op: Operation, layer: Layer): Promise<number> {
  const nodes = await op.execute("query-named-block-nodes", { flat: true });
  const node = nodes.find((one) => one["node-name"] === formatNode(layer));
  if (node) return node.image["virtual-size"];
  throw new DomainError("INTERNAL_ERROR", `Node '${formatNode(layer)}' is not there`);
}
