/**
 * Brings back what the record of a lost engine has: objects, nodes, exports, jobs, in this order, as a
 * job's filter goes between a node and those who use it:
 *
 *   nodes ──▶ exports ────▶ jobs' filters ──▶ guests' requests go on
 *              └── guests may come; their requests wait ──┘
 *
 * So a job sees every write. One that cannot be started now holds nobody up: what guests write meanwhile makes
 * its write intent one that is not trusted, a mirror begins anew then, a backup has lost its moment and says so.
 *
 *   job's record           what becomes of it
 *   created                gone; in the history: it never started
 *   has taken effect       completed: its links are in the same record
 *   aborting               cancelled, or failed with its error
 *   concluded              there again, until it is dismissed
 *   else, by its kind      started again (starters.ts), with its id, speed and pause; or failed, with why
 *
 * What cannot be brought back now stays in the record and is told; nobody else is held up by it. So a
 * crash amid this is no different from the one before.
 */

import { BlockError, type Errno } from "../../base/errors.ts";
import { childNames, type NodeRecord } from "../../block/graph-record.ts";
import type { BlockNode } from "../../block/node.ts";
import type { BlockJobServices } from "../../blockjob/block-job.ts";
import type { Job } from "../../job/job.ts";
import type { RecoveryInfo } from "../../qmp/commands/journal.ts";
import type {
  BrokenEntry,
  ExportRecord,
  JobRecord,
  JournalRecord,
  ObjectRecord,
} from "./record.ts";
import { startStandIn } from "./stand-in.ts";
import { canStart, checkStart, startAgain } from "./starters.ts";

/** For so long guests wait for jobs that are being started, at most: a store may not answer. */
const HOLD_MS = 10_000;

export interface RecoveryInit {
  readonly services: BlockJobServices;
  /** Runs a command. @throws BlockError */
  readonly execute: (name: string, args: object) => Promise<unknown>;
  /** They are there again, with the jobs of their disks. Whoever wants something of them first has it done then. */
  readonly onExportsBack: (ids: readonly string[]) => Promise<void>;
  /** A job of the lost engine that never ran: it is put into the history. */
  readonly onNeverStarted: (record: JobRecord, why: string) => void;
  readonly signal: AbortSignal;
}

export class Recovery {
  readonly #init: RecoveryInit;
  // What has not been brought back.
  readonly #objects: Map<string, ObjectRecord>;
  readonly #nodes: Map<string, NodeRecord>;
  readonly #exports: Map<string, ExportRecord>;
  readonly #jobs: Map<string, JobRecord>;
  #broken: BrokenEntry[];
  /** Exports that are there again, of which nobody has been told. */
  readonly #back = new Set<string>();
  readonly #told = new Map<string, RecoveryInfo>();
  /** Jobs that only end: until then their record is the one that they had. */
  readonly #standIns = new Map<Job, JobRecord>();
  /** Jobs that their users had paused, and that are not paused again yet. */
  readonly #paused = new Map<string, JobRecord>();

  constructor(init: RecoveryInit, record: JournalRecord) {
    this.#init = init;
    this.#objects = new Map(record.objects.map((one) => [one.id, one]));
    this.#nodes = new Map(record.nodes.map((one) => [one.options["node-name"], one]));
    this.#exports = new Map(record.exports.map((one) => [one.id, one]));
    this.#jobs = new Map(record.jobs.map((one) => [one.id, one]));
    this.#broken = [...record.broken];
    for (const { kind, name, why } of record.broken) this.#tell(kind, name, "broken", why);
  }

