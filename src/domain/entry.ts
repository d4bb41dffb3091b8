/**
 * A domain as the driver has it: its record, its locks, those who wait for its jobs to end, and news of
 * the engine that have not been dealt with.
 */

import { BlockError } from "../base/errors.ts";
import { DomainError } from "./errors.ts";
import type { Ctx } from "./locks/ctx.ts";
import type { DomainObject } from "./locks/domain-object.ts";
import { EventQueue } from "./locks/event-queue.ts";
import type { AsyncJob } from "./locks/with-job.ts";
import type { News } from "./news.ts";
import type { Qmp } from "./operation.ts";
import type { DomainRecord, JobRecord } from "./record.ts";

interface Waiting {
  readonly resolve: (job: JobRecord) => void;
  readonly reject: (why: DomainError | BlockError) => void;
}

export class DomainEntry {
  readonly record: DomainRecord;
  readonly object: DomainObject<Qmp>;
  /** Of the engine; each is dealt with in a turn of its own. */
  readonly news: EventQueue<News>;
  /** The backup that goes on; ended by whoever sees its end. */
  asyncJob: AsyncJob | null = null;
  readonly #waiting = new Map<number, Set<Waiting>>();

  /** @param dealWith the news, within the domain's job */
  constructor(
    record: DomainRecord,
    object: DomainObject<Qmp>,
    dealWith: (entry: DomainEntry, ctx: Ctx, news: News) => Promise<void>,
  ) {
    this.record = record;
    this.object = object;
    this.news = new EventQueue(object, "the news of its jobs", (ctx, news) =>
      dealWith(this, ctx, news),
    );
  }

  get name(): string {
    return this.record.definition.name;
  }

  /**
   * The job as it was at its end. Begin to wait while it is there.
   *
   * @throws DomainError OPERATION_INVALID if the domain stops; BlockError ECANCELED by the signal
   */
  ended(serial: number, signal?: AbortSignal): Promise<JobRecord> {
    return new Promise((resolve, reject) => {
      const all = this.#waiting.get(serial) ?? new Set();
      this.#waiting.set(serial, all);
      const settled = () => {
        all.delete(waiting);
        signal?.removeEventListener("abort", stop);
      };
      const waiting: Waiting = {
        resolve: (job) => {
          settled();
          resolve(job);
        },
        reject: (why) => {
          settled();
          reject(why);
        },
      };
      const stop = () => waiting.reject(new BlockError("ECANCELED", "The wait was canceled"));
      all.add(waiting);
      if (signal?.aborted) stop();
      else signal?.addEventListener("abort", stop, { once: true });
    });
  }

  /** A job has ended: tells those who wait. */
  tellEnded(job: JobRecord): void {
    for (const { resolve } of [...(this.#waiting.get(job.serial) ?? [])]) resolve(job);
    this.#waiting.delete(job.serial);
  }

  /** The domain stops: nobody waits for anything of it any more. */
  tellStopped(): void {
    const why = new DomainError("OPERATION_INVALID", `Domain '${this.name}' is not running`);
    for (const all of this.#waiting.values()) for (const { reject } of [...all]) reject(why);
    this.#waiting.clear();
  }
}
