/** A driver with domains, on a clock that the test moves, and all steps written down. */

import { VirtualClock } from "../../../src/base/virtual-clock.ts";
import type { Ctx } from "../../../src/domain/locks/ctx.ts";
import {
  DomainObject,
  DriverObject,
  type DriverOptions,
} from "../../../src/domain/locks/domain-object.ts";
import { JobError } from "../../../src/domain/locks/job-error.ts";
import { type WithJobOptions, withJob, withUnlocked } from "../../../src/domain/locks/with-job.ts";

export interface Setup<C extends VirtualClock = VirtualClock> {
  readonly clock: C;
  readonly driver: DriverObject;
  /** "api: step", in order. */
  readonly steps: string[];
  /** A domain that runs, with a monitor that is its own name. */
  domain(name: string, dispose?: () => void): DomainObject<string>;
}

export function setup<C extends VirtualClock = VirtualClock>(
  options: DriverOptions & { readonly clock?: C } = {},
): Setup<C> {
  const clock = options.clock ?? (new VirtualClock() as C);
  const steps: string[] = [];
  const onStep = (step: string, ctx: Ctx) => void steps.push(`${ctx.api}: ${step}`);
  const driver = new DriverObject(clock, { onStep, ...options });
  return {
    clock,
    driver,
    steps,
    domain(name, dispose) {
      const object = new DomainObject<string>(driver, name, dispose);
      object.attachMonitor(name);
      object.setRunning(true);
      return object;
    },
  };
}

/** What somebody else decides when it is over: a command that comes back, a disk that is written. */
export function gate(): { readonly opened: Promise<void>; open(): void } {
  let open = () => {};
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { opened, open: () => open() };
}

/** A call that has the job of a domain until it is let go. */
export async function hold(
  { clock, driver }: Setup<VirtualClock>,
  object: DomainObject,
  options: WithJobOptions,
  api = "holder",
): Promise<() => Promise<void>> {
  const { opened, open } = gate();
  const call = driver.call(api, (ctx) =>
    withJob(ctx, object, options, () => withUnlocked(ctx, object, () => opened)),
  );
  await clock.advance(0);
  return () => {
    open();
    return call;
  };
}

/** The JobError that the call ends with. Anything else is thrown. */
export async function failure(call: Promise<unknown>): Promise<JobError> {
  try {
    await call;
  } catch (error) {
    if (error instanceof JobError) return error;
    throw error;
  }
  throw new Error("It did not fail");
}
