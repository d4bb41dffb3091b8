/**
 * Copies from source to target that the mirror job has under way, and how one of them goes:
 *
 *   take the range's lock ─▶ clear its dirty bits ─▶ zero or data? ─▶ read ─▶ write ─▶ unlock
 *                                   ▲                         any failure │
 *                                   └──────── set them again ◀────────────┘
 *
 * Between clearing and reading nothing can get lost: a write that comes later than the clearing sets
 * the bits once more. The lock keeps a copy and a guest's own write to both disks apart, and both
 * in one order.
 */

import { alignDown, alignUp, MiB } from "../base/bytes.ts";
import { assert, BlockError } from "../base/errors.ts";
import type { BlockBackend } from "../block/backend.ts";
import type { BlockNode } from "../block/node.ts";
import type { RangeLock } from "../block/range-lock.ts";
import { withBuffer } from "../block/request.ts";
import { chainStatus } from "../block/status.ts";
import type { BlockJob, JobSide } from "./block-job.ts";
import type { CopyTask } from "./copy-window.ts";
import type { MirrorDirty } from "./mirror-dirty.ts";

/** Copies under way at once. */
const COPIES_IN_FLIGHT = 16;
/** Most bytes that are read into one buffer. */
const PIECE_BYTES = 1 * MiB;

/** The two disks, and what background copies and guests' writes have in common. */
export interface MirrorDisks {
  /** The node right below the filter. */
  readonly source: BlockNode;
  /** Both disks' nodes, and those between the source and its data: others may write below filters. */
  readonly nodes: readonly BlockNode[];
  /** The job's way to the source, for reads. */
  readonly reader: BlockBackend;
  readonly target: BlockBackend;
  readonly dirty: MirrorDirty;
  /** Ranges of whole granules: whoever writes to the target holds its range alone. */
  readonly locks: RangeLock;
  /** Zero writes may free what they cover. */
  readonly mayUnmap: boolean;
}

export interface MirrorFailure {
  readonly side: JobSide;
  readonly error: BlockError;
}

export class MirrorCopies {
  readonly #job: BlockJob;
  readonly #disks: MirrorDisks;
  readonly #bufferBytes: number;
  readonly #running = new Map<CopyTask, Promise<void>>();
  /** One for each copy: Node warns of signals on which many wait. */
  readonly #stops = new Set<AbortController>();
  readonly #failed: MirrorFailure[] = [];
  /** Not a BlockError: a bug, to be thrown where the job can see it. */
  #bug: { reason: unknown } | null = null;
  /** Where to look for the next dirty area. */
  #cursor = 0;
  #bytesStarted = 0;
  #bytesTaken = 0;
  /** How often the search has come round the disk, without a failure, and found more to do. */
  rounds = 0;
  /** Called after a copy that went well. */
  onSuccess: () => void = () => {};

