/** What a new owner hears of those who are there before it opens anything: what they want written again. */

import { Bell } from "../../base/bell.ts";
import { ignoreCanceled } from "../../base/errors.ts";
import type { TabHost } from "./host.ts";
import type { KeptWrite } from "./kept-writes.ts";
import { CLIENT_LOCK } from "./lobby.ts";

/** How long a client that is there may keep silent before it has to do without its unflushed writes. */
const GATHER_MS = 2000;
const LOOK_MS = 20;

export class Gathering {
  readonly #host: Pick<TabHost, "clock" | "locks">;
  readonly #kept = new Map<string, readonly KeptWrite[]>();
  readonly #bell = new Bell();

  constructor(host: Pick<TabHost, "clock" | "locks">) {
    this.#host = host;
  }

  /** That client has said hello. */
  add(client: string, kept: readonly KeptWrite[]): void {
    this.#kept.set(client, kept);
    this.#bell.ring();
  }

  /** When everybody has who is there, or time is up. @param leave nobody need be waited for any more */
  async over(leave: AbortSignal): Promise<readonly KeptWrite[]> {
    const { clock, locks } = this.#host;
    const enough = new AbortController();
    const stop = () => enough.abort();
    const timer = clock.setTimer(GATHER_MS, stop);
    leave.addEventListener("abort", stop, { once: true });
    try {
      while (!enough.signal.aborted) {
        const names = await locks.held();
        const clients = names.filter((name) => name.startsWith(CLIENT_LOCK));
        const isSilent = (name: string) => !this.#kept.has(name.slice(CLIENT_LOCK.length));
        if (!clients.some(isSilent)) break;
        // Somebody says hello, or is gone, of which nobody tells.
        const look = clock.setTimer(LOOK_MS, () => this.#bell.ring());
        await this.#bell.rung(enough.signal).catch(ignoreCanceled);
        look.cancel();
      }
    } finally {
      timer.cancel();
      leave.removeEventListener("abort", stop);
    }
    return [...this.#kept.values()].flat();
  }
}
