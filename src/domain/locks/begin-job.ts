/**
 * Begin and end of a job, as libvirt's seed of them has it, without its defects (docs/domain-locks.md).
 * Inside: whoever needs a job uses with-job.ts, which cannot forget the end.
 *
 *     function              before               after, also when it fails
 *     beginJob              domain               domain; if it did not fail: job, one reference more
 *     beginJobWithDriver    driver and domain    the same, both
 *     endJob                domain, job          domain; one reference less
 */

import { assert } from "../../base/errors.ts";
import type { Ctx } from "./ctx.ts";
import type { JobRequest } from "./domain-job.ts";
import type { DomainObject } from "./domain-object.ts";
import type { JobWish } from "./job-classes.ts";
import { JobError } from "./job-error.ts";

export interface BeginOptions {
  /** Fails at once where it would have to wait for the job. */
  readonly nowait?: boolean;
  /** It may begin although the domain does not run. */
  readonly offline?: boolean;
  /** Before those who wait already: for what has happened and must be taken notice of. */
  readonly urgent?: boolean;
  /** By the clock's now(); as from now on if it is not given. */
  readonly deadlineMs?: number;
}

/**
 * Waits for the job of a domain. Whatever was known of the domain before is stale afterwards, even
 * when nobody was in the way.
 *
 * @throws JobError with one of the five reasons; then the caller has the lock, and nothing else
 */
export async function beginJob(
  ctx: Ctx,
  object: DomainObject,
  wish: JobWish,
  options: BeginOptions = {},
): Promise<JobRequest> {
  const { job, lock, driver, reference } = object;
  assert(lock.isHeldBy(ctx), `${ctx.api} begins a job with the domain's lock in hand`);
  ctx.held.mayBegin(job, "class" in wish && wish.class === "async-nested");
  driver.onStep?.("ref", ctx, object.name);
  reference.retain();
  const request = job.want(ctx, wish, options);
  try {
    await itsTurn(ctx, object, request, options);
  } catch (error) {
    job.give(request);
    driver.onStep?.("unref", ctx, object.name);
    reference.release();
    throw error;
  }
  job.take(request);
  ctx.held.tookSlot(job, request.slot);
  driver.onStep?.("begin", ctx, object.name);
  return request;
}

async function itsTurn(
  ctx: Ctx,
  object: DomainObject,
  request: JobRequest,
  options: BeginOptions,
): Promise<void> {
  const { job, driver } = object;
  const what = `domain '${object.name}'`;
  const deadlineMs = options.deadlineMs ?? driver.clock.now() + driver.jobWaitMs;
  const limit = { deadlineMs, signal: ctx.signal };
  if (job.isOneTooMany(request, driver.maxQueued))
    throw new JobError("queue-limit", what, ctx.api, job.describe()[0]!);
  for (let how = "woken"; ; ) {
    // Looked at again after each wait: all of it may have changed.
    object.mustBeThere(ctx, !options.offline);
    mustBeInside(ctx, object, request);
    const blocker = job.blockerOf(request);
    if (how === "aborted" || ctx.signal?.aborted)
      throw new JobError("aborted", what, ctx.api, blocker);
    // Also of one that is late: with nobody in the way there is nothing to wait for.
    if (blocker === null) return;
    if (options.nowait) throw new JobError("nowait", what, ctx.api, blocker);
    if (how === "timeout") throw new JobError("timeout", what, ctx.api, blocker);
    driver.onStep?.("wait", ctx, object.name);
    how = await job.condition.wait(ctx, limit);
  }
}

/** A step belongs to the async job that is there, and no other. */
function mustBeInside(ctx: Ctx, { job, name }: DomainObject, { wish }: JobRequest): void {
  if (!("kind" in wish) || wish.class !== "async-nested" || wish.kind === job.asyncKind) return;
  throw new JobError("gone", `domain '${name}'`, ctx.api, null, "async-ended");
}

/** For a call that has the driver's lock and needs it afterwards: nobody waits for a job with it (R5). */
export async function beginJobWithDriver(
  ctx: Ctx,
  object: DomainObject,
  wish: JobWish,
  options: BeginOptions = {},
): Promise<JobRequest> {
  object.driver.lock.unlock(ctx);
  let request: JobRequest;
  try {
    request = await beginJob(ctx, object, wish, options);
  } finally {
    await relock(ctx, object);
  }
  try {
    // It had the job, but not the domain, while it waited for the driver.
    object.mustBeThere(ctx, !request.offline);
  } catch (error) {
    endJob(ctx, object, request);
    throw error;
  }
  return request;
}

/** In this order: the driver's lock is not waited for with the domain's in hand (R1). */
async function relock(ctx: Ctx, { driver, lock }: DomainObject): Promise<void> {
  lock.unlock(ctx);
  await driver.lock.lock(ctx);
  await lock.lock(ctx);
}

export function endJob(ctx: Ctx, object: DomainObject, request: JobRequest): void {
  const { job, lock, driver, reference } = object;
  assert(lock.isHeldBy(ctx), `${ctx.api} ends a job with the domain's lock in hand`);
  if (request.ctx !== null) {
    assert(request.ctx === ctx, `the job of ${request.api} is ended by it, not by ${ctx.api}`);
    ctx.held.gaveSlot(job, request.slot);
  }
  job.end(request);
  driver.onStep?.("end", ctx, object.name);
  driver.onStep?.("unref", ctx, object.name);
  reference.release();
}

/** An async job goes on without the call that has begun it: whoever sees its end ends it. */
export function disownJob(ctx: Ctx, object: DomainObject, request: JobRequest): void {
  assert(request.slot === "async", "only an async job outlives its call");
  assert(request.ctx === ctx, `the job of ${request.api} is let go by it, not by ${ctx.api}`);
  ctx.held.gaveSlot(object.job, request.slot);
  request.ctx = null;
}