  /** @param bufferBytes most bytes that all copies together may hold, a multiple of the granularity */
  constructor(job: BlockJob, disks: MirrorDisks, bufferBytes: number) {
    this.#job = job;
    this.#disks = disks;
    this.#bufferBytes = bufferBytes;
    job.signal.addEventListener("abort", () => {
      for (const stop of this.#stops) stop.abort();
    });
  }

  get isIdle(): boolean {
    return this.#running.size === 0;
  }

  /** Bytes that are neither dirty nor in the target. */
  get bytesTaken(): number {
    return this.#bytesTaken;
  }

  get hasFailed(): boolean {
    return this.#failed.length > 0;
  }

  /** Room for one more copy: at most this many bytes, 0 if one has to end first. */
  get room(): number {
    if (this.#running.size >= COPIES_IN_FLIGHT) return 0;
    return alignDown(this.#bufferBytes - this.#bytesStarted, this.#disks.dirty.granularity);
  }

  /**
   * What to copy next: dirty, of whole granules, and no part of it under way. The search goes round
   * and round the disk, so that an area that is written all the time does not hold up the rest.
   *
   * @param maxBytes a multiple of the granularity
   */
  next(maxBytes: number): CopyTask | null {
    const start = this.#cursor;
    let task = this.#find(start, this.#disks.dirty.length, maxBytes);
    if (!task) {
      task = this.#find(0, start, maxBytes);
      if (task) this.rounds++;
    }
    if (task) this.#cursor = task.offset + task.bytes;
    return task;
  }

  /** Begins a copy that next() gave. */
  start(task: CopyTask): void {
    this.#bytesStarted += task.bytes;
    const running = this.#copy(task).then(
      () => {},
      (reason) => {
        this.#bug ??= { reason };
      },
    );
    const counted = running.then(() => {
      this.#running.delete(task);
      this.#bytesStarted -= task.bytes;
    });
    this.#running.set(task, counted);
  }

  /** Until one copy has ended. */
  async oneEnded(): Promise<void> {
    assert(!this.isIdle, "somebody waits for a copy that is under way");
    await Promise.race(this.#running.values());
    this.#throwBug();
  }

  /** Until nothing is under way. */
  async drain(): Promise<void> {
    while (!this.isIdle) await Promise.all(this.#running.values());
    this.#throwBug();
  }

  /** Something to be decided on by the job. Its range is dirty already. */
  fail(failure: MirrorFailure): void {
    this.rounds = 0;
    this.#failed.push(failure);
  }

  /** The failures since the last call, in the order in which they happened. */
  takeFailed(): MirrorFailure[] {
    return this.#failed.splice(0);
  }

  #find(from: number, end: number, maxBytes: number): CopyTask | null {
    const { dirty } = this.#disks;
    for (let at = from; at < end; ) {
      const area = dirty.next(at, end, maxBytes);
      if (!area) return null;
      const cut = this.#cutOff(area);
      if (typeof cut !== "number") return cut;
      at = cut;
    }
    return null;
  }

  /** The part of an area before the next copy under way, or where to go on if there is none. */
  #cutOff({ offset, bytes }: CopyTask): CopyTask | number {
    let end = offset + bytes;
    for (const other of this.#running.keys()) {
      const otherEnd = other.offset + other.bytes;
      if (other.offset <= offset && offset < otherEnd) return otherEnd;
      if (offset < other.offset && other.offset < end) end = other.offset;
    }
    return { offset, bytes: end - offset };
  }

  async #copy(task: CopyTask): Promise<void> {
    const { dirty, locks } = this.#disks;
    const { offset, bytes } = task;
    this.#job.trace?.mirror_one_iteration?.(this.#job.id ?? "", offset, bytes);
    const stop = new AbortController();
    const { signal } = stop;
    this.#stops.add(stop);
    const doing: { side: JobSide } = { side: "source" };
    try {
      const held = await locks.acquire(offset, alignUp(bytes, dirty.granularity), true, signal);
      try {
        dirty.take(task);
        this.#bytesTaken += bytes;
        try {
          await copyRange(this.#disks, offset, bytes, signal, doing);
        } catch (error) {
          dirty.set(offset, bytes);
          throw error;
        } finally {
          this.#bytesTaken -= bytes;
        }
      } finally {
        locks.release(held);
      }
      this.#job.progress.workDone(bytes);
      this.#job.resetBackOff();
      this.onSuccess();
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
      if (!this.#job.cancelled) this.fail({ side: doing.side, error });
    } finally {
      this.#stops.delete(stop);
    }
  }

  #throwBug(): void {
    if (this.#bug) throw this.#bug.reason;
  }
}

/**
 * Makes a range of the target what it is in the source. The caller holds its lock.
 *
 * @param doing whose I/O is under way; whoever catches an error finds the culprit there
 */
export async function copyRange(
  disks: MirrorDisks,
  offset: number,
  bytes: number,
  signal: AbortSignal,
  doing: { side: JobSide },
): Promise<void> {
  const { reader, target, mayUnmap } = disks;
  const end = offset + bytes;
  for (let at = offset; at < end; ) {
    doing.side = "source";
    const run = await nextRun(disks.source, at, end);
    if (run.zero) {
      doing.side = "target";
      await target.writeZeroes(at, run.bytes, { signal, mayUnmap });
    } else {
      await withBuffer(target.node, run.bytes, async (buf) => {
        await reader.read(buf, at, { signal });
        doing.side = "target";
        await target.write(buf, at, { signal });
      });
    }
    at += run.bytes;
  }
}

/** The next run that is all data or all zeroes, put together from as many as that takes. */
async function nextRun(
  source: BlockNode,
  offset: number,
  end: number,
): Promise<{ bytes: number; zero: boolean }> {
  const first = await chainStatus(source, null, offset, end - offset);
  let { bytes } = first;
  while (offset + bytes < end && (first.zero || bytes < PIECE_BYTES)) {
    const more = await chainStatus(source, null, offset + bytes, end - offset - bytes);
    if (more.zero !== first.zero) break;
    bytes += more.bytes;
  }
  return { bytes: first.zero ? bytes : Math.min(bytes, PIECE_BYTES), zero: first.zero };
}
