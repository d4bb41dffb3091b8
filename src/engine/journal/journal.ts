/**
 * An engine's journal: what there is of it is on record before anybody sees it, so that the next engine
 * can go on where this one was lost. docs/journal.md has the whole story.
 *
 *   engine ── touch ──▶ Recorder ── describe, save ──▶ store
 *     │                    ▲ covered
 *     ├─ monitors ─────────┤ Outbox: replies and events wait
 *     ├─ jobs ─────────────┤ beforeRun: no job works that is not on record
 *     │                    │ beforeClean: none lets go of what it would go on with, before its effect is
 *     └─ drained sections ─┘ linksSettled: no guest writes through a link that is not on record
 */

import type { BlockError } from "../../base/errors.ts";
import { WriteIntents } from "../../block/write-intents.ts";
import type { BlockJobServices } from "../../blockjob/block-job.ts";
import type { ExportList } from "../../export/list.ts";
import type { Job } from "../../job/job.ts";
import type { JobStatus } from "../../job/status.ts";
import {
  type HistoryKey,
  type JournalView,
  journalCommands,
  type RecoveryInfo,
} from "../../qmp/commands/journal.ts";
import type { Timestamp } from "../../qmp/events.ts";
import type { Command } from "../../qmp/schema.ts";
import { describeExports, describeJob, describeObjects } from "./describe.ts";
import { History, nodeOf } from "./history.ts";
import { Outbox } from "./outbox.ts";
import { type JobRecord, type JournalRecord, VERSION } from "./record.ts";
import { Recorder } from "./recorder.ts";
import { Recovery } from "./recover.ts";
import { Requests } from "./requests.ts";
import type { OpenedJournal } from "./store.ts";

export interface EngineJournalInit {
  readonly opened: OpenedJournal;
  readonly services: BlockJobServices & { readonly exports: ExportList };
  /** Runs a command. @throws BlockError */
  readonly execute: (name: string, args: object) => Promise<unknown>;
  /** Raised when the engine closes. */
  readonly signal: AbortSignal;
  /** Something has been brought back, or given up. @param back exports that are there again */
  readonly onRecovery: (back: readonly string[]) => Promise<void>;
  /** The record cannot be kept any more: the engine must stop. */
  readonly onFailed: (why: unknown) => void;
}

export class EngineJournal implements JournalView {
  readonly requests: Requests;
  /** Those that only a journal has. */
  readonly commands: readonly Command[] = journalCommands(this);
  readonly #init: EngineJournalInit;
  readonly #recorder: Recorder;
  readonly #recovery: Recovery;
  readonly #history: History;
  readonly #outboxes = new Set<Outbox>();
  /** When jobs that are there began. */
  readonly #began = new Map<string, Timestamp>();
  readonly #stopped: Promise<never>;
  #tellStopped!: (why: BlockError) => void;

