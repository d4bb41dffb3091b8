/** Calls on a disk's chain and its job. */

import * as abort from "../abort.ts";
import { toBytesPerSecond } from "../bandwidth.ts";
import { getBlockJobInfo, listBlockJobs, setSpeed } from "../block-info.ts";
import type { ArgumentsOf } from "../calls.ts";
import { commit } from "../commit.ts";
import { copy } from "../copy.ts";
import { checked, checkImage, type ImageDefinition } from "../definition.ts";
import { DomainError } from "../errors.ts";
import * as flag from "../flags.ts";
import { checkFlags } from "../flags.ts";
import { waitFor } from "../locks/with-job.ts";
import { findDisk, type Operation } from "../operation.ts";
import { pull } from "../pull.ts";
import { snapshot, snapshotSchema } from "../snapshot.ts";
import { fromPath } from "../source.ts";
import { hasEnded } from "../start-job.ts";
import { type Handlers, inTurn, look, modify, mustRun } from "./turn.ts";

type Names =
  | "blockPull"
  | "blockRebase"
  | "blockCopy"
  | "blockCommit"
  | "blockJobAbort"
  | "getBlockJobInfo"
  | "blockJobSetSpeed"
  | "listBlockJobs"
  | "snapshotCreate";

export const BLOCK_JOB_HANDLERS: Handlers<Names> = {
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
    const job = await inTurn(turn, { class: "modify" }, (op) => abort.requestEnd(op, disk, flags));
    if (flags & flag.BLOCK_JOB_ABORT.ASYNC) return;
    const look = () => {
      driver.mustWork();
      return hasEnded(entry, job) || undefined;
    };
    await driver.locks.call("blockJobAbort", (ctx) => waitFor(ctx, entry.object, look), signal);
    abort.checkEnd(job, flags);
  },
  getBlockJobInfo: look("getBlockJobInfo", flag.BLOCK_JOB_INFO, (driver, entry, _, disk, flags) => {
    mustRun(entry);
    return getBlockJobInfo(driver.host.asking, entry, disk, flags !== 0);
  }),
  blockJobSetSpeed: async (driver, [name, disk, bandwidth, flags], signal) => {
    checkFlags("blockJobSetSpeed", flags, flag.BLOCK_JOB_SPEED);
    const speed = toBytesPerSecond(bandwidth, flags !== 0);
    const turn = { driver, api: "blockJobSetSpeed", entry: driver.entry(name), signal } as const;
    await inTurn(turn, { class: "modify-migration-safe" }, (op) => setSpeed(op, disk, speed));
  },
  listBlockJobs: look("listBlockJobs", null, (driver, entry) =>
    listBlockJobs(driver.host.asking, entry),
  ),
  snapshotCreate: modify("snapshotCreate", flag.SNAPSHOT_CREATE, (_, definition, flags) => {
    const wanted = checked(snapshotSchema, definition);
    return (op) => snapshot(op, wanted, flags);
  }),
};

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
  if (base === null) throw new DomainError("INVALID_ARG", "COPY needs a destination");
  if (flags & RELATIVE) {
    throw new DomainError("ARGUMENT_UNSUPPORTED", "RELATIVE does not go with COPY");
  }
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
