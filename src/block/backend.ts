/**
 * A root of the graph: what a device, an export or a job holds of a node (QEMU: BlockBackend).
 *
 * Requests from outside come in here: bounds are checked, and while the graph is drained a device's
 * requests wait at the door. A job's own requests do not: a job is drained by pausing it.
 */

import { Bell } from "../base/bell.ts";
import { assert, BlockError } from "../base/errors.ts";
import type { Trace } from "../base/trace.ts";
import { BlockChild, type RootParent } from "./child.ts";
import type { RequestOptions, TruncateOptions } from "./driver.ts";
import * as io from "./io.ts";
import { type IoKind, IoStats } from "./io-stats.ts";
import type { BlockNode } from "./node.ts";
import { type ChildPermissions, Perm } from "./permissions.ts";
import { type ChainStatus, chainStatus, type DepthStatus, depthStatus } from "./status.ts";

export interface BackendInit {
  /** What QMP calls it: a device's name; "" for a job's. */
  readonly name: string;
  /** For error texts: "device 'vda'". */
  readonly description: string;
  readonly permissions: ChildPermissions;
  /** Each write is flushed before it is done, as if all were sent with `fua`. */
  readonly writethrough?: boolean;
  /** Told of drains; a job pauses. Without it requests queue here. */
  readonly onDrain?: { begin(): void; isQuiet(): boolean; end(): void };
}

export interface BackendRequestOptions extends RequestOptions {
  /** A crash does not take it back once it is done (QEMU: BDRV_REQ_FUA). */
  readonly fua?: boolean;
}

export class BlockBackend implements RootParent {
  readonly name: string;
  readonly description: string;
  readonly edge: BlockChild;
  readonly #writethrough: boolean;
  readonly #onDrain: BackendInit["onDrain"];
  readonly #quietBell: Bell;
  readonly #undrained = new Bell();
  readonly stats: IoStats;
  #drained = 0;
  #inFlight = 0;
  #closed = false;

  /** Made by Graph.openBackend(), which checks the permissions. */
  constructor(init: BackendInit, node: BlockNode, quietBell: Bell) {
    this.name = init.name;
    this.description = init.description;
    this.#writethrough = init.writethrough ?? false;
    this.#onDrain = init.onDrain;
    this.#quietBell = quietBell;
    this.stats = new IoStats(node.world.clock);
    this.edge = new BlockChild(this, "root", node, init.permissions);
  }

  get node(): BlockNode {
    return this.edge.node;
  }

