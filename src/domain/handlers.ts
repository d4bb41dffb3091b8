/**
 * Each call of calls.ts: its checks that need no domain, which turn it takes, and what it does then.
 *
 *     no turn                 what is only looked up: also while another call has its turn
 *     modify                  what starts jobs, pivots, changes chains
 *     modify-migration-safe   blockJobSetSpeed: goes with everything
 *     async backup            backupBegin, until the backup's end
 *     abort                   abortJob
 *     destroy                 destroy: before all others
 */

import * as abort from "./abort.ts";
import * as backup from "./backup.ts";
import { type BackupDefinition, backupSchema, checkBackup } from "./backup-definition.ts";
import { getJobStats } from "./backup-end.ts";
import { toBytesPerSecond } from "./bandwidth.ts";
import { getBlockJobInfo, listBlockJobs, setSpeed } from "./block-info.ts";
import type { ArgumentsOf, CallName, DomainInfo, ResultOf } from "./calls.ts";
import * as checkpoint from "./checkpoint.ts";
import { commit } from "./commit.ts";
import { copy } from "./copy.ts";
import {
  checkDefinition,
  checked,
  checkImage,
  type DomainDefinition,
  type ImageDefinition,
} from "./definition.ts";
import { domainInfo } from "./domain-info.ts";
import type { DomainDriver } from "./driver.ts";
import type { DomainEntry } from "./entry.ts";
import { LIFECYCLE } from "./enums.ts";
import { DomainError } from "./errors.ts";
import * as flag from "./flags.ts";
import { checkFlags } from "./flags.ts";
import * as lifecycle from "./lifecycle.ts";
import { type WithJobOptions, withAsyncJob, withDriver, withJob } from "./locks/with-job.ts";
import { findDisk, Operation } from "./operation.ts";
import { pull } from "./pull.ts";
import { snapshot, snapshotSchema } from "./snapshot.ts";
import { fromPath } from "./source.ts";

type Handler<Name extends CallName> = (
  driver: DomainDriver,
  args: ArgumentsOf<Name>,
  signal: AbortSignal | undefined,
) => Promise<ResultOf<Name>>;

interface Turn {
  readonly driver: DomainDriver;
  readonly api: CallName;
  readonly entry: DomainEntry;
  readonly signal: AbortSignal | undefined;
}

/** Work in a turn of the domain's. */
function inTurn<T>(
  { driver, api, entry, signal }: Turn,
  options: WithJobOptions,
  work: (op: Operation) => Promise<T>,
): Promise<T> {
  const { host, locks } = driver;
  return locks.call(
    api,
    (ctx) => withJob(ctx, entry.object, options, () => work(new Operation(host, entry, ctx))),
    signal,
  );
}

