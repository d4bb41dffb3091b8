/**
 * What a page can say about whoever has the disks, and whether he still answers. A frozen tab keeps its
 * locks: that it is silent is all that can be seen of it, and said honestly.
 */

import type { Clock, Timer } from "../../base/clock.ts";
import type { LobbyMessage, OwnerNotice } from "./lobby.ts";

/** How often one looks while something waits. */
const LOOK_MS = 1000;
/** An owner who has not been heard for so long is asked; and after so long one says that it is silent. */
const ASK_MS = 2000;
const SILENT_MS = 6000;

export interface SharedState {
  readonly phase: "waiting" | "opening" | "serving" | "failed" | "silent";
  /** owner: this tab has the disks. */
  readonly role: "owner" | "guest";
  /** Of the last owner that was heard of. */
  readonly epoch: number;
  /** The worker that has the disks, and wall time since when; null while nobody is known. */
  readonly owner: { readonly worker: string; readonly sinceSeconds: number } | null;
  /** For people; empty while all is well. A disk that cannot be opened is told of while somebody serves, too. */
  readonly text: string;
}

const WAITING: SharedState = {
  phase: "waiting",
  role: "guest",
  epoch: 0,
  owner: null,
  text: "Looking for the tab that has the disks",
};
const SILENT =
  "The tab that has the disks does not answer. The browser may have put it to sleep: " +
  "look at that tab once, or close it, and this one goes on";

export interface WatchInit {
  readonly isWaiting: () => boolean;
  readonly ask: (message: LobbyMessage) => void;
}

export class Watch {
  onState: (state: SharedState) => void = () => {};
  readonly #clock: Clock;
  readonly #init: WatchInit;
  readonly #changed = new Set<() => void>();
  #state = WAITING;
  /** What it is to be again once the owner is heard. */
  #before: SharedState | null = null;
  #heardMs = 0;
  /** What is to be said while somebody serves. */
  #heldText = "";
  #timer: Timer | null = null;

  constructor(clock: Clock, init: WatchInit) {
    this.#clock = clock;
    this.#init = init;
  }

  get state(): SharedState {
    return this.#state;
  }

  /** Somebody serves whom another one did not before. @returns stops telling */
  onHandOver(listener: () => void): () => void {
    this.#changed.add(listener);
    return () => this.#changed.delete(listener);
  }

  start(): void {
    this.#heardMs = this.#clock.now();
    const look = () => {
      this.#timer = this.#clock.setTimer(LOOK_MS, look);
      this.#look();
    };
    look();
  }

  stop(): void {
    this.#timer?.cancel();
    this.#timer = null;
  }

  heard(epoch: number): void {
    this.#heardMs = this.#clock.now();
    const before = this.#before;
    this.#before = null;
    if (before && epoch === before.epoch) this.#set(before);
  }

  owner(
    { epoch, worker, sinceSeconds, state, text }: OwnerNotice,
    isOwn: boolean,
    isWelcome: boolean,
  ): void {
    this.#heardMs = this.#clock.now();
    this.#before = null;
    const role = isOwn ? "owner" : "guest";
    if (state === "leaving") {
      this.#set({ phase: "waiting", role: "guest", epoch, owner: null, text });
    } else {
      // Serving it is once this client has been let in.
      const phase = state === "failed" ? "failed" : isWelcome ? "serving" : "opening";
      const own = isOwn && text.startsWith("Another tab is") ? "Opening the disks" : text;
      const said = phase === "serving" ? this.#heldText : own;
      this.#set({ phase, role, epoch, owner: { worker, sinceSeconds }, text: said });
    }
  }

  /** @param held exports of which the owner cannot open the disks yet */
  welcome(held: readonly string[]): void {
    this.#heardMs = this.#clock.now();
    this.#state = { ...this.#state, phase: "serving" };
    this.holds(held);
    for (const listener of [...this.#changed]) listener();
  }

  /** Whoever serves cannot open the disks of these exports yet. */
  holds(exports: readonly string[]): void {
    const names = exports.map((id) => `'${id}'`).join(", ");
    const what = "look at x-query-recovery, then x-recovery-retry or x-recovery-dismiss";
    this.#heldText =
      exports.length === 0 ? "" : `The disk of ${names} cannot be opened yet: ${what}`;
    if (this.#state.phase === "serving") this.#set({ ...this.#state, text: this.#heldText });
  }

  #look(): void {
    if (!this.#init.isWaiting()) {
      this.#heardMs = this.#clock.now();
      return;
    }
    const silentMs = this.#clock.now() - this.#heardMs;
    if (silentMs < ASK_MS) return;
    const { epoch, owner } = this.#state;
    this.#init.ask(owner ? { type: "ping", epoch } : { type: "who" });
    if (silentMs < SILENT_MS || this.#state.phase === "silent") return;
    this.#before = this.#state;
    this.#set({ ...this.#state, phase: "silent", text: SILENT });
  }

  #set(state: SharedState): void {
    this.#state = state;
    this.onState(state);
  }
}
