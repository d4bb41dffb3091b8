/**
 * A chain of calls: what a thread is in libvirt. It is made where a call comes in and handed down all
 * the way; what it holds is on it, so a lock knows its holder and an error can name it.
 *
 * Two things at once need two of them.
 */

import { RankChecker } from "./rank-checker.ts";

let lastId = 0;

export class Ctx {
  readonly id: number;
  /** The call that came in, under the name that clients know: errors of others name it. */
  readonly api: string;
  /** Ends the chain's waits. What it holds when that happens it still gives back. */
  readonly signal: AbortSignal | undefined;
  readonly held: RankChecker;

  constructor(api: string, signal?: AbortSignal) {
    this.id = ++lastId;
    this.api = api;
    this.signal = signal;
    this.held = new RankChecker(api);
  }
}