  get #trace(): Trace {
    return this.node.world.trace;
  }

  get length(): number {
    return io.getLength(this.node);
  }

  /** Fills the buffer. @throws BlockError EINVAL past the end, EIO and the like from below */
  read(buf: Uint8Array, offset: number, options: RequestOptions = {}): Promise<void> {
    this.#trace.blk_co_preadv?.(this.description, this.node.name, offset, buf.length);
    return this.#request("rd", offset, buf.length, options, () =>
      io.read(this.node, buf, offset, options),
    );
  }

  write(buf: Uint8Array, offset: number, options: BackendRequestOptions = {}): Promise<void> {
    this.#assertTaken(options.unchanged ? Perm.writeUnchanged | Perm.write : Perm.write);
    this.#trace.blk_co_pwritev?.(this.description, this.node.name, offset, buf.length);
    return this.#request("wr", offset, buf.length, options, () =>
      this.#flushed(options, io.write(this.node, buf, offset, options)),
    );
  }

  writeZeroes(offset: number, bytes: number, options: BackendRequestOptions = {}): Promise<void> {
    this.#assertTaken(Perm.write);
    this.#trace.blk_co_pwrite_zeroes?.(this.description, this.node.name, offset, bytes);
    return this.#request("wr", offset, bytes, options, () =>
      this.#flushed(options, io.writeZeroes(this.node, offset, bytes, options)),
    );
  }

  discard(offset: number, bytes: number, options: RequestOptions = {}): Promise<void> {
    this.#assertTaken(Perm.write);
    this.#trace.blk_co_pdiscard?.(this.description, this.node.name, offset, bytes);
    return this.#request("unmap", offset, bytes, options, () =>
      io.discard(this.node, offset, bytes, options),
    );
  }

  /** One whole cluster, packed where that makes it smaller. */
  writeCompressed(buf: Uint8Array, offset: number): Promise<void> {
    this.#assertTaken(Perm.write);
    this.#trace.blk_co_pwritev?.(this.description, this.node.name, offset, buf.length);
    return this.#request("wr", offset, buf.length, {}, () =>
      io.writeCompressed(this.node, buf, offset),
    );
  }

  /** Copies what shows through from backing files into the layer itself (BDRV_REQ_PREFETCH). */
  copyUp(offset: number, bytes: number, options: RequestOptions = {}): Promise<void> {
    return this.#request(null, offset, bytes, options, () =>
      io.copyUp(this.node, offset, bytes, options),
    );
  }

  flush(options: RequestOptions = {}): Promise<void> {
    this.#trace.blk_co_flush?.(this.description, this.node.name);
    return this.#request("flush", 0, 0, options, () => io.flush(this.node));
  }

  /** Which layer decides the run at `offset`, and whether it is known to be zero. */
  status(offset: number, bytes: number, options: RequestOptions = {}): Promise<ChainStatus> {
    return this.#request(null, offset, bytes, options, () =>
      chainStatus(this.node, null, offset, bytes),
    );
  }

  /** How many nodes down, from 1 on, the run at `offset` is allocated; 0 if nowhere. */
  depth(offset: number, bytes: number, options: RequestOptions = {}): Promise<DepthStatus> {
    return this.#request(null, offset, bytes, options, () => depthStatus(this.node, offset, bytes));
  }

  truncate(length: number, options: TruncateOptions = {}): Promise<void> {
    this.#assertTaken(Perm.resize);
    return this.#request(null, 0, 0, {}, () => io.truncate(this.node, length, options));
  }

  /** No request may be under way, none comes after it. Graph.closeBackend() takes the edge away. */
  markClosed(): void {
    this.#closed = true;
    this.#undrained.ring();
  }

  drainedBegin(): void {
    this.#drained++;
    this.#onDrain?.begin();
  }

  /** True while no request of its own is under way. */
  get isIdle(): boolean {
    return this.#inFlight === 0;
  }

  /** Somebody waits for quiet, or has it: whoever sends requests of its own accord holds them back. */
  get isDrained(): boolean {
    return this.#drained > 0;
  }

  isQuiet(): boolean {
    return this.isIdle && (this.#onDrain?.isQuiet() ?? true);
  }

  drainedEnd(): void {
    assert(this.#drained > 0, "a drain ends once");
    this.#drained--;
    this.#onDrain?.end();
    if (this.#drained === 0) this.#undrained.ring();
  }

  async #request<T>(
    kind: IoKind | null,
    offset: number,
    bytes: number,
    options: RequestOptions,
    work: () => Promise<T>,
  ): Promise<T> {
    if (!this.#onDrain) {
      while (this.#drained > 0 && !this.#closed) await this.#undrained.rung(options.signal);
    }
    if (this.#closed) throw new BlockError("ENOMEDIUM", `${this.description} has been closed`);
    // Checked after the wait: the disk may have another size, or the edge another node, by now.
    this.#checkRange(kind, offset, bytes);
    const begunMs = this.stats.begin();
    this.#inFlight++;
    try {
      const result = await work();
      if (kind !== null) this.stats.done(kind, bytes, begunMs);
      return result;
    } catch (error) {
      if (kind !== null) this.stats.failed(kind, begunMs);
      throw error;
    } finally {
      this.#inFlight--;
      if (this.#inFlight === 0) this.#quietBell.ring();
    }
  }

  #flushed({ fua }: BackendRequestOptions, written: Promise<void>): Promise<void> {
    if (!fua && !this.#writethrough) return written;
    return written.then(() => io.flush(this.node));
  }

  #checkRange(kind: IoKind | null, offset: number, bytes: number): void {
    const valid = Number.isSafeInteger(offset) && offset >= 0 && Number.isSafeInteger(bytes);
    if (valid && bytes >= 0 && offset + bytes <= this.length) return;
    if (kind !== null) this.stats[kind].invalid++;
    throw new BlockError(
      "EINVAL",
      `${this.description}: ${bytes} bytes at ${offset} are not within its ${this.length} bytes`,
    );
  }

  #assertTaken(permission: number): void {
    const { take } = this.edge.permissions;
    assert((take & permission) !== 0, `${this.description} has taken the permission it uses`);
  }
}
