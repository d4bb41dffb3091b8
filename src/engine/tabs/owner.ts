/**
 * One reign: from the grant of the lock until it is given back.
 *
 *   opening ── everybody who is there says hello, or time is up ──▶ the realm is opened ──▶ what was
 *   written and not flushed is written again, in its old order, and flushed ──▶ serving ──▶ leaving
 *
 * Only then anybody is served: nothing new can come before what is old.
 */

import { sleep } from "../../base/clock.ts";
import { BlockError, ignoreCanceled, throwIfAborted } from "../../base/errors.ts";
import { errorData } from "../data-port.ts";
import type { Port } from "../protocol.ts";
import { Gathering } from "./gathering.ts";
import type { Channel, TabHost } from "./host.ts";
import type { KeptWrite } from "./kept-writes.ts";
import {
  CLIENT_LOCK,
  type ConnectRequest,
  type FlushRequest,
  type FromDesk,
  type Hello,
  type LobbyMessage,
  type OwnerNotice,
  PIPE,
  type ToDesk,
  type Welcome,
} from "./lobby.ts";
import { OrderedPort } from "./ordered-port.ts";
import { Pipe } from "./pipe.ts";
import type { OpenRealm, Realm } from "./realm.ts";
import { hasClosed, type Reign } from "./reign.ts";
import { ALL, type Run } from "./runs.ts";
import { WriteAgain } from "./write-again.ts";
import { WriteOrder } from "./write-order.ts";

/** A hidden tab that nobody looks at for so long gives the disks to one that somebody looks at. */
const HIDDEN_MS = 60_000;
/** Until all have heard who should come next, and stand back. */
const HEARD_MS = 50;

/** A client, until its lock is free. */
interface Guest {
  readonly ports: Set<{ close(): void }>;
  readonly gone: AbortController;
}

export interface OwnerInit {
  readonly host: TabHost;
  readonly worker: string;
  readonly reign: Reign;
  readonly lobby: Channel;
  readonly open: OpenRealm;
  /** Raised to give the disks back. */
  readonly leave: AbortSignal;
}

export class Owner {
  readonly #init: OwnerInit;
  readonly #order = new WriteOrder();
  readonly #guests = new Map<string, Guest>();
  readonly #pipes = new Map<string, Pipe>();
  readonly #blobs = new Map<string, Blob>();
  /** Of what clients want written again; null once it is too late. */
  #gathering: Gathering | null;
  /** Those who wait for the welcome. */
  readonly #waiting = new Map<string, { readonly desk: Port; readonly lost: readonly string[] }>();
  #realm: Realm | null = null;
  #again: WriteAgain | null = null;
  #notice: OwnerNotice;
  #hiddenSinceMs: number | null = null;
  #onPlease: (worker: string) => void = () => {};
  #onFailure: (why: BlockError) => void = () => {};
  /** That what was written under this one may be overtaken is on record, or will be. */
  #overtaken: Promise<void> | null = null;

