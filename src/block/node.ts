/**
 * A node: one opened state in the graph, who uses it, and what is under way on it.
 *
 *        device 'vda'      job 's0'            parents: edges from above
 *              └──────┬───────┘
 *                 node 'top'  qcow2            one state
 *            file ┌───┴────┐ backing           children: edges to below, by role
 *          node '#block1'  node 'base'
 */

import type { Bell } from "../base/bell.ts";
import { assert, BlockError } from "../base/errors.ts";
import { BitmapList } from "./bitmap-list.ts";
import type { BlockChild } from "./child.ts";
import type { BlockDriver, BlockState, ChildRole, World } from "./driver.ts";
import { IoStats } from "./io-stats.ts";
import type { NodeSettings } from "./options.ts";
import { RangeLock } from "./range-lock.ts";
import type { WriteGate } from "./write-gate.ts";

/** What may be blocked on a node while a job works on it (QEMU: BlockOpType). */
export type BlockOperation =
  | "backup-source"
  | "backup-target"
  | "change"
  | "commit-source"
  | "commit-target"
  | "mirror-source"
  | "mirror-target"
  | "replace"
  | "resize"
  | "snapshot"
  | "stream"
  | "remove";

export interface OperationBlocker {
  /** "block device is in use by block job: stream" */
  readonly reason: string;
  /** What stays allowed. */
  readonly except?: readonly BlockOperation[];
}

/** What BLOCK_WRITE_THRESHOLD tells, in bytes. */
export interface ThresholdEvent {
  readonly "node-name": string;
  readonly "amount-exceeded": number;
  readonly "write-threshold": number;
}

export interface NodeInit {
  readonly name: string;
  readonly driver: BlockDriver;
  readonly world: World;
  readonly readOnly: boolean;
  /** Rung whenever something became quiet; whoever drains listens. One per graph. */
  readonly quietBell: Bell;
  /** Made by the engine for its own use: not shown as part of the chain. */
  readonly implicit: boolean;
  /** Put in by a job, and gone with it. */
  readonly isJobFilter: boolean;
  /** Opened by its own blockdev-add, so it stays until blockdev-del. */
  readonly monitorOwned: boolean;
  /** Whose options it was opened in; null: in its own. */
  readonly openedWith: BlockNode | null;
  /** Opened with its parent, and nobody said whether to write: reopened together with it. */
  readonly followsParent: boolean;
  /** The driver's own options, checked. */
  readonly options: unknown;
  readonly settings: NodeSettings;
}

export class BlockNode {
  readonly name: string;
  readonly driver: BlockDriver;
  readonly world: World;
  readonly implicit: boolean;
  readonly isJobFilter: boolean;
  readonly monitorOwned: boolean;
  /** Set by graph-record.ts once more, where nodes come back one by one. */
  openedWith: BlockNode | null;
  // Changed by reopen-all.ts only.
  followsParent: boolean;
  options: unknown;
  settings: NodeSettings;
  /** Nobody may write to it. Changed by reopen.ts only. */
  readOnly: boolean;
  /** It writes to what it keeps its own bytes in. Changed by reopen.ts only. */
  writesBelow: boolean;
  /** A job has made it writable, and will take that back: it counts as read-only (writable.ts). */
  isLentForWriting = false;
  readonly children = new Map<ChildRole, BlockChild>();
  readonly parents = new Set<BlockChild>();
  readonly ranges = new RangeLock();
  readonly blockers = new Set<OperationBlocker>();
  readonly stats: IoStats;
  /** Who is told what guests write here (src/block/io.ts tells). */
  readonly bitmaps: BitmapList = new BitmapList(this);
  /** What writes pass before they are done; null: nothing. Set by write-intents.ts only. */
  gate: WriteGate | null = null;
  readonly #quietBell: Bell;
  #state: BlockState | null = null;
  #inFlight = 0;
  #threshold = 0;
  #onThreshold: (event: ThresholdEvent) => void = () => {};

  constructor(init: NodeInit) {
    this.name = init.name;
    this.driver = init.driver;
    this.world = init.world;
    this.stats = new IoStats(init.world.clock);
    this.readOnly = init.readOnly;
    this.writesBelow = !init.readOnly;
    this.followsParent = init.followsParent;
    this.options = init.options;
    this.settings = init.settings;
    this.openedWith = init.openedWith;
    this.implicit = init.implicit;
    this.isJobFilter = init.isJobFilter;
    this.monitorOwned = init.monitorOwned;
    this.#quietBell = init.quietBell;
  }

  get description(): string {
    return `node '${this.name}'`;
  }

  get state(): BlockState {
    assert(this.#state !== null, `node '${this.name}' is open while it is used`);
    return this.#state;
  }

  get isOpen(): boolean {
    return this.#state !== null;
  }

  /** True when no request is under way on this node. */
  get isIdle(): boolean {
    return this.#inFlight === 0;
  }

  /** Called once, by the graph, when the driver has opened the image. */
  setState(state: BlockState): void {
    assert(this.#state === null, "a node is opened once");
    this.#state = state;
  }

  /** @throws BlockError EBUSY if a job has blocked the operation */
  checkOperation(operation: BlockOperation): void {
    for (const { reason, except } of this.blockers) {
      if (!except?.includes(operation)) {
        throw new BlockError("EBUSY", `Node '${this.name}' is busy: ${reason}`);
      }
    }
  }

  /** @throws BlockError EBUSY while it is another's backing file */
  checkNotBacking(): void {
    for (const { parent, role } of this.parents) {
      if (role !== "backing") continue;
      throw new BlockError(
        "EBUSY",
        `Node '${this.name}' is busy: it is the backing file of ${parent.description}`,
      );
    }
  }

  /** The end of the disk's part that may be written without notice; 0: all of it. */
  get writeThreshold(): number {
    return this.#threshold;
  }

  /** @param tell called once, by the first write that goes beyond */
  setWriteThreshold(offset: number, tell: (event: ThresholdEvent) => void): void {
    this.#threshold = offset;
    this.#onThreshold = tell;
  }

  /** A write that ends at `end` is about to begin. */
  noteWrite(end: number): void {
    const threshold = this.#threshold;
    if (threshold === 0 || end <= threshold) return;
    this.#threshold = 0;
    this.#onThreshold({
      "node-name": this.name,
      "amount-exceeded": end - threshold,
      "write-threshold": threshold,
    });
  }

  // Requests under way: src/block/io.ts counts every one in and out.

  enter(): void {
    this.#inFlight++;
  }

  leave(): void {
    this.#inFlight--;
    if (this.#inFlight === 0) this.#quietBell.ring();
  }
}
