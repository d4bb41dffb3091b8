/** What became of jobs and nodes when an engine was lost. Not QEMU's; only where a journal is kept. */

import * as v from "valibot";
import { size } from "../../base/check.ts";
import { BlockError } from "../../base/errors.ts";
import { command, nothing } from "../schema.ts";
import { jobType } from "../types.ts";

const timestamp = v.strictObject({ seconds: v.number(), microseconds: v.number() });

export const jobHistoryInfo = v.strictObject({
  id: v.string(),
  type: jobType,
  node: v.exactOptional(v.string()),
  outcome: v.picklist(["completed", "failed", "cancelled"]),
  error: v.exactOptional(v.string()),
  "current-progress": size,
  "total-progress": size,
  began: timestamp,
  ended: timestamp,
  "duration-ms": size,
});
export type JobHistoryInfo = v.InferOutput<typeof jobHistoryInfo>;

/** Which job: of several that ran under one id all, or the one that began then. */
export interface HistoryKey {
  readonly id: string;
  readonly began?: JobHistoryInfo["began"] | undefined;
}

/**
 * continued   it is there again, a job at work again
 * ended       a job has come to its end: how, is in the history
 * kept        it cannot be brought back now; x-recovery-retry tries again
 * lost        it cannot be brought back
 * broken      its record makes no sense
 */
const RECOVERY_OUTCOMES = ["continued", "ended", "kept", "lost", "broken"] as const;
export const RECOVERY_KINDS = [
  "record",
  "object",
  "node",
  "export",
  "job",
  "history",
  "request",
] as const;

const recoveryInfo = v.strictObject({
  kind: v.picklist(RECOVERY_KINDS),
  name: v.string(),
  outcome: v.picklist(RECOVERY_OUTCOMES),
  /** In plain words. */
  text: v.string(),
});
export type RecoveryInfo = v.InferOutput<typeof recoveryInfo>;

/** The engine's journal, as commands see it. */
export interface JournalView {
  readonly history: readonly JobHistoryInfo[];
  /** @param which all if not given. @throws BlockError ENOENT */
  dismissHistory(which?: HistoryKey): void;
  readonly recovery: readonly RecoveryInfo[];
  retryRecovery(): Promise<void>;
  /** @throws BlockError ENOENT */
  dismissRecovery(kind: RecoveryInfo["kind"], name: string): Promise<void>;
}

export function journalCommands(journal: JournalView) {
  return [
    command({
      name: "x-query-job-history",
      doc: "Lists jobs that have ended, the newest first, until they are dismissed; at most 1000.",
      args: {},
      returns: v.array(jobHistoryInfo),
      run: () => [...journal.history].reverse(),
    }),
    command({
      name: "x-job-history-dismiss",
      doc: "Takes a job that has ended off the history, all that ran under its id or the one that began then; or all of them.",
      args: { id: v.optional(v.string()), began: v.optional(timestamp) },
      returns: nothing,
      run(_context, { id, began }) {
        if (id === undefined && began) {
          const text = "'began' says which run of a job is meant: 'id' has to say which job";
          throw new BlockError("EINVAL", text);
        }
        journal.dismissHistory(id === undefined ? undefined : { id, began });
        return {};
      },
    }),
    command({
      name: "x-query-recovery",
      doc: "Tells what became of each object, node, job and export when the engine was lost the last time.",
      args: {},
      returns: v.array(recoveryInfo),
      run: () => [...journal.recovery],
    }),
    command({
      name: "x-recovery-retry",
      doc: "Tries again to bring back what could not be brought back; what became of it, x-query-recovery tells.",
      args: {},
      returns: nothing,
      alone: true,
      async run() {
        await journal.retryRecovery();
        return {};
      },
    }),
    command({
      name: "x-recovery-dismiss",
      doc: "Gives up what could not be brought back: it is not tried again, and not told of any more.",
      args: { kind: v.picklist(RECOVERY_KINDS), name: v.string() },
      returns: nothing,
      alone: true,
      async run(_context, { kind, name }) {
        await journal.dismissRecovery(kind, name);
        return {};
      },
    }),
  ] as const;
}
