/**
 * The life of one job as its events tell it, held against the tables: every move is legal, every
 * event comes where it must, once, and nothing happens that nobody has asked for.
 *
 *   created running [paused …] ready READY [standby …] waiting pending [PENDING] ─┐
 *      └──────▶ aborting ──▶ COMPLETED with an error, or CANCELLED ──▶ concluded ◀┘ COMPLETED ──▶ null
 */

import type { JobStatus, JobVerb } from "../../src/job/status.ts";
import type { ModelDisk } from "./disk.ts";
import type { Guest } from "./guest.ts";
import { mayMove, mayVerb } from "./tables.ts";
import type { Reply } from "./talk.ts";

export type Outcome = "completed" | "failed" | "cancelled" | "never started";

/** Jobs that were started together. */
export interface Group {
  readonly lives: Life[];
  /** They end together. */
  readonly isGrouped: boolean;
  isFinalizeAsked: boolean;
  isCancelAsked: boolean;
}

export interface LifeInit {
  readonly id: string;
  readonly type: string;
  readonly guest: Guest;
  /** It has the BLOCK_JOB_* events. */
  readonly isBlock: boolean;
  readonly autoFinalize: boolean;
  readonly autoDismiss: boolean;
  /** As the command has it. */
  readonly device?: string;
  /** Node that gets a copy of the whole disk, if one does. */
  readonly target?: string;
  /** Guests' writes go through it: what it sends is not settled by its own speed alone. */
  readonly isActive?: boolean;
  /** It goes on until somebody stops it. */
  readonly isEndless?: boolean;
  readonly onEnd?: (outcome: Outcome, life: Life) => void;
}

/** What nobody may hear at rest: the engine does the next step by itself. */
const MUST_FOLLOW: Readonly<Record<string, string>> = {
  BLOCK_JOB_READY: "ready",
  BLOCK_JOB_PENDING: "pending",
};

export class Life {
  readonly init: LifeInit;
  status: JobStatus = "undefined";
  /** What the target must hold, since a certain moment. */
  copy: ModelDisk | null = null;
  group: Group;
  isStarted = false;
  /** The disk that it copies is the guest's. */
  isOfDisk = false;
  /** Events heard. */
  moves = 0;
  offset = 0;
  isCompleteAsked = false;
  isDismissAsked = false;
  isRefused = false;
  onRefused: (() => void) | null = null;
  /** block-job-change has been sent: its copy mode may be another one. */
  isChanged = false;
  #hasBeenReady = false;
  #isPendingTold = false;
  #hasAborted = false;
  #outcome: Outcome | null = null;
  /** The event that must be the next one of all. */
  due: string | null = null;

  constructor(init: LifeInit) {
    this.init = init;
    const { autoFinalize } = init;
    this.group = {
      lives: [this],
      isGrouped: false,
      isFinalizeAsked: autoFinalize,
      isCancelAsked: false,
    };
  }

  get id(): string {
    return this.init.id;
  }

  get isOver(): boolean {
    return this.status === "null" || this.isRefused;
  }

  get outcome(): Outcome | null {
    return this.#outcome;
  }

