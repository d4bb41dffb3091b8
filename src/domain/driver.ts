/**
 * The driver: all domains, their record, and every call of calls.ts. It runs beside the engine and is a client
 * of it like any other.
 *
 *     call() ──▶ turn of the domain (locks/) ──▶ pull.ts, commit.ts, … ──QMP──▶ engine
 *     events ◀── record saved ◀── news.ts ◀──────────── JOB_STATUS_CHANGE ─────────┘
 *
 * If the record cannot be kept any more, or somebody else has taken over, the driver is finished: every call
 * says so, and the next driver goes on from the record (reconnect.ts).
 */

import type { Clock } from "../base/clock.ts";
import { Coalesced } from "../base/coalesced.ts";
import { BlockError } from "../base/errors.ts";
import { tryOften } from "../base/try-often.ts";
import { QmpError, type QmpEvent } from "../engine/client.ts";
import type { EventQueue } from "../engine/event-queue.ts";
import { checkVersion } from "../engine/journal/store.ts";
import { checkArguments } from "./arguments.ts";
import type { ArgumentsOf, CallName, CallOptions, DomainInfo, ResultOf } from "./calls.ts";
import { domainInfo } from "./domain-info.ts";
import { DomainEntry } from "./entry.ts";
import { DomainError } from "./errors.ts";
import { type DomainListener, Listeners } from "./events.ts";
import { HANDLERS } from "./handlers/index.ts";
import type { ImageFiles } from "./image-files.ts";
import type { Ctx } from "./locks/ctx.ts";
import { DomainObject, DriverObject, type DriverOptions } from "./locks/domain-object.ts";
import { JobError } from "./locks/job-error.ts";
import { type AsyncJob, endAsyncJob, withAsyncJob } from "./locks/with-job.ts";
import { dealWith, type News, newsOf } from "./news.ts";
import { type Asking, type Host, Operation, type Qmp } from "./operation.ts";
import { reconnect } from "./reconnect.ts";
import {
  type DomainRecord,
  type DriverRecord,
  emptyRecord,
  readRecord,
  VERSION,
} from "./record.ts";
import type { DomainStore } from "./store.ts";

export interface DomainDriverOptions {
  readonly qmp: Qmp;
  /** Another monitor of the same engine. What is asked there does not wait behind what `qmp` is told. */
  readonly asking?: Asking;
  readonly store: DomainStore;
  readonly clock: Clock;
  /** Without them no file of an image is ever removed. */
  readonly files?: ImageFiles;
  readonly locks?: DriverOptions;
  /** What a pull does that cannot read or write. Default "report": it fails, as in libvirt. */
  readonly onPullError?: "report" | "stop";
  /** Hears all events, also those of what has ended while there was no driver. */
  readonly onEvent?: DomainListener;
  /** The driver is finished: see the file's head. */
  readonly onFailed?: (why: DomainError) => void;
}

export class DomainDriver {
  readonly host: Host;
  readonly locks: DriverObject;
  readonly #entries = new Map<string, DomainEntry>();
  readonly #listeners = new Listeners();
  readonly #onFailed: (why: DomainError) => void;
  readonly #events: EventQueue<QmpEvent<"JOB_STATUS_CHANGE">>;
  #failure: DomainError | null = null;

  /** Takes up what the store has. @throws BlockError EINVAL if a newer program has written it; of the store; QmpError */
  static async start(options: DomainDriverOptions): Promise<DomainDriver> {
    const stored = await options.store.load();
    checkVersion(stored, VERSION, options.store);
    const record = readRecord(stored);
    record.epoch++;
    const driver = new DomainDriver(options, record);
    try {
      // From here on nobody else writes.
      await driver.host.save();
      await driver.#reconnect();
    } catch (error) {
      // It would go on hearing of the ends of jobs, beside the one that is started next.
      await driver.close();
      throw error;
    }
    return driver;
  }

