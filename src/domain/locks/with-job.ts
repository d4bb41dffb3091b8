/**
 * The door to the locks: what is taken here is given back here, however the work ends.
 *
 *     await driver.call("blockPull", async (ctx) => {
 *       await withJob(ctx, object, { class: "modify" }, async () => {
 *         …look up the disk, check…                       the domain is locked: nobody changes it
 *         await withMonitor(ctx, object, (qmp) => qmp.execute("block-stream", …));
 *         …look up the disk again…                        nothing known before is known now
 *       });
 *     }, signal);
 *
 * While the domain is locked only withMonitor(), withUnlocked() and what is done in no time may be
 * awaited: others wait for the lock without a limit on their way back.
 */

import { assert } from "../../base/errors.ts";
import { type BeginOptions, beginJob, beginJobWithDriver, disownJob, endJob } from "./begin-job.ts";
import type { Ctx } from "./ctx.ts";
import type { JobRequest } from "./domain-job.ts";
import type { DomainObject, DriverObject } from "./domain-object.ts";
import type { AsyncKind, JobWish } from "./job-classes.ts";
import { JobError } from "./job-error.ts";
import type { Lock } from "./lock.ts";
import { enterMonitor, exitMonitor } from "./monitor.ts";
import type { Limit } from "./wait-list.ts";

export type WithJobOptions = JobWish &
  BeginOptions & {
    /** The work needs the list of domains as well: its lock is had with the domain's. */
    readonly driver?: boolean;
  };

type AcquireLimit = Limit & { readonly deadlineMs: number };

/** An async job, and whether it goes on after the work that has begun it. */
export class AsyncJob {
  readonly kind: AsyncKind;
  /** For endAsyncJob(). */
  readonly request: JobRequest;
  #kept = false;

  constructor(request: JobRequest, kind: AsyncKind) {
    this.request = request;
    this.kind = kind;
  }

  get isKept(): boolean {
    return this.#kept;
  }

  /** It outlives the call that has begun it, if the work does not fail; endAsyncJob() ends it. */
  keep(): void {
    this.#kept = true;
  }
}

/**
 * Work with the list of domains. It may wait for stores, for nothing else.
 *
 * @throws JobError timeout or aborted, which names who has the list
 */
export function withDriver<T>(
  ctx: Ctx,
  driver: DriverObject,
  work: () => T | Promise<T>,
): Promise<T> {
  return holding(ctx, driver.lock, limitOf(ctx, driver), async () => work());
}

/**
 * A look at a domain, or a change that needs no job. The work must not wait.
 *
 * @throws JobError timeout, aborted or gone
 */
export function withDomain<T>(ctx: Ctx, object: DomainObject, work: () => T): Promise<T> {
  return locked(ctx, object, limitOf(ctx, object.driver), async () => {
    object.mustBeThere(ctx, false);
    const result = work();
    assert(!(result instanceof Promise), "work under the domain's lock alone does not wait");
    return result;
  });
}

/**
 * Work with the job of a domain, and the domain locked. It begins when nobody else has the job, and
 * fails if the domain does not run by then, unless it is `offline`.
 *
 * @throws JobError; what the work throws
 */
export function withJob<T>(
  ctx: Ctx,
  object: DomainObject,
  options: WithJobOptions,
  work: () => Promise<T>,
): Promise<T> {
  const limit = limitOf(ctx, object.driver, options);
  if (!options.driver) return jobLocked(ctx, object, options, limit, beginJob, work);
  return holding(ctx, object.driver.lock, limit, () =>
    jobLocked(ctx, object, options, limit, beginJobWithDriver, work),
  );
}

function jobLocked<T>(
  ctx: Ctx,
  object: DomainObject,
  options: WithJobOptions,
  limit: AcquireLimit,
  begin: typeof beginJob,
  work: () => Promise<T>,
): Promise<T> {
  return locked(ctx, object, limit, async () => {
    const request = await begin(ctx, object, options, { ...options, ...limit });
    let result: T;
    try {
      result = await work();
    } catch (error) {
      if (object.lock.isHeldBy(ctx)) endJob(ctx, object, request);
      throw error;
    }
    endJob(ctx, object, request);
    return result;
  });
}

/**
 * A long operation. The domain is not locked: each step is a withJob() of class "async-nested" with the
 * same kind, and other calls come between, as the mask of the kind allows.
 *
 * @throws JobError; what the work throws
 */
