/**
 * libvirt's numbers for what is told in numbers, as data (libvirt: include/libvirt/libvirt-domain.h).
 * In them 0 is never a claim: a zeroed BlockJobInfo says "no job" (the review of seed 003). The one
 * exception is libvirt's own: of the statuses, COMPLETED is 0.
 */

/** virDomainBlockJobType. */
export const BLOCK_JOB_TYPE = {
  UNKNOWN: 0,
  PULL: 1,
  COPY: 2,
  COMMIT: 3,
  ACTIVE_COMMIT: 4,
  BACKUP: 5,
} as const;

/** virConnectDomainEventBlockJobStatus. */
export const BLOCK_JOB_STATUS = { COMPLETED: 0, FAILED: 1, CANCELED: 2, READY: 3 } as const;

/** virDomainEventID, of those that there are here. */
export const EVENT_ID = { LIFECYCLE: 0, BLOCK_JOB: 8, BLOCK_JOB_2: 16, JOB_COMPLETED: 21 } as const;

/** virDomainEventType, of those that there are here. */
export const LIFECYCLE = { DEFINED: 0, UNDEFINED: 1, STARTED: 2, STOPPED: 5, CRASHED: 8 } as const;

/** virDomainState, of those that there are here. */
export const DOMAIN_STATE = { RUNNING: 1, SHUTOFF: 5, CRASHED: 6 } as const;

/** virDomainJobType: what getJobStats() tells of a domain's job. */
export const JOB_TYPE = {
  NONE: 0,
  BOUNDED: 1,
  UNBOUNDED: 2,
  COMPLETED: 3,
  FAILED: 4,
  CANCELLED: 5,
} as const;

/** virDomainJobOperation: backups are the only domain jobs here. */
export const JOB_OPERATION = { UNKNOWN: 0, BACKUP: 9 } as const;

/**
 * What a job of the driver is. The first five are public, under the number beside them; the others
 * are never told of, but in listBlockJobs().
 */
export const JOB_KINDS = {
  pull: BLOCK_JOB_TYPE.PULL,
  copy: BLOCK_JOB_TYPE.COPY,
  commit: BLOCK_JOB_TYPE.COMMIT,
  "active-commit": BLOCK_JOB_TYPE.ACTIVE_COMMIT,
  backup: BLOCK_JOB_TYPE.BACKUP,
  /** Its record cannot be understood. */
  broken: BLOCK_JOB_TYPE.UNKNOWN,
} as const;
export type JobKind = keyof typeof JOB_KINDS;

/** A job's state, in libvirt's numbers; the first four are the public statuses. */
export const JOB_STATES = {
  completed: 0,
  failed: 1,
  cancelled: 2,
  ready: 3,
  new: 4,
  running: 5,
  concluded: 6,
  aborting: 7,
  pending: 8,
  pivoting: 9,
} as const;
export type JobState = keyof typeof JOB_STATES;

/** What counts as a job at work on its disk. */
export const ACTIVE_STATES: readonly JobState[] = ["running", "ready", "aborting", "pivoting"];
/** How jobs end. */
export const END_STATES: readonly JobState[] = ["completed", "failed", "cancelled"];

/** The kinds that do not end by themselves: they wait, ready, for a pivot or an abort. */
export const TWO_PHASE: readonly JobKind[] = ["copy", "active-commit"];