  constructor(init: EngineJournalInit) {
    this.#init = init;
    const { opened, services, execute, signal, onRecovery, onFailed } = init;
    const { store, record, intents } = opened;
    this.#recorder = new Recorder(
      {
        store,
        clock: services.clock,
        describe: () => this.#describe(),
        onFailed,
        saveOthers: intents && (() => intents.settled()),
      },
      record.seq,
    );
    this.#history = new History(record.history);
    this.requests = new Requests(this.#recorder, record.requests);
    this.#recovery = new Recovery(
      {
        services,
        execute,
        signal,
        onExportsBack: onRecovery,
        onNeverStarted: (job, why) => this.#neverStarted(job, why),
      },
      record,
    );
    this.#stopped = new Promise((_, reject) => {
      this.#tellStopped = reject;
    });
    this.#stopped.catch(() => {});
    services.graph.watchLinks({ linksSettled: () => this.#recorded() });
  }

  /** Brings back what the lost engine had, as far as it can be; to be called once, before anybody connects. */
  async recover(): Promise<void> {
    await this.#recovery.run();
    this.#dropIntents();
    await this.settled();
  }

  /** Of jobs that will not go on. Bitmaps are found when their image is opened, whenever that is. */
  #dropIntents(): void {
    const left = this.#recovery.withJobs([]);
    const kept = new Set(left.map(({ again }) => (again as { intent?: unknown } | null)?.intent));
    this.#init.opened.intents?.keepOnly((id) => kept.has(id) || !WriteIntents.isOwnId(id));
  }

  /** Something may have changed. */
  touch(): void {
    this.#recorder.touch();
  }

  /** Resolves when all that is now is on record. @throws BlockError when the engine has stopped */
  settled(): Promise<void> {
    return Promise.race([this.#recorded(), this.#stopped]);
  }

  /** The same for what stands still for ever when the engine has stopped. */
  #recorded(): Promise<void> {
    this.#recorder.touch();
    return this.#recorder.covered();
  }

  // What waits

  /** @returns what a monitor is to say things to, instead of its client */
  openOutbox(send: (message: object) => void): Outbox {
    const outbox = new Outbox(this.#recorder, send);
    this.#outboxes.add(outbox);
    return outbox;
  }

  /** Nothing more comes; what waits is sent, or stopped, as ever. */
  closeOutbox(outbox: Outbox): void {
    void outbox.told().then(() => this.#outboxes.delete(outbox));
  }

  /** A named job has moved; called before anybody is told. */
  jobMoved(id: string, status: JobStatus): void {
    const { jobs, clock } = this.#init.services;
    if (status === "created") {
      this.#began.set(id, this.#recovery.beganAt(id) ?? clock.timestamp());
    } else if (status === "concluded") {
      this.#recovery.jobEnded(id);
      const job = jobs.find(id);
      if (isNamed(job) && job.started && !this.#recovery.hasConcluded(job)) {
        this.#history.add(job, this.#beganAt(id), clock.timestamp());
      }
    } else if (status === "null") this.#began.delete(id);
    this.#recorder.touch();
  }

  beforeRun(job: Job): Promise<void> {
    this.#recovery.pauseAgain(job);
    return this.#recorded();
  }

  /** The engine has stopped: what is not on record has not happened. */
  stop(why: BlockError): void {
    for (const outbox of this.#outboxes) outbox.stop(why);
    this.#tellStopped(why);
  }

  /** All that is now is on record; what comes afterwards is for the next engine to do. @throws BlockError */
  async seal(): Promise<void> {
    await this.settled();
    await this.#recorder.seal();
  }

  /** The engine has closed: all is said, and the record has what is left. */
  async close(): Promise<void> {
    await this.settled();
    await this.told();
  }

  /** Resolves when monitors have been sent what waits for the record now, or the engine has stopped. */
  async told(): Promise<void> {
    await Promise.all([...this.#outboxes].map((outbox) => outbox.told()));
  }

  /** All files are closed: the next engine may have the journal. @throws BlockError */
  async release(): Promise<void> {
    await this.#init.opened.release?.();
  }

  // JournalView

  get history() {
    return this.#history.all;
  }

  dismissHistory(which?: HistoryKey): void {
    this.#history.dismiss(which);
  }

  get recovery(): readonly RecoveryInfo[] {
    return this.#recovery.all;
  }

  retryRecovery(): Promise<void> {
    return this.#recovery.run();
  }

  async dismissRecovery(kind: RecoveryInfo["kind"], name: string): Promise<void> {
    this.#recovery.dismiss(kind, name);
    await this.#init.onRecovery([]);
  }

  /** Exports that may still come back under their name. */
  get awaitedExports(): readonly string[] {
    const there = this.#init.services.exports.all.map(({ id }) => id);
    return this.#recovery.awaitedExports(there);
  }

  // The record

  #describe(): JournalRecord {
    const { opened, services } = this.#init;
    const { graph, jobs, exports } = services;
    const recovery = this.#recovery;
    const { epoch, seq } = opened.record;
    const live = [...jobs.all()].reverse().filter(isNamed);
    return {
      version: VERSION,
      epoch,
      seq,
      objects: recovery.withObjects(describeObjects(graph)),
      nodes: recovery.withNodes(graph.describe()),
      exports: recovery.withExports(describeExports(graph, exports)),
      jobs: recovery.withJobs(
        live.map((job) => recovery.recordOf(job) ?? describeJob(job, this.#beganAt(job.id))),
      ),
      history: this.#history.all,
      requests: this.requests.describe(),
      broken: recovery.broken,
    };
  }

  #beganAt(id: string): Timestamp {
    return this.#began.get(id) ?? this.#init.services.clock.timestamp();
  }

  #neverStarted({ id, type, again, began }: JobRecord, error: string): void {
    const node = nodeOf(again);
    this.#history.put({
      id,
      type,
      ...(node !== undefined && { node }),
      outcome: "failed",
      error,
      "current-progress": 0,
      "total-progress": 0,
      began,
      ended: this.#init.services.clock.timestamp(),
      "duration-ms": 0,
    });
  }
}

function isNamed(job: Job | undefined): job is Job & { readonly id: string } {
  return job !== undefined && job.id !== null;
}
