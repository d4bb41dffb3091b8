/**
 * The copying of `convert`: from one or several disks to one (QEMU: convert_do_copy() in qemu-img.c).
 *
 *     next run ─▶ read ─▶ wait for those before ─▶ write what is data, zero or skip the rest
 *        └── `parallel` of these at a time, each with one buffer of 2 MiB at most
 *
 * Runs are taken in order, one after the other, and read side by side; unless `outOfOrder` they are
 * written in order, so that a file which grows has no holes but those that are meant. After a failure
 * nothing more is begun, and what is under way is waited for.
 */

import { alignDown, alignUp, MiB, SECTOR_BYTES } from "../base/bytes.ts";
import { type Clock, sleep } from "../base/clock.ts";
import { BlockError, throwIfAborted } from "../base/errors.ts";
import { Mutex } from "../base/mutex.ts";
import { RateLimit } from "../base/rate-limit.ts";
import { settleAll } from "../base/settle.ts";
import { TimeSlice } from "../base/time-slice.ts";
import type { BlockBackend } from "../block/backend.ts";
import { withBuffer } from "../block/request.ts";
import { skipFilters } from "../block/status.ts";
import { BadRuns } from "./bad-runs.ts";
import { type DataRun, dataRun } from "./data-runs.ts";
import type { Sources } from "./sources.ts";

const BUFFER_BYTES = 2 * MiB;
/** Longest run that is looked at, and made zero, at once. */
const RUN_BYTES = 2 ** 31 - SECTOR_BYTES;

export interface Conversion {
  readonly sources: Sources;
  readonly target: BlockBackend;
  /** Bytes of disk that are right when it is done. */
  readonly length: number;
  /** Write whole clusters, packed. */
  readonly compress: boolean;
  /** Bytes of zeroes that are worth a hole; 0: none are, all of the target gets its place. */
  readonly sparse: number;
  /** The target reads as zeroes already. */
  readonly isZero: boolean;
  /** Bytes of the target's backing file; null: it has none. What a source inherits is not copied then. */
  readonly backingLength: number | null;
  readonly parallel: number;
  readonly outOfOrder: boolean;
  /** Bytes per second; 0 is no limit. */
  readonly rate: number;
  /** What cannot be read becomes zeroes, told of here. Without it the first failure is the end. */
  readonly salvage?: (problem: string) => void;
  readonly progress: (done: number, total: number) => Promise<void>;
  readonly clock: Clock;
  readonly signal?: AbortSignal;
}

/** What was being done when it failed. */
export type Stage = "status" | "read" | "write" | "flush";

/** The failure of a conversion: where, and why. */
export interface ConversionFailure {
  readonly stage: Stage;
  readonly offset: number;
  readonly error: BlockError;
}

interface Run {
  readonly offset: number;
  readonly bytes: number;
  readonly kind: "zero" | "data" | "inherited";
  /** What of it could not be read, and became zeroes. */
  readonly bad: Bad[];
  /** Those before it have been written. */
  readonly before: Promise<void>;
  readonly written: () => void;
}

interface Bad {
  readonly offset: number;
  readonly reason: string;
}

/** @returns null, or the first failure */
export async function convertDisk(conversion: Conversion): Promise<ConversionFailure | null> {
  return new ConvertLoop(conversion).run();
}

class ConvertLoop {
  readonly #init: Conversion;
  readonly #lookups = new Mutex();
  readonly #stop = new AbortController();
  readonly #rate = new RateLimit();
  readonly #slice: TimeSlice;
  readonly #cluster: number;
  readonly #bufferBytes: number;
  readonly #alignment: number;
  readonly #badStatus: BadRuns | null;
  readonly #badData: BadRuns | null;
  #failure: ConversionFailure | null = null;
  #offset = 0;
  /** Up to here the answer is known. */
  #knownEnd = 0;
  #known: Run["kind"] = "data";
  /** As far as it is worth asking at once: less after answers that could not be had. */
  #askBytes = RUN_BYTES;
  #lastWritten: Promise<void> = Promise.resolve();
  #total = 0;
  #done = 0;

  constructor(conversion: Conversion) {
    this.#init = conversion;
    const { limits } = skipFilters(conversion.target.node).state;
    this.#cluster = limits.clusterSize;
    this.#bufferBytes = conversion.compress ? limits.clusterSize : BUFFER_BYTES;
    const sparse = conversion.sparse === 0 ? 1 : 2 ** Math.floor(Math.log2(conversion.sparse));
    this.#alignment = Math.max(sparse, limits.requestAlignment, SECTOR_BYTES);
    this.#rate.setSpeed(conversion.rate);
    this.#slice = new TimeSlice(conversion.clock, this.#stop.signal);
    const { salvage } = conversion;
    this.#badStatus = salvage ? new BadRuns("looking up the status of", salvage) : null;
    this.#badData = salvage ? new BadRuns("reading", salvage) : null;
  }

