/**
 * What a blkdebug node was told to do at which event: fail the requests that follow, change its
 * state, or stop. A rule counts only in its state, any if that is 0; the first state is 1.
 *
 *   event ──▶ set-state     the state from the next event on
 *         ──▶ inject-error  these rules, and no others, are active until the next event with some
 *         ──▶ breakpoint    used up; the request stops here
 *   request ─▶ the first active rule that fits its kind and place says how it ends
 *
 * QEMU: block/blkdebug.c, docs/devel/testing/blkdebug.rst.
 */

import { Bell } from "../../base/bell.ts";
import { BlockError, type Errno } from "../../base/errors.ts";
import type { DebugEvent, DebugPoints } from "../../block/debug.ts";

/** Kinds of requests (QEMU: BlkdebugIOType). */
export const IO_TYPES = [
  "read",
  "write",
  "write-zeroes",
  "discard",
  "flush",
  "block-status",
] as const;
export type IoType = (typeof IO_TYPES)[number];

export interface InjectRule {
  readonly event: DebugEvent;
  readonly state: number;
  /** Null: all but block-status. */
  readonly iotype: IoType | null;
  /** Null: such a request goes well, whatever the rules after this one say. */
  readonly errno: Errno | null;
  /** Only requests with this byte; null: all. */
  readonly offset: number | null;
  /** The rule is gone after the first request that it fails. */
  readonly once: boolean;
  /** The request fails in the turn in which it comes. */
  readonly immediately: boolean;
}

export interface StateRule {
  readonly event: DebugEvent;
  readonly state: number;
  readonly newState: number;
}

interface Stopped {
  readonly tag: string;
  go(): void;
}

export class BlkdebugRules implements DebugPoints {
  #state = 1;
  /** In the order of the options. */
  #inject: readonly InjectRule[];
  readonly #setState: readonly StateRule[];
  #active: readonly InjectRule[] = [];
  #breaks: readonly { readonly event: DebugEvent; readonly tag: string }[] = [];
  #stopped: readonly Stopped[] = [];
  readonly #stopBell = new Bell();
  readonly #yield: () => Promise<void>;

  /** @param yieldTurn how a request that does not fail immediately gives its turn away */
  constructor(
    inject: readonly InjectRule[],
    setState: readonly StateRule[],
    yieldTurn: () => Promise<void>,
  ) {
    this.#inject = inject;
    this.#setState = setState;
    this.#yield = yieldTurn;
    this.#take("none");
  }

  async event(event: DebugEvent, signal?: AbortSignal): Promise<void> {
    this.#take(event);
    const here = this.#breaks.filter((point) => point.event === event);
    if (here.length === 0) return;
    this.#breaks = this.#breaks.filter((point) => point.event !== event);
    await Promise.all(here.map(({ tag }) => this.#stop(tag, signal)));
  }

  /** @throws BlockError as the first rule that fits says */
  async check(iotype: IoType, offset: number, bytes: number): Promise<void> {
    const rule = this.#active.find((active) => fits(active, iotype, offset, bytes));
    if (!rule || rule.errno === null) return;
    if (rule.once) {
      this.#active = this.#active.filter((other) => other !== rule);
      this.#inject = this.#inject.filter((other) => other !== rule);
    }
    if (!rule.immediately) await this.#yield();
    throw new BlockError(rule.errno, `Injected ${iotype} error (${rule.errno})`);
  }

  addBreak(event: DebugEvent, tag: string): void {
    this.#breaks = [...this.#breaks, { event, tag }];
  }

  removeBreak(tag: string): boolean {
    const left = this.#breaks.filter((point) => point.tag !== tag);
    let found = left.length < this.#breaks.length;
    this.#breaks = left;
    while (this.resume(tag)) found = true;
    return found;
  }

  /** The one that stopped last, if several are stopped under one tag. */
  resume(tag: string): boolean {
    const stopped = this.#stopped.findLast((other) => other.tag === tag);
    if (!stopped) return false;
    this.#forget(stopped);
    stopped.go();
    return true;
  }

  isSuspended(tag: string): boolean {
    return this.#stopped.some((stopped) => stopped.tag === tag);
  }

  async suspended(tag: string, signal?: AbortSignal): Promise<void> {
    while (!this.isSuspended(tag)) await this.#stopBell.rung(signal);
  }

  #take(event: DebugEvent): void {
    const counts = (rule: InjectRule | StateRule) =>
      rule.event === event && (rule.state === 0 || rule.state === this.#state);
    const injected = this.#inject.filter(counts);
    if (injected.length > 0) this.#active = injected;
    const change = this.#setState.find(counts);
    if (change) this.#state = change.newState;
  }

  #stop(tag: string, signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      const cancel = () => {
        this.#forget(stopped);
        reject(new BlockError("ECANCELED", "Operation canceled"));
      };
      const stopped: Stopped = {
        tag,
        go() {
          signal?.removeEventListener("abort", cancel);
          resolve();
        },
      };
      this.#stopped = [...this.#stopped, stopped];
      this.#stopBell.ring();
      if (signal?.aborted) cancel();
      else signal?.addEventListener("abort", cancel, { once: true });
    });
  }

  #forget(stopped: Stopped): void {
    this.#stopped = this.#stopped.filter((other) => other !== stopped);
  }
}

function fits(rule: InjectRule, iotype: IoType, offset: number, bytes: number): boolean {
  if (rule.iotype === null ? iotype === "block-status" : rule.iotype !== iotype) return false;
  return rule.offset === null || (rule.offset >= offset && rule.offset < offset + bytes);
}
