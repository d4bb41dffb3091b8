/**
 * What an owner has to offer: services by name, each over as many ports as it takes, and the disks for
 * what has to be written again. Here what an engine alone makes of it; src/domain/ adds its own.
 */

import { BlockError } from "../../base/errors.ts";
import type { BlockBackend } from "../../block/backend.ts";
import type { BlockChild } from "../../block/child.ts";
import type { BlockNode } from "../../block/node.ts";
import type { Replacing } from "../../blockjob/block-job.ts";
import type { BlockExport } from "../../export/driver.ts";
import type { Engine } from "../engine.ts";
import type { Port } from "../protocol.ts";

export type Service = (...ports: Port[]) => void;

/** How the owner gets at what clients' writes have been and will be done by. */
export interface Disks {
  /** @throws BlockError ENOENT if there is no such export, or it cannot be written */
  writable(exportId: string): Pick<BlockBackend, "write" | "writeZeroes" | "flush">;
  /** The writable exports. */
  all(): readonly string[];
  /** This one, and the writable exports that lead to some node that it leads to, too. */
  sharing(exportId: string): readonly string[];
  /** This one, and the writable exports that write to some node that it writes to, too. */
  rivals(exportId: string): readonly string[];
  /** Exports that are not there yet, as their disk could not be opened, and that nobody has given up. */
  awaited(): readonly string[];
}

export interface Realm {
  /** `engine` takes QMP and data, `monitor` QMP; then whatever else there is. */
  readonly services: ReadonlyMap<string, Service>;
  readonly disks: Disks;
  /** A command with an id {client, n} is not done twice, also by the next owner. */
  readonly remembers: boolean;
  /** Resolves when it has stopped after an error that it cannot go on from. */
  readonly stopped: Promise<BlockError>;
  /**
   * Brings jobs to rest, flushes, closes all files. If it remembers, nothing of this end is on record: the
   * next owner goes on.
   *
   * @throws BlockError; also if it has stopped: then nothing is written, and files are closed all the same
   */
  close(): Promise<void>;
}

export interface Opening {
  readonly epoch: number;
  /** What pages have handed over, for driver `blob`. */
  readonly blobs: ReadonlyMap<string, Blob>;
  /** Raised when it need not be opened any more. */
  readonly signal: AbortSignal;
  /** Says what it is doing, for people who wait. */
  readonly tell: (text: string) => void;
  /** That an export is gone is on record; another one may get its name when this resolves. @throws BlockError */
  readonly onExportDeleted: (id: string) => Promise<void>;
  /**
   * Something that could not be opened has come back, or has been given up.
   *
   * @param back exports that are there again. Whoever wants something of their disks first has it done when
   *   this resolves
   */
  readonly onRecovery: (back: readonly string[]) => Promise<void>;
  /**
   * Puts other content in a disk's place, whoever asked for that: first what clients have written is flushed,
   * and what they write meanwhile waits, so that none of them keeps a write that the next owner would do again
   * on top of it.
   */
  readonly replacing: Replacing;
}

/** @throws BlockError if it cannot be opened; then nothing is left open */
export type OpenRealm = (opening: Opening) => Promise<Realm>;

export function engineRealm(engine: Engine, opening: Opening): Realm {
  const { onExportDeleted, onRecovery, replacing } = opening;
  engine.replacing = replacing;
  engine.onRecovery = onRecovery;
  engine.onExportDeleted = onExportDeleted;
  return {
    services: new Map<string, Service>([
      ["engine", (qmp, data) => engine.connect({ qmp: qmp!, data: data! })],
      ["monitor", (port) => engine.serveMonitor(port!)],
      ["text-monitor", (port) => engine.serveMonitor(port!, { text: true })],
    ]),
    disks: {
      writable(exportId) {
        const { writable, backend } = engine.exports.get(exportId);
        if (writable) return backend;
        throw new BlockError("EACCES", `Export '${exportId}' is read only`);
      },
      all: () => writableOf(engine).map(({ id }) => id),
      sharing: (exportId) => sharing(engine, exportId, nodesUnder),
      rivals: (exportId) => sharing(engine, exportId, writtenNodes),
      awaited: () => engine.awaitedExports,
    },
    remembers: false,
    stopped: engine.whenStopped,
    close: () => engine.close(),
  };
}

function writableOf(engine: Engine) {
  return engine.exports.all.filter((one) => one.writable && !one.shuttingDown);
}

function sharing(
  engine: Engine,
  exportId: string,
  nodesOf: (node: BlockNode) => ReadonlySet<BlockNode>,
): readonly string[] {
  const own = engine.exports.all.find(({ id }) => id === exportId);
  if (!own) return [exportId];
  const nodes = nodesOf(own.backend.node);
  const meets = ({ backend }: BlockExport) =>
    [...nodesOf(backend.node)].some((node) => nodes.has(node));
  const others = writableOf(engine).filter((one) => one !== own && meets(one));
  return [exportId, ...others.map(({ id }) => id)];
}

function nodesUnder(node: BlockNode): ReadonlySet<BlockNode> {
  return nodesDown(node, () => true);
}

/** What is written to a node does not come to its backing file. */
function writtenNodes(node: BlockNode): ReadonlySet<BlockNode> {
  return nodesDown(node, ({ role }) => role !== "backing");
}

function nodesDown(top: BlockNode, leads: (edge: BlockChild) => boolean): ReadonlySet<BlockNode> {
  const found = new Set([top]);
  // A set that grows is walked to its end.
  for (const node of found) {
    for (const edge of node.children.values()) if (leads(edge)) found.add(edge.node);
  }
  return found;
}
