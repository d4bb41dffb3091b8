/**
 * Figures of what went through a node or a device since it was opened (QEMU: block/accounting.c). They
 * are added to at the end of each request, and cost it a few additions.
 */

import type { Clock } from "../base/clock.ts";

/** QEMU's prefixes in query-blockstats. */
export type IoKind = "rd" | "wr" | "flush" | "unmap";

/** Of the requests of one kind. */
export interface IoFigures {
  /** Of those that went well. */
  bytes: number;
  operations: number;
  failed: number;
  /** Never begun: out of the disk's range. */
  invalid: number;
  /** Of those that were begun, whatever came of them. */
  totalMs: number;
}

export class IoStats implements Readonly<Record<IoKind, IoFigures>> {
  readonly rd = none();
  readonly wr = none();
  readonly flush = none();
  readonly unmap = none();
  /** The furthest end of a write, in bytes. */
  highestWrite = 0;
  /** When the last one ended; null: none has. */
  lastMs: number | null = null;
  readonly #clock: Clock;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** To be handed to done() or failed(). */
  begin(): number {
    return this.#clock.now();
  }

  done(kind: IoKind, bytes: number, begunMs: number): void {
    const figures = this[kind];
    figures.bytes += bytes;
    figures.operations++;
    this.#ended(figures, begunMs);
  }

  failed(kind: IoKind, begunMs: number): void {
    const figures = this[kind];
    figures.failed++;
    this.#ended(figures, begunMs);
  }

  #ended(figures: IoFigures, begunMs: number): void {
    this.lastMs = this.#clock.now();
    figures.totalMs += this.lastMs - begunMs;
  }
}

function none(): IoFigures {
  return { bytes: 0, operations: 0, failed: 0, invalid: 0, totalMs: 0 };
}
