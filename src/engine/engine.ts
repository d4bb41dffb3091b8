/**
 * The composition root: one graph, one list of jobs, one list of exports, and the clients of them.
 *
 *   monitors, data ports ──▶ commands ──▶ jobs ──▶ graph ──▶ drivers
 *            ◀────────────── events ──────┘
 *
 * It is also the outermost frame: a broken invariant anywhere below stops the engine. From then on
 * every client is told why, jobs are held at their next pause point, and nothing that is still in
 * memory is written, since nobody knows whether it is right: a disk is worth more than an uptime.
 * Its orderly ends are engine-end.ts.
 */

import type { Clock } from "../base/clock.ts";
import { BlockError } from "../base/errors.ts";
import { Mutex } from "../base/mutex.ts";
import type { Random } from "../base/random.ts";
import type { Trace } from "../base/trace.ts";
import type { HostZlib } from "../base/zlib.ts";
import type { BlockDriver } from "../block/driver.ts";
import { Graph } from "../block/graph.ts";
import type { BlockJobServices, Replacing } from "../blockjob/block-job.ts";
import type { BlockExportDriver } from "../export/driver.ts";
import { ExportList } from "../export/list.ts";
import { messagePort } from "../export/message-port.ts";
import { JobList } from "../job/list.ts";
import { loadKernel } from "../kernel/kernel.ts";
import { COMMANDS } from "../qmp/commands/index.ts";
import type { QmpServices } from "../qmp/context.ts";
import { hostTypes } from "../qmp/host-types.ts";
import { Monitor } from "../qmp/monitor.ts";
import { argumentSchema, type Command, findCommand, invoke } from "../qmp/schema.ts";
import { DataPort, type FileStore } from "./data-port.ts";
import { EngineEnd } from "./engine-end.ts";
import { EngineJournal } from "./journal/journal.ts";
import type { Outbox } from "./journal/outbox.ts";
import type { OpenedJournal } from "./journal/store.ts";
import { MonitorPort } from "./monitor-port.ts";
import type { MonitorOptions, Port } from "./protocol.ts";

export interface EngineOptions {
  readonly clock: Clock;
  readonly random: Random;
  /** Without it nothing can be watched. */
  readonly trace?: Trace;
  /** build/kernel.wasm, or what was compiled from it. */
  readonly kernelBytes: BufferSource | WebAssembly.Module;
  /** The host's own. */
  readonly zlib?: HostZlib;
  readonly drivers: Iterable<BlockDriver>;
  /** The map that the blob driver was given; clients put their Blobs there. */
  readonly blobs?: Map<string, Blob>;
  /** What this host has besides what a browser has, too: ways to export, */
  readonly exportDrivers?: Iterable<BlockExportDriver>;
  /** and commands, which have hold of what they work on. */
  readonly commands?: Iterable<Command>;
  /** Reads a file that a secret is in. @throws BlockError */
  readonly readSecretFile?: (filename: string) => Promise<Uint8Array>;
  /** Where images live that clients may list, fetch and delete. */
  readonly files?: FileStore;
  /** Where what there is outlives the engine: call recover() before anybody connects. */
  readonly journal?: OpenedJournal;
  /** The engine has stopped after an internal error. */
  readonly onStopped?: (why: BlockError) => void;
}

/** @throws BlockError ENOTSUP, ENOMEM if the kernel does not run on this machine */
export async function createEngine(options: EngineOptions): Promise<Engine> {
  const { clock, random, trace = {}, zlib } = options;
  const kernel = await loadKernel(options.kernelBytes);
  const intents = options.journal?.intents;
  const more = { ...(zlib && { zlib }), ...(intents && { intents }) };
  const world = { clock, random, kernel, trace, ...more };
  return new Engine(new Graph(world, options.drivers), options);
}

export class Engine {
  readonly graph: Graph;
  readonly jobs: JobList;
  readonly exports: ExportList;
  readonly clock: Clock;
  /** Of whoever keeps what guests write: src/engine/tabs/. */
  replacing: Replacing = async (work) => work();
  /** See there as well: what could not be brought back has been, or has been given up. */
  onRecovery: (exportsBack: readonly string[]) => Promise<void> = async () => {};
  /** The same: that an export is gone is on record; another one may get its name when this resolves. */
  onExportDeleted: (id: string) => Promise<void> = async () => {};
  /** Resolves when the engine has stopped after an internal error. */
  readonly whenStopped: Promise<BlockError>;
  #tellStopped: (why: BlockError) => void = () => {};
  readonly #services: QmpServices;
  readonly #blobs: Map<string, Blob>;
  readonly #files: FileStore | undefined;
  readonly #onStopped: (why: BlockError) => void;
  readonly #journal: EngineJournal | null;
  readonly #monitors = new Set<Monitor>();
  readonly #outboxes = new WeakMap<Monitor, Outbox>();
  /** Those of no client. */
  readonly #monitorPorts = new Set<MonitorPort>();
  readonly #dataPorts = new Set<DataPort>();
  readonly #closing = new AbortController();
  readonly #end: EngineEnd;
  #stopped: BlockError | null = null;
  /** Why no command is taken any more. */
  #refusal: BlockError | null = null;