  move(status: JobStatus): void {
    const from = this.status;
    if (!mayMove(from, status) || from === status) this.#wrong(`went from ${from} to ${status}`);
    if (this.due) this.#wrong(`became ${status} before ${this.due}`);
    this.moves++;
    this.#checkAsked(from, status);
    this.status = status;
    const { isBlock } = this.init;
    if (status === "running") this.isStarted = true;
    if (status === "aborting") this.#hasAborted = true;
    if (status === "ready" && !this.#hasBeenReady && isBlock) this.due = "BLOCK_JOB_READY";
    const isManual = !this.init.autoFinalize;
    if (status === "pending" && isManual && isBlock) this.due = "BLOCK_JOB_PENDING";
    if (status === "concluded") this.#concluded();
    if (status === "null" && this.#outcome === null) this.#end("never started");
  }

  /** BLOCK_JOB_READY and _PENDING. */
  told(event: string): void {
    if (this.due !== event) this.#wrong(`told ${event} as ${this.status}, out of its turn`);
    this.due = null;
    this.moves++;
    const isRepeated = event === "BLOCK_JOB_READY" ? this.#hasBeenReady : this.#isPendingTold;
    if (isRepeated || this.status !== MUST_FOLLOW[event]) this.#wrong(`told ${event} again`);
    if (event === "BLOCK_JOB_READY") this.#hasBeenReady = true;
    else this.#isPendingTold = true;
  }

  /** BLOCK_JOB_COMPLETED and _CANCELLED. */
  ended(event: string, error: string | undefined): void {
    this.moves++;
    if (this.#outcome !== null || !this.init.isBlock) this.#wrong(`told ${event} again`);
    if (!this.isStarted) this.#wrong(`told ${event}, but never ran`);
    const isBad = event === "BLOCK_JOB_CANCELLED" || error !== undefined;
    const expected = isBad ? "aborting" : "pending";
    if (this.status !== expected) this.#wrong(`told ${event} as ${this.status}`);
    if (event === "BLOCK_JOB_CANCELLED" && !this.group.isCancelAsked) {
      const others = this.group.lives.filter((life) => life !== this);
      const isDragged = this.group.isGrouped && others.some((life) => life.#hasAborted);
      if (!isDragged) this.#wrong("was cancelled, but nobody has asked for that");
    }
    this.#end(event === "BLOCK_JOB_CANCELLED" ? "cancelled" : isBad ? "failed" : "completed");
  }

  /** Between two steps. */
  checkAtRest(): void {
    if (this.due) this.#wrong(`has not told ${this.due}`);
    if (this.status === "concluded" && this.init.autoDismiss) this.#wrong("has not gone by itself");
  }

  /**
   * A verb and its reply, with no event in between: its status was the same all the time, so the
   * table says what the reply must be.
   */
  checkReply(verb: JobVerb, movesBefore: number, reply: Reply): void {
    if (this.moves !== movesBefore || this.status === "null" || this.status === "undefined") return;
    const isAllowed = mayVerb(verb, this.status);
    if (!isAllowed && !reply.error) this.#wrong(`has taken ${verb} as ${this.status}`);
    const isCertain = verb === "set-speed" || verb === "dismiss";
    if (isAllowed && isCertain && reply.error) {
      this.#wrong(`has refused ${verb} as ${this.status}: ${reply.error.desc}`);
    }
  }

  #checkAsked(from: JobStatus, to: JobStatus): void {
    const { group } = this;
    if (from === "pending" && to === "concluded" && !group.isFinalizeAsked) {
      this.#wrong("was finalized, but nobody has asked for that");
    }
    const isAsked = this.isCompleteAsked || group.isCancelAsked;
    if (from === "ready" && to === "waiting" && !isAsked) {
      this.#wrong("came to its end, but nobody has asked for that");
    }
    if (from === "concluded" && to === "null" && this.isStarted && !this.init.autoDismiss) {
      if (!this.isDismissAsked) this.#wrong("was dismissed, but nobody has asked for that");
    }
  }

  #concluded(): void {
    if (!this.isStarted) return;
    if (this.init.isBlock) {
      if (this.#outcome === null) this.#wrong("is concluded, but has told no end");
    } else this.#end(this.#hasAborted ? "failed" : "completed");
  }

  #end(outcome: Outcome): void {
    this.#outcome = outcome;
    this.init.onEnd?.(outcome, this);
  }

  #wrong(what: string): never {
    throw new Error(`Job ${this.id} ${what}`);
  }
}

/** All of a group have ended well, or none has. */
export function checkGroup({ lives, isGrouped }: Group): void {
  if (!isGrouped || lives.some(({ outcome }) => outcome === null)) return;
  const isGood = lives.map(({ outcome }) => outcome === "completed");
  if (isGood.every(Boolean) || !isGood.some(Boolean)) return;
  const told = lives.map(({ id, outcome }) => `${id} ${outcome}`).join(", ");
  throw new Error(`A group has not ended together: ${told}`);
}
