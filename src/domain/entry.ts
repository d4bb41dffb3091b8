/**
 * A domain as the driver has it: its record, its locks, those who wait for its jobs to end, and news of
 * the engine that have not been dealt with.
 */

import { unlessAborted } from "../base/cancelable.ts";
import { DomainError } from "./errors.ts";
import type { Ctx } from "./locks/ctx.ts";
import type { DomainObject } from "./locks/domain-object.ts";
import { EventQueue } from "./locks/event-queue.ts";
import type { AsyncJob } from "./locks/with-job.ts";
import type { News } from "./news.ts";
import type { Qmp } from "./operation.ts";
import type { DomainRecord, JobRecord } from "./record.ts";

/** Of one job. */
interface Ending {
  readonly ended: Promise<JobRecord>;
  resolve(job: JobRecord): void;
  reject(why: DomainError): void;
}

export class DomainEntry {
  readonly record: DomainRecord;
  readonly object: DomainObject<Qmp>;
  /** Of the engine; each is dealt with in a turn of its own. */
  readonly news: EventQueue<News>;
  /** The backup that goes on; ended by whoever sees its end. */
  asyncJob: AsyncJob | null = null;
  /** Those that somebody waits for, by serial. */
  readonly #endings = new Map<number, Ending>();

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
    const ending = this.#endings.get(serial) ?? newEnding();
    this.#endings.set(serial, ending);
    return unlessAborted(ending.ended, signal);
  }

  /** A job has ended: tells those who wait. */
  tellEnded(job: JobRecord): void {
    this.#endings.get(job.serial)?.resolve(job);
    this.#endings.delete(job.serial);
  }

  /** The domain stops: nobody waits for anything of it any more. */
  tellStopped(): void {
    const why = new DomainError("OPERATION_INVALID", `Domain '${this.name}' is not running`);
    for (const { reject } of this.#endings.values()) reject(why);
    this.#endings.clear();
  }
}

function newEnding(): Ending {
  let resolve!: Ending["resolve"];
  let reject!: Ending["reject"];
  const ended = new Promise<JobRecord>((...settle) => {
    [resolve, reject] = settle;
  });
  // All who have waited for it may have been called off.
  ended.catch(() => {});
  return { ended, resolve, reject };
}