  /** Use createEngine(). */
  constructor(graph: Graph, options: Omit<EngineOptions, "kernelBytes" | "drivers">) {
    this.graph = graph;
    this.clock = options.clock;
    this.#blobs = options.blobs ?? new Map();
    this.#files = options.files;
    this.#onStopped = options.onStopped ?? (() => {});
    this.whenStopped = new Promise((resolve) => {
      this.#tellStopped = resolve;
    });
    this.jobs = new JobList({
      onStatus: (data) => {
        this.#journal?.jobMoved(data.id, data.status);
        this.emit({ event: "JOB_STATUS_CHANGE", data });
      },
      ...(options.journal && {
        beforeRun: (job) => this.#journal!.beforeRun(job),
        beforeClean: () => this.#journal!.settled(),
      }),
      onBug: (bug) => this.stop(bug),
      trace: graph.world.trace,
    });
    this.exports = new ExportList({
      graph,
      drivers: [messagePort, ...(options.exportDrivers ?? [])],
      beforeFree: async (id) => {
        await this.settled();
        await this.onExportDeleted(id);
      },
      onDeleted: (id) => this.emit({ event: "BLOCK_EXPORT_DELETED", data: { id } }),
      onBug: (bug) => this.stop(bug),
    });
    const services: BlockJobServices & { readonly exports: ExportList } = {
      graph,
      jobs: this.jobs,
      exports: this.exports,
      clock: this.clock,
      emit: (event) => this.emit(event),
      replacing: (work) => this.replacing(work),
    };
    this.#journal = options.journal ? this.#openJournal(options.journal, services) : null;
    const more = [...(options.commands ?? []), ...(this.#journal?.commands ?? [])];
    this.#services = {
      ...services,
      commands: withMore(COMMANDS, more),
      types: hostTypes(graph.drivers.values(), this.exports),
      turns: new Mutex(),
      signal: this.#closing.signal,
      readSecretFile: options.readSecretFile,
    };
    this.#end = new EngineEnd({
      graph,
      jobs: this.jobs,
      exports: this.exports,
      clock: this.clock,
      journal: this.#journal,
      monitors: this.#monitors,
      closing: this.#closing,
      refuse: (why) => this.#refuse(why),
      hangUp: () => this.#hangUp(),
      checkNotStopped: () => this.#checkNotStopped(),
      unlessStopped: (work) => this.#unlessStopped(work),
    });
  }

  #openJournal(
    opened: OpenedJournal,
    services: BlockJobServices & { readonly exports: ExportList },
  ): EngineJournal {
    return new EngineJournal({
      opened,
      services,
      execute: (name, args) => this.#run(name, args),
      signal: this.#closing.signal,
      onRecovery: (back) => this.onRecovery(back),
      onFailed: (why) => this.#stop(why, "The engine has stopped as its journal cannot be kept"),
    });
  }

  /**
   * With a journal: brings back what the lost engine had (src/engine/journal/recover.ts). What cannot be
   * brought back is told by x-query-recovery, and keeps nothing else from coming back.
   *
   * @throws BlockError if the engine stops meanwhile
   */
  recover(): Promise<void> {
    return this.#unlessStopped(this.#services.turns.run(async () => this.#journal?.recover()));
  }

  /** Exports that recovery could not bring back yet. */
  get awaitedExports(): readonly string[] {
    return this.#journal?.awaitedExports ?? [];
  }

  /** Why the engine has stopped; null while it works. */
  get stopped(): BlockError | null {
    return this.#stopped;
  }

  /** Sends a QMP event, with the time, to all monitors that have negotiated. */
  emit({ event, data }: { readonly event: string; readonly data: object }): void {
    const message = { timestamp: this.clock.timestamp(), event, data };
    this.graph.world.trace.monitor_protocol_event_emit?.(event, JSON.stringify(data));
    for (const monitor of this.#monitors) monitor.sendEvent(message);
  }

  /** @throws BlockError EINVAL (CommandNotFound) */
  command(name: string): Command {
    return findCommand(this.#services.commands, name);
  }

  /** What a command takes, in this engine. @throws BlockError EINVAL (CommandNotFound) */
  argumentSchema(name: string): ReturnType<typeof argumentSchema> {
    return argumentSchema(this.command(name), this.#services.types);
  }

  /**
   * Runs a command that no monitor has sent: what the host itself was asked for.
   *
   * @throws BlockError what the command throws
   */
  async execute(name: string, args: object): Promise<unknown> {
    const result = await this.#run(name, args);
    await this.settled();
    return result;
  }

  /** Resolves when all that is now is on record, if there is one. @throws BlockError if the engine has stopped */
  async settled(): Promise<void> {
    await this.#journal?.settled();
  }

  #run(name: string, args: object): Promise<unknown> {
    const context = { ...this.#services, session: { negotiated: true, oob: false } };
    return invoke(this.command(name), context, args);
  }

  /**
   * A QMP connection.
   *
   * @param send takes greeting, replies and events, which it must not change
   * @param onReady see MonitorInit: given by whoever can hold input back
   */
  openMonitor(send: (message: object) => void, onReady?: () => void): Monitor {
    const outbox = this.#journal?.openOutbox(send);
    const monitor = new Monitor({
      services: this.#services,
      send: outbox ? (message) => outbox.send(message) : send,
      onBug: (bug) => this.stop(bug),
      ...(onReady && { onReady }),
      ...(this.#journal && { requests: this.#journal.requests }),
    });
    if (outbox) this.#outboxes.set(monitor, outbox);
    this.#monitors.add(monitor);
    if (this.#refusal) monitor.stop(this.#refusal);
    return monitor;
  }

  /** Resolves when no reply and no event waits for the record that waits now, or the engine has stopped. */
  async told(): Promise<void> {
    await this.#journal?.told();
  }

  closeMonitor(monitor: Monitor): void {
    monitor.close();
    const outbox = this.#outboxes.get(monitor);
    if (outbox) this.#journal?.closeOutbox(outbox);
    // Until then close() has to wait for its command.
    monitor.idle().then(() => this.#monitors.delete(monitor));
  }

  /** A QMP connection on a port; it ends with the other end of the port. */
  serveMonitor(port: Port, options: MonitorOptions = {}): void {
    const served = this.#openMonitorPort(port, options, () => this.#monitorPorts.delete(served));
    this.#monitorPorts.add(served);
  }

  #openMonitorPort(port: Port, options: MonitorOptions, onClose: () => void): MonitorPort {
    const served: MonitorPort = new MonitorPort({
      port,
      options,
      open: (send) => this.openMonitor(send),
      onClose: () => {
        this.closeMonitor(served.monitor);
        onClose();
      },
    });
    return served;
  }

  /** A client on two ports: QMP, and the data that QMP cannot carry (protocol.ts). */
  connect(ports: { readonly qmp: Port; readonly data: Port }): void {
    const { qmp, data } = ports;
    const monitorPort = this.#openMonitorPort(qmp, {}, () => {});
    const dataPort: DataPort = new DataPort({
      port: data,
      exports: this.exports,
      blobs: this.#blobs,
      files: this.#files,
      isFileOpen: (filename) => this.#isFileOpen(filename),
      openMonitor: (port, options) => this.serveMonitor(port, options),
      shutdown: () => this.close(),
      onBug: (bug) => this.stop(bug),
      onDisconnect: () => {
        this.#dataPorts.delete(dataPort);
        monitorPort.close();
        this.closeMonitor(monitorPort.monitor);
      },
    });
    this.#dataPorts.add(dataPort);
    if (this.#stopped) dataPort.stop(this.#stopped);
  }

  /**
   * The end after an internal error: see the file's head. The first error counts.
   *
   * @param bug what was thrown, anything
   */
  stop(bug: unknown): void {
    this.#stop(bug, "The engine has stopped after an internal error");
  }

  #stop(cause: unknown, what: string): void {
    if (this.#stopped) return;
    const text = cause instanceof Error ? cause.message : String(cause);
    const why = new BlockError("EIO", `${what}: ${text}`, { cause });
    this.#stopped = why;
    this.#refusal = why;
    this.#journal?.stop(why);
    for (const job of this.jobs.all()) job.pause();
    for (const monitor of this.#monitors) monitor.stop(why);
    for (const dataPort of this.#dataPorts) dataPort.stop(why);
    this.#tellStopped(why);
    this.#onStopped(why);
  }

  /** See EngineEnd.close(). */
  close(): Promise<void> {
    return this.#end.close();
  }

  /** See EngineEnd.suspend(). */
  suspend(): Promise<void> {
    return this.#end.suspend();
  }

  /** Nobody is served any more. */
  #hangUp(): void {
    for (const monitor of this.#monitors) monitor.close();
    for (const port of this.#monitorPorts) port.hangUp();
    this.#monitorPorts.clear();
    const closed = new BlockError("ENOMEDIUM", "The engine has been closed");
    for (const port of this.#dataPorts) port.engineClosed(closed);
  }

  #refuse(why: BlockError): void {
    this.#refusal = why;
    for (const monitor of this.#monitors) monitor.stop(why);
  }

  /** What an engine waits for that has stopped may never come. @throws BlockError why it has */
  #unlessStopped<T>(work: Promise<T>): Promise<T> {
    const stopped = this.whenStopped.then((why) => Promise.reject(why));
    return Promise.race([work, stopped]);
  }

  /** What has been left when the engine stopped must go no further. @throws BlockError */
  #checkNotStopped(): void {
    if (this.#stopped) throw this.#stopped;
  }

  #isFileOpen(filename: string): boolean {
    return this.graph.nodes.some(
      ({ driver, state }) =>
        driver.name === this.#files?.driver && state.info?.().filename === filename,
    );
  }
}

function withMore(
  table: ReadonlyMap<string, Command>,
  more: Iterable<Command>,
): ReadonlyMap<string, Command> {
  return new Map([...table, ...[...more].map((one) => [one.name, one] as const)]);
}
