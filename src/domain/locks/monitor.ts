/**
 * In and out of a domain's monitor. Inside: whoever talks to a monitor uses with-job.ts.
 *
 *     function        before           after
 *     enterMonitor    domain, job      job, monitor
 *     exitMonitor     job, monitor     domain, job
 *
 * A call that has the driver's lock gives it back for as long as it is inside, and has it again before
 * the domain's. Nobody waits to get in, as only who has the job comes here; so nobody waits with the
 * domain's lock in hand. On the way out the monitor's lock goes first: what comes from a monitor may
 * want the domain.
 */

import { assert } from "../../base/errors.ts";
import type { Ctx } from "./ctx.ts";
import type { AttachedMonitor, DomainObject } from "./domain-object.ts";
import { JobError } from "./job-error.ts";

/** What exitMonitor() needs to know. */
export interface Entered<Monitor> {
  readonly monitor: AttachedMonitor<Monitor>;
  readonly hadDriver: boolean;
}

/** @throws JobError gone, if there is no monitor; then all is as before */
export function enterMonitor<Monitor>(ctx: Ctx, object: DomainObject<Monitor>): Entered<Monitor> {
  const { driver, lock, job, monitor } = object;
  assert(lock.isHeldBy(ctx), `${ctx.api} enters the monitor with the domain's lock in hand`);
  assert(ctx.held.holdsSlot(job, "normal"), `${ctx.api} enters the monitor with a job`);
  if (monitor === null)
    throw new JobError("gone", `domain '${object.name}'`, ctx.api, null, "not-running");
  monitor.reference.retain();
  assert(monitor.lock.tryLock(ctx), "whoever has the job finds the monitor free");
  driver.onStep?.("enter", ctx, object.name);
  lock.unlock(ctx);
  const hadDriver = driver.lock.isHeldBy(ctx);
  if (hadDriver) driver.lock.unlock(ctx);
  return { monitor, hadDriver };
}

export async function exitMonitor<Monitor>(
  ctx: Ctx,
  object: DomainObject<Monitor>,
  { monitor, hadDriver }: Entered<Monitor>,
): Promise<void> {
  object.driver.onStep?.("exit", ctx, object.name);
  monitor.lock.unlock(ctx);
  monitor.reference.release();
  if (hadDriver) await object.driver.lock.lock(ctx);
  await object.lock.lock(ctx);
}
