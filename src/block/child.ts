/**
 * An edge of the graph: a user of a node, and the node it uses.
 *
 *     parent (a node, a device, a job) ──[ role, what it takes, what it shares ]──▶ node
 *
 * Drivers hold edges, never nodes: the graph may put another node at an edge's end while they are
 * at it. The methods are the whole of what a driver may ask of a child; src/block/io.ts does them.
 */

import type { DebugEvent } from "./debug.ts";
import type { ChildRole, RequestOptions, TruncateOptions } from "./driver.ts";
import * as io from "./io.ts";
import type { BlockNode } from "./node.ts";
import type { ChildPermissions } from "./permissions.ts";
import type { BlockStatus } from "./status.ts";

/** A user that is no node: a device, a job, an export. The top of a graph is made of these. */
export interface RootParent {
  /** "device 'vda'", "job 's0'": for error texts. */
  readonly description: string;
  /** Send nothing down from now on. Calls nest. */
  drainedBegin(): void;
  /** True once nothing of the parent's is on its way down; becoming so rings the graph's bell. */
  isQuiet(): boolean;
  /** The end of one drainedBegin(). */
  drainedEnd(): void;
}

/** Whoever stands above an edge. */
export type BlockParent = BlockNode | RootParent;

export class BlockChild {
  readonly parent: BlockParent;
  readonly role: ChildRole | "root";
  /** Changed by the graph only (src/block/graph.ts). */
  node: BlockNode;
  /** Changed by the graph only. */
  permissions: ChildPermissions;
  /** A job relies on this link: the graph refuses to point it elsewhere (count of such jobs). */
  frozen = 0;

  constructor(
    parent: BlockParent,
    role: ChildRole | "root",
    node: BlockNode,
    permissions: ChildPermissions,
  ) {
    this.parent = parent;
    this.role = role;
    this.node = node;
    this.permissions = permissions;
  }

  /** Length of the disk or store below, in bytes. */
  get length(): number {
    return io.getLength(this.node);
  }

  /**
   * Tells a blkdebug node below what comes next. Null, at no cost, where none listens:
   *
   *     const stop = file.debugEvent("l2_load");
   *     if (stop) await stop;
   */
  debugEvent(event: DebugEvent, options: RequestOptions = {}): Promise<void> | null {
    return this.node.state.debug?.event(event, options.signal) ?? null;
  }

  /** Fills the buffer; what lies past the end reads as zeroes. */
  read(buf: Uint8Array, offset: number, options: RequestOptions = {}): Promise<void> {
    return io.read(this.node, buf, offset, options);
  }

  /** Writes the buffer; past the end only where the store grows by writing, else EINVAL. */
  write(buf: Uint8Array, offset: number, options: RequestOptions = {}): Promise<void> {
    return io.write(this.node, buf, offset, options);
  }

  writeZeroes(offset: number, bytes: number, options: RequestOptions = {}): Promise<void> {
    return io.writeZeroes(this.node, offset, bytes, options);
  }

  /** One whole cluster, packed. @throws BlockError ENOTSUP */
  writeCompressed(buf: Uint8Array, offset: number): Promise<void> {
    return io.writeCompressed(this.node, buf, offset);
  }

  discard(offset: number, bytes: number, options: RequestOptions = {}): Promise<void> {
    return io.discard(this.node, offset, bytes, options);
  }

  /** Where the run at `offset` comes from, in this node alone. */
  status(offset: number, bytes: number): Promise<BlockStatus> {
    return io.blockStatus(this.node, offset, bytes);
  }

  /** Makes the disk or store `length` bytes long; new bytes read as zeroes. */
  truncate(length: number, options: TruncateOptions = {}): Promise<void> {
    return io.truncate(this.node, length, options);
  }

  /** After it, a crash takes nothing back that was written before it. */
  async flush(): Promise<void> {
    await this.debugEvent("flush_to_disk");
    return io.flush(this.node);
  }
}
