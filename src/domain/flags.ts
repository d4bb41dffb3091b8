/** libvirt's flags, as data, and the one check for all of them. */

import { DomainError } from "./errors.ts";

/** virDomainBlockJobAbortFlags. */
export const BLOCK_JOB_ABORT = {
  /** Only asks for it; the event tells of the end. */
  ASYNC: 1 << 0,
  /** Ends a copy or active commit that is ready by switching to the new image. */
  PIVOT: 1 << 1,
} as const;

/** virDomainBlockJobInfoFlags. */
export const BLOCK_JOB_INFO = { BANDWIDTH_BYTES: 1 << 0 } as const;

/** virDomainBlockJobSetSpeedFlags. */
export const BLOCK_JOB_SPEED = { BANDWIDTH_BYTES: 1 << 0 } as const;

/** virDomainBlockPullFlags: a subset of the next, hence the bit. */
export const BLOCK_PULL = { BANDWIDTH_BYTES: 1 << 6 } as const;

/** virDomainBlockRebaseFlags. */
export const BLOCK_REBASE = {
  SHALLOW: 1 << 0,
  REUSE_EXT: 1 << 1,
  COPY_RAW: 1 << 2,
  COPY: 1 << 3,
  RELATIVE: 1 << 4,
  COPY_DEV: 1 << 5,
  BANDWIDTH_BYTES: 1 << 6,
} as const;

/** virDomainBlockCopyFlags. */
export const BLOCK_COPY = {
  SHALLOW: 1 << 0,
  REUSE_EXT: 1 << 1,
  TRANSIENT_JOB: 1 << 2,
  SYNCHRONOUS_WRITES: 1 << 3,
} as const;

/** virDomainBlockCommitFlags. */
export const BLOCK_COMMIT = {
  SHALLOW: 1 << 0,
  DELETE: 1 << 1,
  ACTIVE: 1 << 2,
  RELATIVE: 1 << 3,
  BANDWIDTH_BYTES: 1 << 4,
} as const;

/** virDomainBackupBeginFlags. */
export const BACKUP_BEGIN = { REUSE_EXTERNAL: 1 << 0 } as const;

/** virDomainGetJobStatsFlags. */
export const JOB_STATS = { COMPLETED: 1 << 0, KEEP_COMPLETED: 1 << 1 } as const;

/** virDomainCheckpointCreateFlags. */
export const CHECKPOINT_CREATE = {
  REDEFINE: 1 << 0,
  QUIESCE: 1 << 1,
  REDEFINE_VALIDATE: 1 << 2,
} as const;

/** virDomainCheckpointDeleteFlags. */
export const CHECKPOINT_DELETE = {
  CHILDREN: 1 << 0,
  METADATA_ONLY: 1 << 1,
  CHILDREN_ONLY: 1 << 2,
} as const;

/** virDomainCheckpointXMLFlags. There are no secrets, and no domain in it; SIZE needs one that runs. */
export const CHECKPOINT_XML = { SECURE: 1 << 0, NO_DOMAIN: 1 << 1, SIZE: 1 << 2 } as const;

/** virDomainCheckpointListFlags. */
export const CHECKPOINT_LIST = {
  ROOTS: 1 << 0,
  DESCENDANTS: 1 << 0,
  TOPOLOGICAL: 1 << 1,
  LEAVES: 1 << 2,
  NO_LEAVES: 1 << 3,
} as const;

/** virDomainXMLFlags, of those that mean something here. */
export const DOMAIN_DESC = { INACTIVE: 1 << 1 } as const;

/** virDomainUndefineFlagsValues, of those that mean something here. */
export const DOMAIN_UNDEFINE = { CHECKPOINTS_METADATA: 1 << 4 } as const;

/** virDomainSnapshotCreateFlags, of those that mean something here. */
export const SNAPSHOT_CREATE = {
  DISK_ONLY: 1 << 4,
  REUSE_EXT: 1 << 5,
  ATOMIC: 1 << 7,
} as const;

/**
 * @param api the name of the call
 * @param allowed the flags that it knows
 * @throws DomainError INVALID_ARG
 */
export function checkFlags(
  api: string,
  flags: number,
  allowed: Readonly<Record<string, number>> = {},
): void {
  const known = Object.values(allowed).reduce((all, flag) => all | flag, 0);
  if (Number.isInteger(flags) && flags >= 0 && flags <= 0x7fffffff && (flags & ~known) === 0)
    return;
  const unknown = Number.isInteger(flags) && flags > 0 ? `0x${flags.toString(16)}` : `${flags}`;
  throw new DomainError("INVALID_ARG", `${api} does not know all of the flags ${unknown}`);
}