  /** Use start(). */
  constructor(options: DomainDriverOptions, record: DriverRecord = emptyRecord()) {
    const { qmp, asking = qmp, clock, files, store, onPullError = "report" } = options;
    const saves = new Coalesced(() => {
      const saved = structuredClone(record);
      return tryOften(clock, () => store.save(saved));
    });
    this.locks = new DriverObject(clock, options.locks);
    this.#onFailed = options.onFailed ?? (() => {});
    if (options.onEvent) this.subscribe(options.onEvent);
    this.host = {
      qmp,
      asking,
      clock,
      files,
      onPullError,
      record,
      save: () => saves.done().catch((error) => this.#cannotSave(error)),
      emit: (event) => this.#listeners.tell(event),
    };
    this.#events = qmp.events("JOB_STATUS_CHANGE");
    for (const domain of record.domains) this.#enter(domain);
    void this.#listen();
  }

  /** @returns ends it */
  subscribe(listener: DomainListener): () => void {
    return this.#listeners.add(listener);
  }

  /**
   * Runs one call.
   *
   * @throws DomainError
   */
  async call<Name extends CallName>(
    name: Name,
    args: ArgumentsOf<Name>,
    { signal }: CallOptions = {},
  ): Promise<ResultOf<Name>> {
    this.mustWork();
    const handler = HANDLERS[name] as (
      driver: DomainDriver,
      args: ArgumentsOf<Name>,
      signal: AbortSignal | undefined,
    ) => Promise<ResultOf<Name>>;
    try {
      return await handler(this, checkArguments(name, args), signal);
    } catch (error) {
      throw toDomainError(error);
    }
  }

  /** @throws DomainError why the driver is finished */
  mustWork(): void {
    if (this.#failure) throw this.#failure;
  }

  /** Stops listening. Domains and their jobs go on. */
  async close(): Promise<void> {
    this.#failure ??= new DomainError("OPERATION_INVALID", "The driver has been closed");
    for (const { object } of this.#entries.values()) object.changed();
    await this.#events.return();
  }

  /** @throws DomainError NO_DOMAIN */
  entry(name: string): DomainEntry {
    const found = this.#entries.get(name);
    if (found) return found;
    throw new DomainError("NO_DOMAIN", `There is no domain '${name}'`);
  }

  find(name: string): DomainEntry | undefined {
    return this.#entries.get(name);
  }

  infos(): DomainInfo[] {
    return [...this.#entries.values()].map(({ record }) => domainInfo(record));
  }

  /** A new domain. Call with the driver's lock; save() afterwards. */
  add(record: DomainRecord): DomainEntry {
    this.host.record.domains.push(record);
    return this.#enter(record);
  }

  /** It is forgotten. Call with the driver's lock; save() afterwards. */
  remove(entry: DomainEntry): void {
    const { record } = this.host;
    record.domains = record.domains.filter((domain) => domain !== entry.record);
    this.#entries.delete(entry.name);
    entry.object.remove();
  }

  /**
   * The domain's job for a backup. If there is one after the work, however that has ended, it goes on without
   * its caller, until the backup's end, which comes as news.
   *
   * @throws what the work throws; JobError
   */
  async withBackup(
    entry: DomainEntry,
    work: (ctx: Ctx) => Promise<void>,
    signal?: AbortSignal,
  ): Promise<void> {
    let kept: AsyncJob | null = null;
    let failure: unknown;
    const begin = (ctx: Ctx) =>
      withAsyncJob(ctx, entry.object, { kind: "backup" }, async (job) => {
        this.mustWork();
        await work(ctx).catch((error: unknown) => {
          if (!entry.record.backup) throw error;
          failure = error;
        });
        if (!entry.record.backup) return;
        job.keep();
        kept = job;
      });
    await this.locks.call("backupBegin", begin, signal);
    entry.asyncJob = kept;
    // It may be over by now.
    await this.endBackup(entry);
    if (failure !== undefined) throw failure;
  }

  /** The domain's job ends when its backup has. */
  async endBackup(entry: DomainEntry): Promise<void> {
    const { asyncJob, object, record } = entry;
    if (!asyncJob || record.backup) return;
    entry.asyncJob = null;
    await this.locks.call("the end of a backup", (ctx) => endAsyncJob(ctx, object, asyncJob));
  }

  #enter(record: DomainRecord): DomainEntry {
    const object = new DomainObject<Qmp>(this.locks, record.definition.name);
    object.attachMonitor(this.host.qmp);
    const entry = new DomainEntry(record, object, (...news) => this.#dealWith(...news));
    this.#entries.set(entry.name, entry);
    return entry;
  }

  async #reconnect(): Promise<void> {
    for (const entry of this.#entries.values()) {
      await reconnect(this.host, entry);
      if (entry.record.backup) await this.withBackup(entry, async () => {});
    }
  }

  async #listen(): Promise<void> {
    try {
      for await (const { data } of this.#events) {
        const news = newsOf(data.id, data.status);
        if (news) this.#hear(news);
      }
    } catch (error) {
      this.#fail(toDomainError(error));
    }
  }

  #hear(news: News): void {
    for (const entry of this.#entries.values()) {
      const isOurs = entry.record.jobs.some(({ name }) => name === news.job);
      if (isOurs || entry.lostCreations.has(news.job)) entry.news.push(news);
    }
  }

  /** What cannot be got over is the driver's end: nobody would deal with the news. */
  async #dealWith(entry: DomainEntry, ctx: Ctx, news: News): Promise<void> {
    if (this.#failure) return;
    try {
      await dealWith(new Operation(this.host, entry, ctx), news);
      // In a turn of its own.
      this.endBackup(entry).catch((error) => this.#fail(toDomainError(error)));
    } catch (error) {
      this.#fail(toDomainError(error));
    }
  }

  /** @throws DomainError */
  #cannotSave(error: unknown): never {
    const why = toDomainError(error);
    this.#fail(why);
    throw why;
  }

  #fail(why: DomainError): void {
    if (this.#failure) return;
    this.#failure = why;
    for (const { object } of this.#entries.values()) object.changed();
    void this.#events.return();
    this.#onFailed(why);
  }
}

/** What the floors below throw, in libvirt's words. @throws what is a bug of ours */
function toDomainError(error: unknown): DomainError {
  if (error instanceof DomainError) return error;
  if (error instanceof QmpError) {
    const code = error.errno === "ECANCELED" ? "OPERATION_ABORTED" : "OPERATION_FAILED";
    return new DomainError(code, error.desc, error);
  }
  if (error instanceof JobError) return new DomainError(codeOf(error), error.message, error);
  if (error instanceof BlockError) {
    const code = error.errno === "ECANCELED" ? "OPERATION_ABORTED" : "OPERATION_FAILED";
    return new DomainError(code, error.message, error);
  }
  throw error;
}

function codeOf({ reason, gone }: JobError): DomainError["code"] {
  if (reason === "timeout") return "OPERATION_TIMEOUT";
  if (reason === "aborted") return "OPERATION_ABORTED";
  if (reason === "gone") return gone === "removed" ? "NO_DOMAIN" : "OPERATION_INVALID";
  return "OPERATION_FAILED";
}
