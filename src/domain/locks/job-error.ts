/**
 * Why a call did not get its turn. Five reasons, which a program can tell apart; the sentence names
 * who is in the way, with what kind of job, and since when.
 */

import { BlockError, type Errno } from "../../base/errors.ts";

export type JobFailure =
  /** Not within its time. */
  | "timeout"
  /** Too many wait already. */
  | "queue-limit"
  /** Not at once, and it did not want to wait. Expected by whoever asked for it: nothing to report. */
  | "nowait"
  /** The caller called it off. */
  | "aborted"
  /** What it was meant for is not there any more: see `gone`. */
  | "gone";

/** The domain was taken away, stands still, or the async job that a step belongs to has ended. */
export type Gone = "removed" | "not-running" | "async-ended";

/** Who is in the way. */
export interface Blocker {
  readonly api: string;
  /** As describeWish() has it; null for the holder of a mere lock. */
  readonly class: string | null;
  readonly ageMs: number;
}

const ERRNOS: Record<JobFailure, Errno> = {
  timeout: "ETIMEDOUT",
  "queue-limit": "EBUSY",
  nowait: "EBUSY",
  aborted: "ECANCELED",
  gone: "ENOENT",
};

export class JobError extends BlockError {
  readonly reason: JobFailure;
  /** Set if the reason is "gone". */
  readonly gone: Gone | null;
  readonly blocker: Blocker | null;

  /**
   * @param what was waited for: "domain 'a'"
   * @param api who waited for it
   */
  constructor(
    reason: JobFailure,
    what: string,
    api: string,
    blocker: Blocker | null,
    gone: Gone | null = null,
  ) {
    const because = blocker ? `: ${describe(blocker)}` : "";
    super(ERRNOS[reason], `${sentence(reason, what, api, gone)}${because}`);
    this.reason = reason;
    this.gone = gone;
    this.blocker = blocker;
  }
}

function sentence(reason: JobFailure, what: string, api: string, gone: Gone | null): string {
  switch (reason) {
    case "timeout":
      return `${api} did not get its turn with ${what} in time`;
    case "queue-limit":
      return `${api} is one too many in the queue for ${what}`;
    case "nowait":
      return `${api} would have to wait for ${what}`;
    case "aborted":
      return `${api} was called off while it waited for ${what}`;
    case "gone":
      if (gone === "removed") return `${api} finds that ${what} has been removed`;
      if (gone === "not-running") return `${api} finds that ${what} is not running`;
      return `${api} is a step of an operation on ${what} that has ended`;
  }
}

function describe({ api, class: kind, ageMs }: Blocker): string {
  const job = kind === null ? "" : ` (${kind})`;
  return `${api}${job} has been at it for ${(ageMs / 1000).toFixed(1)} s`;
}