  get all(): readonly RecoveryInfo[] {
    return [...this.#told.values()];
  }

  get broken(): readonly BrokenEntry[] {
    return this.#broken;
  }

  /** The live ones, and those that have not come back; of one name the live one counts. */
  withObjects = (live: readonly ObjectRecord[]) => merged(live, this.#objects, ({ id }) => id);
  withNodes = (live: readonly NodeRecord[]) => merged(live, this.#nodes, nameOf);
  withExports = (live: readonly ExportRecord[]) => merged(live, this.#exports, ({ id }) => id);
  withJobs = (live: readonly JobRecord[]) => merged(live, this.#jobs, ({ id }) => id);

  /** The record of a job that only ends, or is just being started again: until then it is the old one. */
  recordOf(job: Job): JobRecord | undefined {
    if (job.status === "created" && job.id !== null) return this.#jobs.get(job.id);
    if (job.status === "concluded") return undefined;
    return this.#standIns.get(job) ?? this.#paused.get(job.id ?? "");
  }

  /** It concluded before the engine was lost, and is in the history. */
  hasConcluded(job: Job): boolean {
    return this.#standIns.get(job)?.status === "concluded";
  }

  /** Exports that are not there, and may come back. @param there what is, whoever has made it */
  awaitedExports(there: readonly string[]): readonly string[] {
    const kept = [...this.#exports.values()].filter(
      ({ id, "node-name": name }) =>
        !there.includes(id) && (this.#nodes.has(name) || this.#find(name)),
    );
    return [...this.#back, ...kept.map(({ id }) => id)];
  }

  /** Since when a job has been there, over all engines. */
  beganAt(id: string): JobRecord["began"] | undefined {
    return this.#jobs.get(id)?.began;
  }

  /** A job has come to its end. One that went on does so no more; how it has ended is in the history. */
  jobEnded(id: string): void {
    const told = this.#told.get(keyOf("job", id));
    if (told?.outcome === "continued") this.#tell("job", id, "ended", "It went on until then");
  }

  /** A job is about to run: if its user had paused it, it stands still first. */
  pauseAgain(job: Job): void {
    if (job.id !== null && this.#paused.delete(job.id)) job.userPause();
  }

  /** May be called again, for what could not be brought back. Never rejects but for a bug. */
  async run(): Promise<void> {
    for (const one of [...this.#objects.values()]) await this.#addObject(one);
    const tried = new Map(this.#nodes);
    await this.#openNodes();
    const ends: Job[] = [];
    await this.#holdingGuests(async () => {
      for (const one of [...this.#exports.values()]) await this.#addExport(one);
      for (const one of [...this.#jobs.values()]) ends.push(...(await this.#recoverJob(one)));
    });
    const told = this.#init.onExportsBack([...this.#back]);
    this.#back.clear();
    await told;
    await this.#closeUnused(tried);
    for (const job of ends) {
      await job.finished;
      if (job.status !== "concluded") this.#standIns.delete(job);
    }
  }

  /** Requests of guests who come meanwhile wait, and jobs that are started do not work yet. */
  async #holdingGuests(work: () => Promise<void>): Promise<void> {
    const { graph, clock } = this.#init.services;
    const exports = [...this.#exports.values()].map((one) => one["node-name"]);
    const names = [...exports, ...[...this.#jobs.values()].flatMap(namesIn)];
    const nodes = new Set(names.flatMap((name) => this.#find(name) ?? []));
    const hold = graph.hold([...nodes]);
    const timer = clock.setTimer(HOLD_MS, () => hold.end());
    try {
      await work();
    } finally {
      timer.cancel();
      hold.end();
    }
  }

  /** @throws BlockError ENOENT */
  dismiss(kind: RecoveryInfo["kind"], name: string): void {
    if (!this.#told.delete(keyOf(kind, name))) {
      throw new BlockError("ENOENT", `Recovery has nothing to tell of ${kind} '${name}'`);
    }
    if (kind === "object") this.#objects.delete(name);
    if (kind === "node") this.#nodes.delete(name);
    if (kind === "export") this.#exports.delete(name);
    if (kind === "job") this.#jobs.delete(name);
    this.#broken = this.#broken.filter((one) => one.kind !== kind || one.name !== name);
  }

  #tell(
    kind: RecoveryInfo["kind"],
    name: string,
    outcome: RecoveryInfo["outcome"],
    text: string,
  ): void {
    this.#told.set(keyOf(kind, name), { kind, name, outcome, text });
  }

  // Objects and exports

  async #addObject(record: ObjectRecord): Promise<void> {
    const { id } = record;
    if (record["qom-type"] === "secret" && !("file" in record)) {
      const { secrets } = this.#init.services.graph;
      if (secrets.has(id)) this.#objects.delete(id);
      const text = "what it held was not kept: give it again with object-add, then retry";
      this.#tell("object", id, secrets.has(id) ? "continued" : "kept", text);
      return;
    }
    const error = await failureOf(this.#init.execute("object-add", record));
    if (!error || error.errno === "EEXIST") this.#objects.delete(id);
    this.#tell("object", id, error ? "kept" : "continued", error?.message ?? "is there again");
  }

  async #addExport(record: ExportRecord): Promise<void> {
    const { id, "node-name": nodeName } = record;
    const missing = this.#nodes.has(nodeName) && !this.#find(nodeName);
    const error = missing
      ? new BlockError("ENOENT", `Node '${nodeName}' has not come back`)
      : await failureOf(this.#init.execute("block-export-add", record));
    if (!error) {
      this.#exports.delete(id);
      this.#back.add(id);
    }
    this.#tell("export", id, error ? "kept" : "continued", error?.message ?? "is there again");
  }

  // Nodes

  #find(name: string): BlockNode | undefined {
    return this.#init.services.graph.find(name);
  }

  /** All at once, each after those it stands on: a server that is away holds up what needs it. */
  async #openNodes(): Promise<void> {
    const opening = new Map<string, Promise<void>>();
    const open = (name: string, above: readonly string[]): Promise<void> => {
      const record = this.#nodes.get(name);
      if (above.includes(name)) throw new BlockError("EINVAL", `Node '${name}' stands on itself`);
      if (this.#find(name) || !record) return Promise.resolve();
      const known = opening.get(name);
      if (known) return known;
      const path = [...above, name];
      const opened = this.#openNode(record, (child) => open(child, path));
      opening.set(name, opened);
      return opened;
    };
    const names = [...this.#nodes.keys()];
    await Promise.all(names.map((name) => open(name, [])));
    this.#init.services.graph.listInOrder(names);
    for (const name of names) if (this.#find(name)) this.#nodes.delete(name);
  }

  async #openNode(record: NodeRecord, open: (child: string) => Promise<void>): Promise<void> {
    const { graph } = this.#init.services;
    const name = nameOf(record);
    try {
      const driver = graph.driver(record.options.driver);
      // All in this turn: that is how a circle is found.
      const children = childNames(record, driver).map((child) => ({ child, opened: open(child) }));
      for (const { opened } of children) await opened;
      if (driver.isVolatile) {
        this.#nodes.delete(name);
        this.#tell(
          "node",
          name,
          "lost",
          `what a node of driver '${driver.name}' holds is lost with its engine`,
        );
        return;
      }
      const missing = children.find(({ child }) => !this.#find(child));
      if (missing) throw new BlockError("ENOENT", `Node '${missing.child}' has not come back`);
      await graph.addAgain(record, this.#init.signal);
      this.#tell("node", name, "continued", "is open again");
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
      this.#tell("node", name, "kept", error.message);
    }
  }

  /**
   * Nodes that were there for their users only, and have none: what a job has left behind goes for good;
   * what is for a node that has not come back stays on record, to be opened again with that one.
   *
   * @param tried what was on record before
   */
  async #closeUnused(tried: ReadonlyMap<string, NodeRecord>): Promise<void> {
    const { graph } = this.#init.services;
    for (const name of tried.keys()) {
      const node = this.#find(name);
      const error = node && (await failureOf(graph.closeUnused(node)));
      if (error) this.#tell("node", name, "lost", error.message);
    }
    // A map that grows is walked to its end.
    for (const record of this.#nodes.values()) {
      const driver = graph.drivers.get(record.options.driver);
      for (const child of driver ? childNames(record, driver) : []) {
        const closed = tried.get(child);
        if (!closed || this.#find(child) || this.#nodes.has(child)) continue;
        this.#nodes.set(child, closed);
        this.#tell("node", child, "kept", `Node '${nameOf(record)}', which needs it, is not there`);
      }
    }
    for (const name of tried.keys()) {
      const { outcome } = this.#told.get(keyOf("node", name)) ?? {};
      const isGone = !this.#find(name) && !this.#nodes.has(name);
      if (outcome === "continued" && isGone) this.#told.delete(keyOf("node", name));
    }
  }

  // Jobs

  /** @returns the job, if it has only its end before it */
  async #recoverJob(record: JobRecord): Promise<Job[]> {
    const { services } = this.#init;
    const { id, status, error, type } = record;
    if (services.jobs.find(id)) return [];
    if (status === "created") {
      const why = "It never started: the engine was lost before";
      this.#init.onNeverStarted(record, why);
      return this.#gone(record, why);
    }
    if (status === "concluded" && record.autoDismiss) return this.#gone(record, "It had ended");
    if (status === "concluded") return this.#end(record, error && errorOf(error), "It had ended");
    if (status === "aborting") {
      const why = error ? errorOf(error) : new BlockError("ECANCELED", "Operation canceled");
      return this.#end(record, why, "It was being aborted");
    }
    if (record.hasTakenEffect) return this.#end(record, null, "Its work was done");
    if (!canStart(record)) {
      const why = `The engine was lost: ${WHY_ENDED[type] ?? "a job of this type cannot go on"}`;
      return this.#end(record, new BlockError("EIO", why), why);
    }
    return this.#start(record);
  }

  async #start(record: JobRecord): Promise<Job[]> {
    const { id } = record;
    try {
      checkStart(record);
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
      this.#jobs.delete(id);
      this.#broken.push({ kind: "job", name: id, why: error.message, entry: record });
      this.#tell("job", id, "broken", error.message);
      return [];
    }
    const missing = namesIn(record).find((name) => this.#nodes.has(name));
    if (missing !== undefined) {
      this.#tell("job", id, "kept", `Node '${missing}' has not come back`);
      return [];
    }
    if (record.paused) this.#paused.set(id, record);
    const wasReady = record.status === "ready" || record.status === "standby";
    const again = wasReady ? "It was ready, and will be again: complete it then" : "It went on";
    // Before it can have ended.
    this.#tell("job", id, "continued", again);
    try {
      this.pauseAgain(await startAgain(this.#init.services, record));
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
      this.#paused.delete(id);
      const told = error.prepend("The engine was lost, and the job cannot be started again");
      return this.#end(record, told, told.message);
    }
    this.#jobs.delete(id);
    return [];
  }

  #end(record: JobRecord, error: BlockError | null, text: string): Job[] {
    const job = startStandIn(this.#init.services, record, error);
    this.#standIns.set(job, record);
    this.#jobs.delete(record.id);
    this.#tell("job", record.id, "ended", text);
    return [job];
  }

  #gone(record: JobRecord, text: string): Job[] {
    this.#jobs.delete(record.id);
    this.#tell("job", record.id, "ended", text);
    return [];
  }
}

/** Why jobs that cannot be started again have failed, by type. */
const WHY_ENDED: Readonly<Record<string, string>> = {
  create: "the image may have been made in part. Make it again",
  amend: "the change may have been made or not. Ask for it again",
  "snapshot-save": "the snapshot may be there or not. Look at the list of snapshots",
  "snapshot-load": "the disks may have been reset or not, or some of them. Load the snapshot again",
  "snapshot-delete": "the snapshot may be gone or not. Delete it again",
};

async function failureOf(step: Promise<unknown>): Promise<BlockError | null> {
  try {
    await step;
    return null;
  } catch (error) {
    if (error instanceof BlockError) return error;
    throw error;
  }
}

function errorOf({ errno, desc }: { readonly errno: string; readonly desc: string }): BlockError {
  return new BlockError(errno as Errno, desc);
}

function nameOf({ options }: NodeRecord): string {
  return options["node-name"];
}

/** What starts a job again names its nodes, and other things. */
function namesIn({ again }: JobRecord): string[] {
  return Object.values(again ?? {}).filter((name) => typeof name === "string");
}

function keyOf(kind: string, name: string): string {
  return `${kind} ${name}`;
}

function merged<T>(
  live: readonly T[],
  left: ReadonlyMap<string, T>,
  keyOf: (one: T) => string,
): readonly T[] {
  const there = new Set(live.map(keyOf));
  return [...live, ...[...left].flatMap(([key, one]) => (there.has(key) ? [] : [one]))];
}
