/**
 * A domain as the driver has it: its record, its locks, and news of the engine that have not been dealt
 * with.
 */

import type { Ctx } from "./locks/ctx.ts";
import type { DomainObject } from "./locks/domain-object.ts";
import { EventQueue } from "./locks/event-queue.ts";
import type { AsyncJob } from "./locks/with-job.ts";
import type { News } from "./news.ts";
import type { Qmp } from "./operation.ts";
import type { DomainRecord } from "./record.ts";

export class DomainEntry {
  readonly record: DomainRecord;
  readonly object: DomainObject<Qmp>;
  /** Of the engine; each is dealt with in a turn of its own. */
  readonly news: EventQueue<News>;
  /** Jobs that make images for a driver that was lost: see creations.ts. */
  readonly lostCreations = new Set<string>();
  /** The backup that goes on; ended by whoever sees its end. */
  asyncJob: AsyncJob | null = null;

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
}