  constructor(init: OwnerInit) {
    this.#init = init;
    this.#gathering = new Gathering(init.host);
    this.#notice = {
      type: "owner",
      epoch: init.reign.epoch,
      worker: init.worker,
      state: "opening",
      text: "Another tab is taking over",
      sinceSeconds: init.host.clock.timestamp().seconds,
    };
  }

  get notice(): OwnerNotice {
    return this.#notice;
  }

  /** @throws BlockError if the disks could not be opened or closed, or what serves them has stopped */
  async rule(): Promise<void> {
    const { leave, open, host, reign } = this.#init;
    this.#announce({});
    try {
      const kept = await this.#gathering!.over(leave);
      this.#gathering = null;
      throwIfAborted(leave);
      const opening = {
        epoch: reign.epoch,
        blobs: this.#blobs,
        signal: leave,
        tell: (text: string) => this.#announce({ text }),
        onExportDeleted: (id: string) => this.#forgetWrites(id),
        onRecovery: async (back: readonly string[]) => this.#again?.recovered(back),
        replacing: (work: () => Promise<void>) => this.#replacing(work),
      };
      this.#realm = await open(opening);
      const stopped = this.#realm.stopped.then((why) => Promise.reject(why));
      this.#again = new WriteAgain(this.#realm.disks, (id, isLost) => this.#released(id, isLost));
      if (kept.length > 0) this.#announce({ text: "Writing again what had not been flushed" });
      const lost = await Promise.race([this.#again.begin(kept, reign.served), stopped]);
      await host.epochs.serve(reign.epoch);
      this.#serve(lost);
      await Promise.race([this.#untilAskedToLeave(leave), this.#untilFailure(), stopped]);
    } catch (error) {
      if (error instanceof BlockError && !leave.aborted) {
        this.#announce({ state: "failed", text: error.message });
      }
      throw error;
    } finally {
      await this.#end();
    }
  }

  /** Which worker should have the disks next, if one has asked and been heard. */
  next: string | undefined;

  hear(message: LobbyMessage): void {
    if (message.type === "who") this.#init.lobby.post(this.#notice);
    else if (message.type === "ping") this.#pong();
    else if (message.type === "please") this.#onPlease(message.worker);
    else if (message.type === "connect") this.#pickUp(message);
  }

  /** A page of this tab is looked at, or not. */
  setHidden(isHidden: boolean): void {
    if (!isHidden) this.#hiddenSinceMs = null;
    else this.#hiddenSinceMs ??= this.#init.host.clock.now();
  }

  /** Ports of a page in this very tab. */
  accept(client: string, service: string, ports: readonly Port[]): void {
    if (this.#notice.state === "leaving") return;
    this.#join(client, ports);
    if (service === "desk") this.#openDesk(client, ports[0]!);
    else if (service === "engine") this.#openEngine(client, ports[0]!, ports[1]!);
    else this.#realm?.services.get(service)?.(...ports);
  }

  #pong(): void {
    this.#init.lobby.post({ type: "pong", epoch: this.#init.reign.epoch } satisfies LobbyMessage);
  }

  #announce(more: Partial<OwnerNotice>): void {
    this.#notice = { ...this.#notice, ...more };
    this.#init.lobby.post(this.#notice);
  }

  #pickUp({ epoch, client, service, pipes }: ConnectRequest): void {
    if (epoch !== this.#init.reign.epoch || this.#notice.state === "leaving") return;
    const known = pipes.map((id) => this.#pipes.get(id)).filter((pipe) => pipe !== undefined);
    // It asks again because it has not heard of it yet.
    for (const pipe of known) pipe.pickUp();
    if (known.length > 0) return;
    const ports = pipes.map((id) => {
      const pipe = new Pipe(this.#init.host.openChannel(PIPE + id), true);
      this.#pipes.set(id, pipe);
      return pipe;
    });
    this.accept(client, service, ports);
  }

  #join(client: string, ports: readonly Port[]): void {
    const guest = this.#guests.get(client) ?? this.#watch(client);
    for (const port of ports) guest.ports.add(port);
  }

  /** The lock of a client is free once it is gone, however it went. */
  #watch(client: string): Guest {
    const guest: Guest = { ports: new Set(), gone: new AbortController() };
    this.#guests.set(client, guest);
    const { locks } = this.#init.host;
    const forget = async () => this.#forget(client, guest);
    locks.hold(CLIENT_LOCK + client, forget, guest.gone.signal).catch(ignoreCanceled);
    return guest;
  }

  #forget(client: string, guest: Guest): void {
    this.#guests.delete(client);
    this.#waiting.delete(client);
    for (const [id, pipe] of this.#pipes) if (guest.ports.has(pipe)) this.#pipes.delete(id);
    for (const port of guest.ports) {
      if (port instanceof Pipe) port.lost();
      else port.close();
    }
  }

  #openDesk(client: string, desk: Port): void {
    desk.onmessage = ({ data }) => {
      const message = data as ToDesk;
      if (message.type === "hello") this.#hello(client, desk, message);
      else void this.#flushAtDesk(desk, message);
    };
  }

  #hello(client: string, desk: Port, { epoch, wasAway, own, kept, blobs }: Hello): void {
    for (const [name, blob] of blobs) if (!this.#blobs.has(name)) this.#blobs.set(name, blob);
    const { reign } = this.#init;
    // Of an owner that did nothing for others there was nothing to be heard but of its own writes.
    const hasHeard = !wasAway || reign.overtaken < own;
    const isInTime = this.#gathering !== null && epoch === reign.served && hasHeard;
    // Of what that owner held, as it could not open the disk, it has made nothing last.
    const left = hasClosed(reign, epoch) ? kept.filter((write) => write.epoch !== epoch) : kept;
    this.#gathering?.add(client, isInTime ? left : []);
    const exports = isInTime ? [] : [...new Set(left.map((write) => write.export))];
    if (this.#notice.state !== "serving") this.#waiting.set(client, { desk, lost: exports });
    else if (epoch !== reign.epoch) void this.#letIn(desk, () => exports);
    else void this.#welcomeBack(desk, kept);
  }

  /** It was away, and has not heard what was flushed meanwhile. */
  async #welcomeBack(desk: Port, kept: readonly KeptWrite[]): Promise<void> {
    const { epoch } = this.#init.reign;
    const isOwn = (write: KeptWrite) => write.epoch === epoch;
    const lost = new Set(kept.filter((write) => !isOwn(write)).map((write) => write.export));
    for (const id of lost) if (!this.#again!.lost.has(id)) lost.delete(id);
    for (const id of new Set(kept.filter(isOwn).map((write) => write.export))) {
      try {
        await this.#flush(id);
      } catch (error) {
        if (!(error instanceof BlockError)) throw error;
        lost.add(id);
      }
    }
    this.#welcome(desk, lost);
  }

  /** A page of another tab: that others may write is on record first. @param lost as of the moment when it is */
  async #letIn(desk: Port, lost: () => Iterable<string>): Promise<void> {
    try {
      if (desk instanceof Pipe) await this.#overtake();
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
      return this.#onFailure(error);
    }
    this.#welcome(desk, lost());
  }

  /** @throws BlockError */
  async #overtake(): Promise<void> {
    const { host, reign } = this.#init;
    this.#overtaken ??= host.epochs.overtake(reign.epoch);
    try {
      await this.#overtaken;
    } catch (error) {
      this.#overtaken = null;
      throw error;
    }
  }

  #welcome(desk: Port, lost: Iterable<string>): void {
    const { remembers, disks } = this.#realm!;
    const held = disks.awaited();
    desk.postMessage({ type: "welcome", lost: [...lost], held, remembers } satisfies Welcome, []);
  }

  #serve(lostAgain: ReadonlySet<string>): void {
    this.#announce({ state: "serving", text: "" });
    for (const { desk, lost } of this.#waiting.values())
      void this.#letIn(desk, () => [...lost, ...lostAgain, ...this.#again!.lost]);
    this.#waiting.clear();
  }

  #openEngine(client: string, qmp: Port, data: Port): void {
    if (!this.#realm) return;
    const ordered = new OrderedPort({
      port: data,
      order: this.#order,
      again: this.#again!,
      flushOthers: (exportId) => this.#flushOthers(exportId),
      onDurable: (exports, writes, id) => this.#tellDurable(exports, writes, { client, id }),
      errorData,
    });
    this.#guests.get(client)?.ports.add(ordered);
    this.#realm.services.get("engine")!(qmp, ordered);
  }

  async #flushOthers(exportId: string): Promise<readonly string[]> {
    const { disks } = this.#realm!;
    const exports = disks.sharing(exportId);
    for (const other of exports) if (other !== exportId) await disks.writable(other).flush();
    return exports;
  }

  /** As a write to all bytes there are: all earlier ones are over and durable, and all later ones wait. */
  async #replacing(work: () => Promise<void>): Promise<void> {
    const { order, ready } = this.#order.enter(0, Number.POSITIVE_INFINITY);
    try {
      await ready;
      await this.#overtake();
      for (const id of this.#realm?.disks.all() ?? []) await this.#flush(id);
      await work();
    } finally {
      this.#order.leave(order);
    }
  }

  /** Nobody needs to keep any longer what has been written to it until now. */
  async #flush(exportId: string): Promise<void> {
    const writes = this.#order.over;
    const exports = await this.#flushOthers(exportId);
    await this.#realm!.disks.writable(exportId).flush();
    this.#tellDurable(exports, writes);
  }

  async #flushAtDesk(desk: Port, { n, exports }: FlushRequest): Promise<void> {
    try {
      for (const id of exports) await this.#flush(id);
      desk.postMessage({ type: "flushed", n } satisfies FromDesk, []);
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
      desk.postMessage({ type: "flushed", n, error: errorData(error) } satisfies FromDesk, []);
    }
  }

  #released(exportId: string, isLost: boolean): void {
    const { epoch } = this.#init.reign;
    const notice: LobbyMessage = { type: "released", epoch, export: exportId, isLost };
    this.#init.lobby.post(notice);
  }

  #tellDurable(
    exports: readonly string[] | null,
    writes: readonly Run[],
    reply?: { readonly client: string; readonly id: number },
  ): void {
    const { epoch } = this.#init.reign;
    const told = { epoch, exports, writes, ...(reply && { reply }) };
    this.#init.lobby.post({ type: "durable", ...told } satisfies LobbyMessage);
  }

  /** Writes to an export that is gone are nobody's, and not for another one that gets its name. */
  async #forgetWrites(exportId: string): Promise<void> {
    // What goes in the end is there again with the next owner.
    if (this.#notice.state !== "serving") return;
    await this.#overtake();
    this.#tellDurable([exportId], [[1, this.#order.last]]);
  }

  #untilAskedToLeave(leave: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const { clock } = this.#init.host;
      if (leave.aborted) resolve();
      leave.addEventListener("abort", () => resolve(), { once: true });
      this.#onPlease = (worker) => {
        const since = this.#hiddenSinceMs;
        if (since === null || clock.now() - since < HIDDEN_MS || !this.#realm?.remembers) return;
        this.next = worker;
        resolve();
      };
    });
  }

  /** @throws BlockError */
  #untilFailure(): Promise<never> {
    return new Promise((_, reject) => {
      this.#onFailure = reject;
    });
  }

  /** Nobody is answered any more: what is under way is asked of the next owner. */
  async #end(): Promise<void> {
    const { next } = this;
    this.#announce({
      ...(this.#notice.state !== "failed" && { state: "leaving", text: "The disks change hands" }),
      ...(next !== undefined && { to: next }),
    });
    for (const [client, guest] of [...this.#guests]) {
      guest.gone.abort();
      this.#forget(client, guest);
    }
    if (next !== undefined) await sleep(this.#init.host.clock, HEARD_MS);
    if (!this.#realm) return;
    await this.#realm.close();
    await this.#init.host.epochs.close(this.#init.reign.epoch);
    this.#tellDurable(null, ALL);
  }
}
