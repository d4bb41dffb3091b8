/**
 * What the calls have in common: which turn of the domain's one takes, and what it may not do without.
 *
 *     no turn                 what is only looked up: also while another call has its turn
 *     modify                  what starts jobs, pivots, changes chains
 *     modify-migration-safe   blockJobSetSpeed: goes with everything
 *     async backup            backupBegin, until the backup's end
 *     abort                   abortJob
 *     destroy                 destroy: before all others
 */

import type { ArgumentsOf, CallName, ResultOf } from "../calls.ts";
import type { DomainDriver } from "../driver.ts";
import type { DomainEntry } from "../entry.ts";
import { DomainError } from "../errors.ts";
import { checkFlags } from "../flags.ts";
import { type WithJobOptions, withJob } from "../locks/with-job.ts";
import { Operation } from "../operation.ts";

export type Handler<Name extends CallName> = (
  driver: DomainDriver,
  args: ArgumentsOf<Name>,
  signal: AbortSignal | undefined,
) => Promise<ResultOf<Name>>;

/** Some of them. */
export type Handlers<Names extends CallName> = { readonly [Name in Names]: Handler<Name> };

export interface Turn {
  readonly driver: DomainDriver;
  readonly api: CallName;
  readonly entry: DomainEntry;
  readonly signal: AbortSignal | undefined;
}

/** Work in a turn of the domain's. @throws DomainError if the driver is finished when it comes */
export function inTurn<T>(
  { driver, api, entry, signal }: Turn,
  options: WithJobOptions,
  work: (op: Operation) => Promise<T>,
): Promise<T> {
  const { host, locks } = driver;
  return locks.call(
    api,
    (ctx) =>
      withJob(ctx, entry.object, options, async () => {
        driver.mustWork();
        return work(new Operation(host, entry, ctx));
      }),
    signal,
  );
}

/** A call that changes a domain that runs. @param prepare checks; what it returns has the turn */
export function modify<Name extends CallName>(
  api: Name,
  allowed: Readonly<Record<string, number>>,
  prepare: (...args: ArgumentsOf<Name>) => (op: Operation) => Promise<ResultOf<Name>>,
): Handler<Name> {
  return async (driver, args, signal) => {
    checkFlags(api, args.at(-1) as number, allowed);
    const work = prepare(...args);
    const entry = driver.entry(args[0] as string);
    return inTurn({ driver, api, entry, signal }, { class: "modify" }, work);
  };
}

/** A call that only looks. */
export function look<Name extends CallName>(
  api: Name,
  allowed: Readonly<Record<string, number>> | null,
  work: (
    driver: DomainDriver,
    entry: DomainEntry,
    ...args: ArgumentsOf<Name>
  ) => ResultOf<Name> | Promise<ResultOf<Name>>,
): Handler<Name> {
  return async (driver, args) => {
    if (allowed) checkFlags(api, args.at(-1) as number, allowed);
    return work(driver, driver.entry(args[0] as string), ...args);
  };
}

/** @param code libvirt's own for some calls */
export function mustRun(
  { record, name }: DomainEntry,
  code: "OPERATION_INVALID" | "OPERATION_UNSUPPORTED" = "OPERATION_INVALID",
): void {
  if (record.state === "running") return;
  throw new DomainError(code, `Domain '${name}' is not running`);
}
