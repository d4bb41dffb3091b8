/**
 * What tabs need of the place they live in, to find each other and to take turns: locks, channels, a
 * number that only grows. browser.ts has the browser's; the simulation in test/engine/tabs/ its own.
 */

import type { Clock } from "../../base/clock.ts";
import type { Random } from "../../base/random.ts";
import type { Reign } from "./reign.ts";

/** Of one origin: whoever dies lets go of all that he holds and waits for. */
export interface Locks {
  /**
   * Runs `work` while the lock is held. First come, first served.
   *
   * @throws BlockError ECANCELED if the signal is raised before the turn has come; what `work` throws
   */
  hold<T>(name: string, work: () => Promise<T>, signal?: AbortSignal): Promise<T>;
  /** Names of the locks that somebody holds now. */
  held(): Promise<readonly string[]>;
}

/** One end of a party line: what is posted comes out at all other ends of that name, in order. */
export interface Channel {
  /** @param message is cloned */
  post(message: unknown): void;
  onmessage: ((message: unknown) => void) | null;
  close(): void;
}

export interface Epochs {
  /** Makes a new epoch; durable before it resolves. @throws BlockError */
  raise(): Promise<Reign>;
  /**
   * From now on this one serves.
   *
   * @throws BlockError ESTALE if a later one has been made
   */
  serve(epoch: number): Promise<void>;
  /**
   * From now on what was written under this one may be overtaken by what not all clients hear of; durable before it
   * resolves.
   *
   * @throws BlockError ESTALE if a later one has been made
   */
  overtake(epoch: number): Promise<void>;
  /** This one has closed all that it had. If a later one has been made nothing happens. @throws BlockError */
  close(epoch: number): Promise<void>;
}

export interface TabHost {
  readonly clock: Clock;
  readonly random: Random;
  readonly locks: Locks;
  readonly epochs: Epochs;
  openChannel(name: string): Channel;
}

/** A name that nobody else has. */
export function newId(random: Random): string {
  const digits = () =>
    random
      .below(2 ** 32)
      .toString(16)
      .padStart(8, "0");
  return digits() + digits() + digits();
}