export async function withAsyncJob<T>(
  ctx: Ctx,
  object: DomainObject,
  options: { readonly kind: AsyncKind } & BeginOptions,
  work: (job: AsyncJob) => Promise<T>,
): Promise<T> {
  const limit = limitOf(ctx, object.driver, options);
  const wish = { class: "async", kind: options.kind } as const;
  const request = await locked(ctx, object, limit, () =>
    beginJob(ctx, object, wish, { ...options, ...limit }),
  );
  const job = new AsyncJob(request, options.kind);
  let isOver = true;
  try {
    const result = await work(job);
    isOver = !job.isKept;
    return result;
  } finally {
    await locked(ctx, object, {}, async () => {
      if (isOver) endJob(ctx, object, request);
      else disownJob(ctx, object, request);
    });
  }
}

/** The end of a job that was kept: by whoever sees that it is over, with a job of its own or without. */
export async function endAsyncJob(ctx: Ctx, object: DomainObject, job: AsyncJob): Promise<void> {
  if (object.lock.isHeldBy(ctx)) return endJob(ctx, object, job.request);
  await locked(ctx, object, {}, async () => endJob(ctx, object, job.request));
}

/**
 * A command to the monitor, within a job. The domain is not locked meanwhile: look at it again.
 *
 * @throws JobError gone, before the command or after it; what the work throws
 */
export async function withMonitor<Monitor, T>(
  ctx: Ctx,
  object: DomainObject<Monitor>,
  work: (monitor: Monitor) => Promise<T>,
): Promise<T> {
  const request = requestOf(ctx, object);
  object.mustBeThere(ctx, !request.offline);
  const entered = enterMonitor(ctx, object);
  let result: T;
  try {
    result = await work(entered.monitor.handle);
  } finally {
    await exitMonitor(ctx, object, entered);
  }
  object.mustBeThere(ctx, !request.offline);
  return result;
}

/**
 * Anything else that takes time, within a job: a record that is written. As withMonitor(), the domain
 * is not locked meanwhile.
 *
 * @throws JobError gone, after it; what the work throws
 */
export async function withUnlocked<T>(
  ctx: Ctx,
  object: DomainObject,
  work: () => Promise<T>,
): Promise<T> {
  const request = requestOf(ctx, object);
  object.lock.unlock(ctx);
  let result: T;
  try {
    result = await work();
  } finally {
    await object.lock.lock(ctx);
  }
  object.mustBeThere(ctx, !request.offline);
  return result;
}

/**
 * Waits until something is so, a block job's end above all. Without a job: calls that ask, or change
 * the speed, or end the domain, come and go meanwhile.
 *
 * @param look runs with the domain locked, now and after each DomainObject.changed(); must not wait
 * @returns the first that `look` finds that is not undefined
 * @throws JobError aborted, or gone, if the domain stops first
 */
export function waitFor<T>(ctx: Ctx, object: DomainObject, look: () => T | undefined): Promise<T> {
  assert(!ctx.held.holdsJob, `${ctx.api} waits for a change without a job`);
  return locked(ctx, object, limitOf(ctx, object.driver), async () => {
    for (;;) {
      const found = look();
      if (found !== undefined) return found;
      object.mustBeThere(ctx, true);
      const how = await object.changes.wait(ctx, { signal: ctx.signal });
      if (how === "aborted") throw new JobError(how, `domain '${object.name}'`, ctx.api, null);
    }
  });
}

/** Work with the domain locked, and there: it is not disposed of before it is unlocked. */
async function locked<T>(
  ctx: Ctx,
  object: DomainObject,
  limit: Limit,
  work: () => Promise<T>,
): Promise<T> {
  if (object.reference.count === 0) object.mustBeThere(ctx, false);
  object.reference.retain();
  try {
    return await holding(ctx, object.lock, limit, work);
  } finally {
    object.reference.release();
  }
}

async function holding<T>(ctx: Ctx, lock: Lock, limit: Limit, work: () => Promise<T>): Promise<T> {
  await lock.lock(ctx, limit);
  let result: T;
  try {
    result = await work();
  } catch (error) {
    // It may have been lost through a bug; then that is the error.
    if (error instanceof JobError || lock.isHeldBy(ctx)) lock.unlock(ctx);
    throw error;
  }
  lock.unlock(ctx);
  return result;
}

/** The job within which the call is. */
function requestOf(ctx: Ctx, { job }: DomainObject): JobRequest {
  const slot = ctx.held.holdsSlot(job, "agent") ? "agent" : "normal";
  assert(ctx.held.holdsSlot(job, slot), `${ctx.api} has a job here`);
  return job.holder(slot)!;
}

/** One deadline for all that a call waits for until its turn. */
function limitOf(ctx: Ctx, driver: DriverObject, options: BeginOptions = {}): AcquireLimit {
  const deadlineMs = options.deadlineMs ?? driver.clock.now() + driver.jobWaitMs;
  return { deadlineMs, signal: ctx.signal };
}