  async run(): Promise<ConversionFailure | null> {
    const { signal, parallel } = this.#init;
    const stop = () => this.#stop.abort();
    signal?.addEventListener("abort", stop, { once: true });
    if (signal?.aborted) stop();
    try {
      this.#total = await this.#count();
      await settleAll(Array.from({ length: parallel }, () => this.#work()));
      throwIfAborted(this.#stop.signal);
      await this.#attempt("flush", this.#init.length, () => this.#init.target.flush());
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
      this.#failure ??= { stage: "status", offset: this.#offset, error };
    } finally {
      signal?.removeEventListener("abort", stop);
      this.#badStatus?.end();
      this.#badData?.end();
    }
    return this.#failure;
  }

  /** Bytes that are going to be moved: what progress is told in. */
  async #count(): Promise<number> {
    let bytes = 0;
    for (let at = 0; at < this.#init.length; ) {
      throwIfAborted(this.#stop.signal);
      const run = await this.#lookUp(at, null);
      if (this.#isMoved(run.kind)) bytes += run.bytes;
      at += run.bytes;
    }
    this.#knownEnd = 0;
    return bytes;
  }

  #isMoved(kind: Run["kind"]): boolean {
    return kind === "data" || (kind === "zero" && this.#init.sparse === 0);
  }

  async #work(): Promise<void> {
    for (;;) {
      const run = await this.#lookups.run(() => this.#next());
      if (run === null) return;
      try {
        await this.#convert(run);
      } finally {
        run.written();
      }
    }
  }

  async #next(): Promise<Run | null> {
    if (this.#stop.signal.aborted || this.#offset >= this.#init.length) return null;
    const offset = this.#offset;
    const found = await this.#attempt("status", offset, () =>
      this.#lookUp(offset, this.#badStatus),
    );
    const before = this.#lastWritten;
    let written = () => {};
    this.#lastWritten = new Promise((resolve) => {
      written = resolve;
    });
    this.#offset += found.bytes;
    return { ...found, offset, bad: [], before, written };
  }

