/** Jobs that have ended, until somebody dismisses them: a tab that is opened later can see what became of them. */

import { BlockError } from "../../base/errors.ts";
import type { Job } from "../../job/job.ts";
import type { HistoryKey, JobHistoryInfo } from "../../qmp/commands/journal.ts";
import type { Timestamp } from "../../qmp/events.ts";

/** The oldest ones go. */
const HISTORY_MAX = 1000;

export class History {
  #entries: JobHistoryInfo[];

  constructor(recorded: readonly JobHistoryInfo[]) {
    this.#entries = recorded.slice(-HISTORY_MAX);
  }

  /** The oldest first. */
  get all(): readonly JobHistoryInfo[] {
    return this.#entries;
  }

  /** @param job concluded */
  add(job: Job & { readonly id: string }, began: Timestamp, ended: Timestamp): void {
    const { id, driver, error, progress } = job;
    const node = nodeOf(driver.journal?.(job));
    this.put({
      id,
      type: driver.type,
      ...(node !== undefined && { node }),
      outcome: outcomeOf(error),
      ...(error && { error: error.message }),
      "current-progress": progress.current,
      "total-progress": progress.total,
      began,
      ended,
      "duration-ms": Math.max(0, Math.round(msOf(ended) - msOf(began))),
    });
  }

  put(entry: JobHistoryInfo): void {
    this.#entries = [...this.#entries, entry].slice(-HISTORY_MAX);
  }

  /** @param which all if not given. @throws BlockError ENOENT */
  dismiss(which?: HistoryKey): void {
    const kept = which ? this.#entries.filter((entry) => !isMeant(entry, which)) : [];
    if (which && kept.length === this.#entries.length) {
      throw new BlockError("ENOENT", `Job '${which.id}' is not in the history`);
    }
    this.#entries = kept;
  }
}

function isMeant(entry: JobHistoryInfo, { id, began }: HistoryKey): boolean {
  return entry.id === id && (!began || msOf(entry.began) === msOf(began));
}

function outcomeOf(error: BlockError | null): JobHistoryInfo["outcome"] {
  if (!error) return "completed";
  return error.errno === "ECANCELED" ? "cancelled" : "failed";
}

/** Of what starts a job again: the node that it is about. */
export function nodeOf(again: object | null | undefined): string | undefined {
  const { device, top } = (again ?? {}) as { device?: unknown; top?: unknown };
  const name = device ?? top;
  return typeof name === "string" ? name : undefined;
}

function msOf({ seconds, microseconds }: Timestamp): number {
  return seconds * 1000 + microseconds / 1000;
}