/** A call that changes a domain that runs. */
function modify<Name extends CallName>(
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
function look<Name extends CallName>(
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

function mustRun({ record, name }: DomainEntry): void {
  if (record.state === "running") return;
  throw new DomainError("OPERATION_INVALID", `Domain '${name}' is not running`);
}

export const HANDLERS: { readonly [Name in CallName]: Handler<Name> } = {
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

  blockPull: modify("blockPull", flag.BLOCK_PULL, (_, disk, bandwidth, flags) => {
    const speed = toBytesPerSecond(bandwidth, (flags & flag.BLOCK_PULL.BANDWIDTH_BYTES) !== 0);
    return (op) => pull(op, { disk, base: null, speed, relative: false, flags });
  }),
  blockRebase: modify("blockRebase", flag.BLOCK_REBASE, rebase),
  blockCopy: modify("blockCopy", flag.BLOCK_COPY, (_, disk, destination, params, flags) => {
    const { granularity = 0, bandwidth = 0 } = params;
    const image = checkImage(destination);
    const speed = toBytesPerSecond(bandwidth, true);
    if (granularity !== 0 && 2 ** Math.round(Math.log2(granularity)) !== granularity) {
      throw new DomainError("INVALID_ARG", `granularity ${granularity} is not a power of two`);
    }
    const bufSize = params["buf-size"] ?? 0;
    return (op) => copy(op, { disk, destination: image, speed, granularity, bufSize, flags });
  }),
  blockCommit: modify("blockCommit", flag.BLOCK_COMMIT, (_, disk, base, top, bandwidth, flags) => {
    const speed = toBytesPerSecond(bandwidth, (flags & flag.BLOCK_COMMIT.BANDWIDTH_BYTES) !== 0);
    return (op) => commit(op, { disk, base, top, speed, flags });
  }),
  blockJobAbort: async (driver, [name, disk, flags], signal) => {
    checkFlags("blockJobAbort", flags, flag.BLOCK_JOB_ABORT);
    const entry = driver.entry(name);
    const turn = { driver, api: "blockJobAbort", entry, signal } as const;
    const { ended } = await inTurn(turn, { class: "modify" }, async (op) => {
      const job = await abort.requestEnd(op, disk, flags);
      // An object, since a promise would be waited for in here.
      return { ended: entry.ended(job.serial, signal) };
    });
    if (flags & flag.BLOCK_JOB_ABORT.ASYNC) return void ended.catch(() => {});
    abort.checkEnd(await ended, flags);
  },
  getBlockJobInfo: look("getBlockJobInfo", flag.BLOCK_JOB_INFO, (driver, entry, _, disk, flags) => {
    mustRun(entry);
    return getBlockJobInfo(driver.host.qmp, entry, disk, flags !== 0);
  }),
  blockJobSetSpeed: async (driver, [name, disk, bandwidth, flags], signal) => {
    checkFlags("blockJobSetSpeed", flags, flag.BLOCK_JOB_SPEED);
    const speed = toBytesPerSecond(bandwidth, flags !== 0);
    const turn = { driver, api: "blockJobSetSpeed", entry: driver.entry(name), signal } as const;
    await inTurn(turn, { class: "modify-migration-safe" }, (op) => setSpeed(op, disk, speed));
  },
  listBlockJobs: look("listBlockJobs", null, (driver, entry) =>
    listBlockJobs(driver.host.qmp, entry),
  ),

  backupBegin,
  backupGetDesc: look("backupGetDesc", {}, (_, { record }): BackupDefinition => {
    if (record.backup) return backup.describe(record.backup);
    throw new DomainError("NO_DOMAIN_BACKUP", "There is no backup");
  }),
  abortJob: async (driver, [name], signal) => {
    const entry = driver.entry(name);
    const turn = { driver, api: "abortJob", entry, signal } as const;
    await inTurn(turn, { class: "abort" }, async (op) => {
      if (!op.record.backup) throw new DomainError("OPERATION_INVALID", "There is no job to abort");
      await backup.cancelAll(op);
    });
  },
  getJobStats: look("getJobStats", flag.JOB_STATS, async (driver, { record }, _, flags) => {
    const { stats, isTaken } = await getJobStats(driver.host, record, flags);
    if (isTaken) {
      record.completed = null;
      await driver.host.save();
    }
    return stats;
  }),

  checkpointCreate: modify("checkpointCreate", flag.CHECKPOINT_CREATE, (_, definition, flags) => {
    const wanted = checked(checkpoint.checkpointSchema, definition);
    return (op) => checkpoint.create(op, wanted, flags);
  }),
  checkpointDelete: async (driver, [name, which, flags], signal) => {
    checkFlags("checkpointDelete", flags, flag.CHECKPOINT_DELETE);
    const offline = (flags & flag.CHECKPOINT_DELETE.METADATA_ONLY) !== 0;
    const turn = { driver, api: "checkpointDelete", entry: driver.entry(name), signal } as const;
    await inTurn(turn, { class: "modify", offline }, (op) => checkpoint.remove(op, which, flags));
  },
  checkpointGetDesc: look("checkpointGetDesc", {}, (_, { record }, _name, which) =>
    checkpoint.find(record, which),
  ),
  listAllCheckpoints: look(
    "listAllCheckpoints",
    flag.CHECKPOINT_LIST,
    (_, { record }, _name, flags) => checkpoint.list(record, flags),
  ),
  snapshotCreate: modify("snapshotCreate", flag.SNAPSHOT_CREATE, (_, definition, flags) => {
    const wanted = checked(snapshotSchema, definition);
    return (op) => snapshot(op, wanted, flags);
  }),
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
        const known = driver.find(definition.name);
        const { record } =
          known ??
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
          });
        record.definition = definition;
        await host.save();
        host.emit({ event: "lifecycle", domain: definition.name, type: LIFECYCLE.DEFINED });
        return domainInfo(record);
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
  await locks.call("undefine", (ctx) => withDriver(ctx, locks, () => host.save()), signal);
  host.emit({ event: "lifecycle", domain: name, type: LIFECYCLE.UNDEFINED });
}

