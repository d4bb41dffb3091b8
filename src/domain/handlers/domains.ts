/** Calls on domains themselves: what they are, and when they run. */

import { unlessAborted } from "../../base/cancelable.ts";
import type { ArgumentsOf, DomainInfo } from "../calls.ts";
import { checkDefinition, type DomainDefinition } from "../definition.ts";
import { domainInfo } from "../domain-info.ts";
import type { DomainDriver } from "../driver.ts";
import type { DomainEntry } from "../entry.ts";
import { LIFECYCLE } from "../enums.ts";
import { DomainError } from "../errors.ts";
import * as flag from "../flags.ts";
import { checkFlags } from "../flags.ts";
import * as lifecycle from "../lifecycle.ts";
import { withDomain, withDriver } from "../locks/with-job.ts";
import { type Handlers, inTurn, look, mustRun } from "./turn.ts";

type Names =
  | "listAllDomains"
  | "lookupByName"
  | "define"
  | "undefine"
  | "getDesc"
  | "create"
  | "shutdown"
  | "destroy";

export const DOMAIN_HANDLERS: Handlers<Names> = {
  listAllDomains: async (driver) => driver.infos(),
  lookupByName: look("lookupByName", null, (_, { record }) => domainInfo(record)),
  define,
  undefine,
  getDesc: look("getDesc", flag.DOMAIN_DESC, (_, { record }, _name, flags): DomainDefinition => {
    if (flags & flag.DOMAIN_DESC.INACTIVE || record.state !== "running") return record.definition;
    // The definition follows what changes while it runs; only one that was given anew differs.
    return liveDefinition(record);
  }),

  create: async (driver, [name, flags], signal) => {
    checkFlags("create", flags);
    const turn = { driver, api: "create", entry: driver.entry(name), signal } as const;
    await inTurn(turn, { class: "modify", offline: true }, lifecycle.create);
  },
  shutdown: async (driver, [name, flags], signal) => {
    checkFlags("shutdown", flags);
    const entry = driver.entry(name);
    const turn = { driver, api: "shutdown", entry, signal } as const;
    await inTurn(turn, { class: "modify", offline: true }, (op) => {
      mustRun(entry);
      return lifecycle.shutdown(op);
    });
  },
  destroy,
};

async function define(
  driver: DomainDriver,
  [value, flags]: ArgumentsOf<"define">,
  signal: AbortSignal | undefined,
): Promise<DomainInfo> {
  checkFlags("define", flags);
  const definition = checkDefinition(value);
  const { host, locks } = driver;
  return locks.call(
    "define",
    (ctx) =>
      withDriver(ctx, locks, async () => {
        const entry =
          driver.find(definition.name) ??
          driver.add({
            definition,
            id: null,
            state: "shutoff",
            disks: [],
            jobs: [],
            backup: null,
            completed: null,
            checkpoints: [],
            leftovers: [],
            making: [],
          });
        await withDomain(ctx, entry.object, () => {
          entry.record.definition = definition;
        });
        await host.save();
        host.emit({ event: "lifecycle", domain: definition.name, type: LIFECYCLE.DEFINED });
        return domainInfo(entry.record);
      }),
    signal,
  );
}

async function undefine(
  driver: DomainDriver,
  [name, flags]: ArgumentsOf<"undefine">,
  signal: AbortSignal | undefined,
): Promise<void> {
  checkFlags("undefine", flags, flag.DOMAIN_UNDEFINE);
  const { host, locks } = driver;
  const entry = driver.entry(name);
  const turn = { driver, api: "undefine", entry, signal } as const;
  await inTurn(turn, { class: "modify", offline: true, driver: true }, async (op) => {
    const { record } = op;
    if (record.state !== "shutoff") {
      throw new DomainError("OPERATION_INVALID", `Domain '${name}' is running`);
    }
    if (record.checkpoints.length > 0 && !(flags & flag.DOMAIN_UNDEFINE.CHECKPOINTS_METADATA)) {
      throw new DomainError("OPERATION_INVALID", `Domain '${name}' has checkpoints`);
    }
    driver.remove(entry);
  });
  // It is gone already: no calling off any more.
  await locks.call("undefine", (ctx) => withDriver(ctx, locks, () => host.save()));
  host.emit({ event: "lifecycle", domain: name, type: LIFECYCLE.UNDEFINED });
}

async function destroy(
  driver: DomainDriver,
  [name, flags]: ArgumentsOf<"destroy">,
  signal: AbortSignal | undefined,
): Promise<void> {
  checkFlags("destroy", flags);
  const entry = driver.entry(name);
  mustBeOpen(entry);
  // Whoever waits for its turn, or for a job's end, learns of it now.
  entry.object.setRunning(false);
  // Once begun it goes on, whether somebody waits for it or not.
  await unlessAborted(stop(driver, entry, signal), signal);
}

async function stop(
  driver: DomainDriver,
  entry: DomainEntry,
  signal: AbortSignal | undefined,
): Promise<void> {
  try {
    const turn = { driver, api: "destroy", entry, signal } as const;
    await inTurn(turn, { class: "destroy", offline: true }, (op) => {
      mustBeOpen(entry);
      return lifecycle.destroy(op);
    });
  } finally {
    entry.object.setRunning(entry.record.state === "running");
  }
  await driver.endBackup(entry);
}

/** One that is starting, or has stopped half way, can be stopped, too. */
function mustBeOpen(entry: DomainEntry): void {
  if (entry.record.state === "shutoff") mustRun(entry);
}

function liveDefinition({ definition, disks }: DomainEntry["record"]): DomainDefinition {
  return { name: definition.name, disks: disks.map(lifecycle.diskDefinition) };
}
