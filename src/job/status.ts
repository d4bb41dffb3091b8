/**
 * The life of a job, as data.
 *
 *   created ──▶ running ──────────────▶ waiting ──▶ pending ──▶ concluded ──▶ null
 *                │  ▲  │                   ▲
 *                ▼  │  └──▶ ready ─────────┘
 *               paused       │  ▲
 *                            ▼  │
 *                           standby
 *
 * Not drawn: created, running, ready, waiting and pending may fail into aborting, and aborting goes
 * to concluded. A paused or standby job wakes up before it can fail. A job whose set-up failed goes
 * from created to null.
 *
 * Nothing else knows which edge or verb is legal: code asks, these tables answer. A wrong move is
 * our bug, a wrong verb is the client's. (QEMU: qapi/job.json; JobSTT and JobVerbTable in job.c.)
 */

export const STATUSES = [
  "undefined",
  "created",
  "running",
  "paused",
  "ready",
  "standby",
  "waiting",
  "pending",
  "aborting",
  "concluded",
  "null",
] as const;

/**
 * undefined   not yet made
 * created     made, not started
 * running     at work
 * paused      parked at a pause point; was running
 * ready       converged; goes on until told to complete
 * standby     parked at a pause point; was ready
 * waiting     its own work is done, the group's is not
 * pending     the whole group's work is done; waits to be finalized
 * aborting    failed or cancelled; cleaning up
 * concluded   the result is final and can be asked for
 * null        gone
 */
export type JobStatus = (typeof STATUSES)[number];

/** Where a job may go from each status. The loop at aborting is silent. */
export const MOVES: Readonly<Record<JobStatus, readonly JobStatus[]>> = {
  undefined: ["created"],
  created: ["running", "aborting", "null"],
  running: ["paused", "ready", "waiting", "aborting"],
  paused: ["running"],
  ready: ["standby", "waiting", "aborting"],
  standby: ["ready"],
  waiting: ["pending", "aborting"],
  pending: ["aborting", "concluded"],
  aborting: ["aborting", "concluded"],
  concluded: ["null"],
  null: [],
};

const ALIVE: readonly JobStatus[] = ["created", "running", "paused", "ready", "standby"];

export const JOB_VERBS = [
  "cancel",
  "pause",
  "resume",
  "set-speed",
  "complete",
  "finalize",
  "dismiss",
  "change",
] as const;
export type JobVerb = (typeof JOB_VERBS)[number];

/** In which statuses a client may use each verb. */
export const VERBS: Readonly<Record<JobVerb, readonly JobStatus[]>> = {
  cancel: [...ALIVE, "waiting", "pending"],
  pause: ALIVE,
  resume: ALIVE,
  "set-speed": ALIVE,
  complete: ["ready", "standby"],
  finalize: ["pending"],
  dismiss: ["concluded"],
  change: ALIVE,
};

export function mayMove(from: JobStatus, to: JobStatus): boolean {
  return MOVES[from].includes(to);
}

export function mayApply(verb: JobVerb, status: JobStatus): boolean {
  return VERBS[verb].includes(status);
}

/** Whether the job's own work is over, well or not: nothing of its run() will happen any more. */
export function isCompleted(status: JobStatus): boolean {
  return STATUSES.indexOf(status) >= STATUSES.indexOf("waiting");
}
