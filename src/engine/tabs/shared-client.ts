/**
 * The engine as a page sees it that shares it with other tabs: the same commands, events and devices as
 * Client, whichever tab has the disks at the moment.
 *
 *   no owner ──▶ opening ──▶ serving ──▶ (leaving, or lost) ──▶ opening …
 *                   └──▶ failed: the next tab tries, then this one again
 *
 * Nothing fails because the disks change hands, but commands that nobody can tell the outcome of
 * (shared-qmp.ts) and flushes after a loss (shared-data.ts). Whatever waits, waits for an owner; the
 * state says for what, in words.
 */

import type { Timer } from "../../base/clock.ts";
import type { JobStatus } from "../../job/status.ts";
import type { CommandName, ReturnOf } from "../../qmp/commands/index.ts";
import type { EventName } from "../../qmp/events.ts";
import type { Client } from "../client.ts";
import { DataCalls } from "../data-calls.ts";
import type { EventQueue } from "../event-queue.ts";
import type { MonitorOptions, Port } from "../protocol.ts";
import { type ArgumentList, type EventOf, type LogEntry, QmpClient } from "../qmp-client.ts";
import { clientError } from "../qmp-error.ts";
import type { JobOutcome } from "../wait-for-job.ts";
import { type Channel, newId, type TabHost } from "./host.ts";
import { KEPT_BYTES_ENOUGH } from "./kept-writes.ts";
import {
  CLIENT_LOCK,
  type DurableNotice,
  type FromDesk,
  LOBBY,
  type LobbyMessage,
  type OwnerNotice,
  type ReleasedNotice,
  type ToDesk,
} from "./lobby.ts";
import { OwnerLine, type TabWorker } from "./owner-line.ts";
import { SharedData } from "./shared-data.ts";
import { SharedTransport } from "./shared-qmp.ts";
import { waitThroughHandOvers } from "./shared-wait.ts";
import { type SharedState, Watch } from "./watch.ts";

/** How often a tab that somebody looks at asks for the disks: their owner may have become one that nobody does. */
const PLEASE_MS = 10_000;

export interface SharedClientInit {
  readonly host: TabHost;
  /** Makes this tab's candidate; null: this tab never owns the disks. */
  readonly spawn: (() => TabWorker) | null;
  readonly log?: ((entry: LogEntry) => void) | undefined;
}

/** What a page may rely on, shared or not. */
export type SharedApi = Pick<
  Client,
  | "log"
  | "execute"
  | "events"
  | "openMonitor"
  | "waitForJob"
  | "openDevice"
  | "addBlob"
  | "removeBlob"
  | "listFiles"
  | "getFile"
  | "removeFile"
  | "close"
>;

export class SharedClient extends DataCalls implements SharedApi {
  readonly id: string;
  readonly #init: SharedClientInit;
  readonly #transport: SharedTransport;
  readonly #qmp: QmpClient;
  protected readonly data = new SharedData();
  readonly #watch: Watch;
  #lobby: Channel | null = null;
  #worker: TabWorker | null = null;
  #line: OwnerLine | null = null;
  #desk: Port | null = null;
  #isWelcome = false;
  /** It may have missed word of what was flushed: only the owner that it knows can tell of that. */
  #wasAway = false;
  /** While it was away: see Hello. */
  #own = 0;
  #letGoOfLock: (() => void) | null = null;
  #flushCount = 0;
  /** The flush at the desk that is under way. */
  #flushing: number | null = null;
  #isHidden = false;
  #please: Timer | null = null;
  #isClosed = false;

