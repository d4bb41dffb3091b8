/**
 * Events, as data that can be sent over a port, under virsh's names. Both flavours of a block job's event
 * are told each time: the one that names the disk by path only where the disk has one at that moment, so a
 * pivot's READY and COMPLETED may name different paths. Who wants to know a disk again uses the target.
 */

import type { JobStats } from "./record.ts";

export interface LifecycleEvent {
  readonly event: "lifecycle";
  readonly domain: string;
  /** One of LIFECYCLE. */
  readonly type: number;
}

export interface BlockJobEvent {
  /** block-job: `disk` is the path of the top image; block-job-2: it is the target. */
  readonly event: "block-job" | "block-job-2";
  readonly domain: string;
  readonly disk: string;
  /** One of BLOCK_JOB_TYPE. */
  readonly type: number;
  /** One of BLOCK_JOB_STATUS. */
  readonly status: number;
  /** Of one run of a job: what follows from its being READY once and ended once. */
  readonly serial: number;
  /** Why it failed. */
  readonly error?: string;
  /** It has ended well, and something is left behind. */
  readonly warning?: string;
}

export interface JobCompletedEvent {
  readonly event: "job-completed";
  readonly domain: string;
  /** Of the backup: one that is told again is the same. */
  readonly serial: number;
  readonly stats: JobStats;
}

export type DomainEvent = LifecycleEvent | BlockJobEvent | JobCompletedEvent;

export type DomainListener = (event: DomainEvent) => void;

export class Listeners {
  readonly #listeners = new Set<DomainListener>();

  /** @returns ends it */
  add(listener: DomainListener): () => void {
    // One object for each call: the same function may be added twice.
    const added = (event: DomainEvent) => listener(event);
    this.#listeners.add(added);
    return () => this.#listeners.delete(added);
  }

  tell(event: DomainEvent): void {
    for (const listener of [...this.#listeners]) listener(event);
  }
}