async function destroy(
  driver: DomainDriver,
  [name, flags]: ArgumentsOf<"destroy">,
  signal: AbortSignal | undefined,
): Promise<void> {
  checkFlags("destroy", flags);
  const entry = driver.entry(name);
  mustRun(entry);
  // Whoever waits for its turn, or for a job's end, learns of it now.
  entry.object.setRunning(false);
  entry.tellStopped();
  try {
    const turn = { driver, api: "destroy", entry, signal } as const;
    await inTurn(turn, { class: "destroy", offline: true }, (op) => lifecycle.destroy(op));
  } finally {
    entry.object.setRunning(entry.record.state === "running");
  }
  await driver.endBackup(entry);
}

/** libvirt's one call for two jobs. */
function rebase(...[, disk, base, bandwidth, flags]: ArgumentsOf<"blockRebase">) {
  const { SHALLOW, REUSE_EXT, COPY_RAW, COPY, RELATIVE, COPY_DEV, BANDWIDTH_BYTES } =
    flag.BLOCK_REBASE;
  const speed = toBytesPerSecond(bandwidth, (flags & BANDWIDTH_BYTES) !== 0);
  if (!(flags & COPY)) {
    if (flags & (SHALLOW | REUSE_EXT | COPY_RAW | COPY_DEV)) {
      const text = "SHALLOW, REUSE_EXT, COPY_RAW and COPY_DEV go with COPY alone";
      throw new DomainError("INVALID_ARG", text);
    }
    if (flags & RELATIVE && base === null) {
      throw new DomainError("INVALID_ARG", "RELATIVE needs a base");
    }
    const relative = (flags & RELATIVE) !== 0;
    return (op: Operation) => pull(op, { disk, base, speed, relative, flags });
  }
  if (flags & RELATIVE) throw new DomainError("INVALID_ARG", "RELATIVE does not go with COPY");
  if (base === null) throw new DomainError("INVALID_ARG", "COPY needs a destination");
  if (flags & COPY_DEV) {
    throw new DomainError("CONFIG_UNSUPPORTED", "There are no block devices here: COPY_DEV");
  }
  const source = fromPath(base);
  return (op: Operation) => {
    const format = flags & COPY_RAW ? "raw" : findDisk(op.record, disk).layers[0]!.format;
    const destination: ImageDefinition = { format, source };
    const copyFlags = flags & (SHALLOW | REUSE_EXT);
    return copy(op, { disk, destination, speed, granularity: 0, bufSize: 0, flags: copyFlags });
  };
}

async function backupBegin(
  driver: DomainDriver,
  [name, definition, moment, flags]: ArgumentsOf<"backupBegin">,
  signal: AbortSignal | undefined,
): Promise<void> {
  checkFlags("backupBegin", flags, flag.BACKUP_BEGIN);
  const wanted = checked(backupSchema, definition);
  checkBackup(wanted);
  const point = moment === null ? null : checked(checkpoint.checkpointSchema, moment);
  const { host, locks } = driver;
  const entry = driver.entry(name);
  const { object } = entry;
  const options = { backup: wanted, checkpoint: point, flags };
  await locks.call(
    "backupBegin",
    (ctx) =>
      withAsyncJob(ctx, object, { kind: "backup" }, async (job) => {
        try {
          await withJob(ctx, object, { class: "async-nested", kind: "backup" }, () =>
            backup.begin(new Operation(host, entry, ctx), options),
          );
        } finally {
          if (entry.record.backup) {
            job.keep();
            entry.asyncJob = job;
          }
        }
      }),
    signal,
  );
}

function liveDefinition({ definition, disks }: DomainEntry["record"]): DomainDefinition {
  return { name: definition.name, disks: disks.map(lifecycle.diskDefinition) };
}