  /** Use connectShared(). */
  constructor(init: SharedClientInit) {
    super();
    this.#init = init;
    this.id = newId(init.host.random);
    this.#transport = new SharedTransport(this.id);
    this.#qmp = new QmpClient(this.#transport, init.log ?? null);
    this.#watch = new Watch(init.host.clock, {
      isWaiting: () => this.#transport.isWaiting || this.data.isWaiting || !this.#isWelcome,
      ask: (message) => this.#lobby?.post(message),
    });
    this.data.onKept = () => this.#flushEnough();
  }

  get log(): ((entry: LogEntry) => void) | null {
    return this.#qmp.log;
  }

  set log(log: ((entry: LogEntry) => void) | null) {
    this.#qmp.log = log;
  }

  /** Who has the disks, and what is waited for. */
  get state(): SharedState {
    return this.#watch.state;
  }

  /** Told of each change of the state. After "serving" with another epoch a page looks at everything anew. */
  set onState(listener: (state: SharedState) => void) {
    this.#watch.onState = listener;
  }

  /** Comes in, and waits until some tab serves. @throws QmpError ECANCELED if the signal is raised */
  async start(signal?: AbortSignal): Promise<void> {
    await this.resume();
    try {
      await this.#qmp.negotiate(signal);
    } catch (error) {
      await this.close();
      throw error;
    }
  }

  execute<Name extends CommandName>(
    name: Name,
    ...args: ArgumentList<Name>
  ): Promise<ReturnOf<Name>> {
    return this.#qmp.execute(name, ...args);
  }

  /** While the disks change hands events may be missed: see onState. */
  events<Name extends EventName = EventName>(...names: readonly Name[]): EventQueue<EventOf<Name>> {
    return this.#qmp.events(...names);
  }

  waitForJob(id: string, status: JobStatus, signal?: AbortSignal): Promise<JobOutcome> {
    return waitThroughHandOvers(this.#qmp, this.#watch, id, status, signal);
  }

  /**
   * One more monitor, of the owner that there is: it ends with it.
   *
   * @throws QmpError EBUSY while nobody serves
   */
  async openMonitor({ text = false }: MonitorOptions = {}): Promise<MessagePort> {
    if (!this.#line || !this.#isWelcome) throw clientError("EBUSY", this.state.text);
    const [far] = this.#line.dial(text ? "text-monitor" : "monitor", 1);
    const { port1, port2 } = new MessageChannel();
    far!.onmessage = ({ data }) => port2.postMessage(data);
    far!.addEventListener("close", () => port2.postMessage(null));
    port2.onmessage = ({ data }) => far!.postMessage(data, []);
    return port1;
  }

  /** A port to one more service of the owner that there is, and ends with it; null while nobody serves. */
  dial(service: string): Port | null {
    return this.#isWelcome ? this.#line!.dial(service, 1)[0]! : null;
  }

  /** Told whenever an owner has let this client in. @returns stops telling */
  onHandOver(listener: () => void): () => void {
    return this.#watch.onHandOver(listener);
  }

  /** Has the owner flush what this client keeps: before a tab is hidden, frozen or left. */
  flushKept(): void {
    const { exports } = this.data.kept;
    if (!this.#isWelcome || this.#flushing !== null || exports.length === 0) return;
    this.#flushing = ++this.#flushCount;
    const flush: ToDesk = { type: "flush", n: this.#flushing, exports };
    this.#desk!.postMessage(flush, []);
  }

  /** A person looks at the page, or does not. */
  setHidden(isHidden: boolean): void {
    this.#isHidden = isHidden;
    this.#worker?.setHidden(isHidden);
    this.#flushEnough();
    this.#askForDisks();
  }

  /** The worker has time to bring things to rest, a little. */
  hurry(): void {
    this.flushKept();
    void this.#worker?.leave();
  }

  /** The page stops: nothing is held any more, so that nobody waits for it. */
  suspend(): void {
    this.flushKept();
    // It may have been told of something already that it has not heard.
    if (!this.#wasAway) this.#own = this.#line?.isOwn ? this.#line.epoch : 0;
    this.#wasAway = true;
    this.#hangUp();
    this.#worker?.terminate();
    this.#worker = null;
    this.#lobby?.close();
    this.#lobby = null;
    this.#watch.stop();
    this.#please?.cancel();
    this.#letGoOfLock?.();
    this.#letGoOfLock = null;
  }

  /** The page goes on: with whoever has the disks now. */
  async resume(): Promise<void> {
    if (this.#lobby || this.#isClosed) return;
    const { host, spawn } = this.#init;
    const lobby = host.openChannel(LOBBY);
    this.#lobby = lobby;
    await new Promise<void>((resolve, reject) => {
      const held = () =>
        new Promise<void>((letGo) => {
          this.#letGoOfLock = letGo;
          resolve();
        });
      host.locks.hold(CLIENT_LOCK + this.id, held).catch(reject);
    });
    // Another end may have come meanwhile.
    if (this.#lobby !== lobby) return this.#letGoOfLock?.();
    lobby.onmessage = (message) => this.#hear(message as LobbyMessage);
    this.#watch.start();
    if (spawn) this.#startWorker(spawn);
    lobby.post({ type: "who" } satisfies LobbyMessage);
    this.#askForDisks();
  }

  /** Says good-bye. If this tab has the disks, the next one gets them in good order. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#qmp.close();
    this.data.leave();
    this.data.fail(clientError("ENOMEDIUM", "The client has been closed"));
    try {
      await this.#worker?.leave();
    } finally {
      this.suspend();
    }
  }

  #startWorker(spawn: () => TabWorker): void {
    const worker = spawn();
    worker.setHidden(this.#isHidden);
    // Out of memory, say: the next worker waits for its turn as all do.
    worker.onlost = () => {
      if (this.#lobby) this.#startWorker(spawn);
    };
    this.#worker = worker;
  }

  /** As long as somebody looks at this tab. */
  #askForDisks(): void {
    this.#please?.cancel();
    if (this.#isHidden || !this.#lobby || !this.#worker) return;
    const please: LobbyMessage = { type: "please", worker: this.#worker.id };
    if (this.state.role === "guest") this.#lobby.post(please);
    this.#please = this.#init.host.clock.setTimer(PLEASE_MS, () => this.#askForDisks());
  }

  /** A tab that nobody looks at may be frozen at any moment, and keeps nothing that it need not. */
  #flushEnough(): void {
    const enough = this.#isHidden ? 1 : KEPT_BYTES_ENOUGH;
    if (this.data.kept.bytes >= enough) this.flushKept();
  }

  #hear(message: LobbyMessage): void {
    if (message.type === "owner") this.#hearOwner(message);
    else if (message.type === "durable") this.#hearDurable(message);
    else if (message.type === "released") this.#hearReleased(message);
    else if (message.type === "pong") this.#watch.heard(message.epoch);
  }

  #hearDurable(notice: DurableNotice): void {
    if (notice.epoch === this.data.epoch) this.data.durable(notice, this.id);
  }

  #hearReleased(notice: ReleasedNotice): void {
    this.data.released(notice);
    if (this.#isWelcome && notice.epoch === this.data.epoch) this.#watch.holds(this.data.held);
  }

  #hearOwner(notice: OwnerNotice): void {
    if (notice.epoch < this.#watch.state.epoch) return;
    const isOver = notice.state === "leaving" || notice.state === "failed";
    if (isOver || notice.epoch !== this.#line?.epoch) this.#hangUp();
    this.#watch.owner(notice, notice.worker === this.#worker?.id, this.#isWelcome);
    if (!isOver && !this.#line) this.#callDesk(notice);
  }

  #hangUp(): void {
    this.#isWelcome = false;
    this.#flushing = null;
    this.#transport.disconnect();
    this.data.disconnect();
    this.#line?.hangUp();
    this.#line = null;
    this.#desk = null;
  }

  #callDesk({ epoch, worker }: OwnerNotice): void {
    const { host } = this.#init;
    const own = this.#worker?.id === worker ? this.#worker : null;
    this.#line = new OwnerLine({ host, lobby: this.#lobby!, client: this.id, epoch, own });
    const [desk] = this.#line.dial("desk", 1);
    this.#desk = desk!;
    this.#desk.onmessage = ({ data }) => this.#hearDesk(data as FromDesk, epoch);
    const kept = this.data.kept.all;
    const blobs = [...this.data.blobs];
    const known = { epoch: this.data.epoch, wasAway: this.#wasAway, own: this.#own };
    const hello: ToDesk = { type: "hello", ...known, kept, blobs };
    this.#desk.postMessage(hello, []);
  }

  #hearDesk(message: FromDesk, epoch: number): void {
    if (message.type === "flushed") return this.#flushed(message);
    this.data.welcome(message, epoch);
    this.#isWelcome = true;
    this.#wasAway = false;
    const [qmp, data] = this.#line!.dial("engine", 2);
    this.#transport.connect(qmp!, message.remembers);
    this.data.connect(data!);
    this.#watch.welcome(this.data.held);
  }

  #flushed({ n, error }: Extract<FromDesk, { type: "flushed" }>): void {
    if (n !== this.#flushing) return;
    this.#flushing = null;
    // Holding writes back would not help: the next flush of the guest tells it.
    if (error) this.data.giveUpKept();
    // More may have come meanwhile than the next write waits for.
    else this.#flushEnough();
  }
}