  /** The run at `offset`, no longer than it can be seen to at once. */
  async #lookUp(
    offset: number,
    bad: BadRuns | null,
  ): Promise<{ bytes: number; kind: Run["kind"] }> {
    if (this.#slice.isOver) await this.#slice.rest();
    const { length, backingLength, compress } = this.#init;
    let most = Math.min(length - offset, RUN_BYTES);
    const hasBacking = backingLength !== null;
    const backingEnd = hasBacking ? alignUp(backingLength, SECTOR_BYTES) : 0;
    const isPastBacking = hasBacking && offset >= backingEnd;
    if (hasBacking && !isPastBacking) most = Math.min(most, backingEnd - offset);
    if (this.#knownEnd <= offset) {
      const run = await this.#status(offset, most, hasBacking, bad);
      // Where the target's backing file has ended, zeroes need not be written.
      this.#known = run.kind === "zero" && isPastBacking ? "inherited" : run.kind;
      this.#knownEnd = offset + run.bytes;
    }
    let kind = this.#known;
    let bytes = Math.min(most, this.#knownEnd - offset);
    if (this.#isMoved(kind)) bytes = Math.min(bytes, this.#bufferBytes);
    if (!compress) return { bytes, kind };
    // Packed clusters are written whole.
    if (bytes < this.#cluster) {
      bytes = Math.min(this.#cluster, length - offset);
      kind = "data";
    } else bytes = alignDown(bytes, this.#cluster);
    return { bytes, kind };
  }

  async #status(offset: number, bytes: number, tellsInherited: boolean, bad: BadRuns | null) {
    const { sources, salvage } = this.#init;
    for (;;) {
      const most = Math.min(bytes, this.#askBytes);
      try {
        const run = await sources.run(offset, most, tellsInherited);
        this.#askBytes = Math.min(RUN_BYTES, most * 4);
        return run;
      } catch (error) {
        if (!salvage || !(error instanceof BlockError)) throw error;
        this.#askBytes = Math.ceil(most / 4 / SECTOR_BYTES) * SECTOR_BYTES;
        if (most > SECTOR_BYTES) continue;
        bad?.add(offset, most, error.message);
        // Reading may do all the same.
        return { bytes: most, kind: "data" as const };
      }
    }
  }

  async #convert(run: Run): Promise<void> {
    const { target } = this.#init;
    if (!this.#isMoved(run.kind)) return this.#inTurn(run, null);
    await withBuffer(target.node, run.bytes, async (buf) => {
      if (run.kind === "zero") buf.fill(0);
      else await this.#read(buf, run);
      await this.#inTurn(run, buf);
    });
  }

  async #inTurn(run: Run, buf: Uint8Array | null): Promise<void> {
    const { compress, outOfOrder } = this.#init;
    if (!outOfOrder) await run.before;
    for (const { offset, reason } of run.bad) this.#badData?.add(offset, SECTOR_BYTES, reason);
    if (this.#stop.signal.aborted) return;
    const writing = this.#attempt("write", run.offset, () => this.#write(run, buf));
    // Packing takes the time: the next ones are packed meanwhile, and the format keeps them in order.
    if (compress) run.written();
    await writing;
    if (buf) {
      this.#done += buf.length;
      await this.#init.progress(this.#done, this.#total);
      await this.#pace(buf.length);
    }
  }

  async #read(buf: Uint8Array, { offset, bad }: Run): Promise<void> {
    const { sources, salvage } = this.#init;
    const { signal } = this.#stop;
    if (!salvage) return this.#attempt("read", offset, () => sources.read(buf, offset, signal));
    try {
      await sources.read(buf, offset, signal);
    } catch (error) {
      if (!(error instanceof BlockError) || error.errno === "ECANCELED") throw error;
      if (buf.length > SECTOR_BYTES) return this.#salvage(buf, offset, bad);
      bad.push({ offset, reason: error.message });
      buf.fill(0);
    }
  }

  /** Sector by sector: what can be read is kept. */
  async #salvage(buf: Uint8Array, offset: number, bad: Bad[]): Promise<void> {
    for (let done = 0; done < buf.length; done += SECTOR_BYTES) {
      throwIfAborted(this.#stop.signal);
      const sector = buf.subarray(done, done + SECTOR_BYTES);
      try {
        await this.#init.sources.read(sector, offset + done, this.#stop.signal);
      } catch (error) {
        if (!(error instanceof BlockError) || error.errno === "ECANCELED") throw error;
        bad.push({ offset: offset + done, reason: error.message });
        sector.fill(0);
      }
    }
  }

  async #write({ offset, bytes, kind }: Run, buf: Uint8Array | null): Promise<void> {
    if (kind === "inherited") return;
    if (buf === null) return this.#zero(offset, bytes);
    const { target } = this.#init;
    const { signal } = this.#stop;
    for (let done = 0; done < buf.length; ) {
      throwIfAborted(signal);
      const rest = done === 0 ? buf : buf.subarray(done);
      const run = this.#dataRun(rest, offset + done);
      const piece = this.#within(rest.subarray(0, run.bytes), offset + done);
      if (run.zero) await this.#zero(offset + done, run.bytes);
      else if (this.#init.compress) await target.writeCompressed(piece, offset + done);
      else await target.write(piece, offset + done, { signal });
      done += run.bytes;
    }
  }

  #dataRun(buf: Uint8Array, offset: number): DataRun {
    const { sparse, compress, target } = this.#init;
    const { kernel } = target.node.world;
    if (sparse === 0) return { bytes: buf.length, zero: false };
    if (compress) return { bytes: buf.length, zero: kernel.isZero(buf) };
    return dataRun(kernel, buf, offset, { sparse, alignment: this.#alignment });
  }

  /** A target whose end is no whole sector gets no more than fits: only a file of bytes grows. */
  #within(buf: Uint8Array, offset: number): Uint8Array {
    const room = this.#init.target.length - offset;
    return room < buf.length ? buf.subarray(0, Math.max(0, room)) : buf;
  }

  /** Zeroes, where the target may be something else by now. */
  async #zero(offset: number, bytes: number): Promise<void> {
    const { target, isZero, backingLength } = this.#init;
    if (isZero && backingLength === null) return;
    const end = Math.min(offset + bytes, target.length);
    await target.writeZeroes(offset, end - offset, { mayUnmap: true, signal: this.#stop.signal });
  }

  async #pace(bytes: number): Promise<void> {
    const { clock } = this.#init;
    const delay = this.#rate.delay(bytes, clock.now());
    if (delay > 0) await sleep(clock, delay, this.#stop.signal);
  }

  /** The first failure of all is the one that counts; it stops the others. */
  async #attempt<T>(stage: Stage, offset: number, work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
      this.#failure ??= { stage, offset, error };
      this.#stop.abort();
      throw error;
    }
  }
}
