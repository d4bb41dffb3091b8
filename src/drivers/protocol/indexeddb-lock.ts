/**
 * The lock of an image's name (Web Locks), which keeps two tabs from mixing their caches: one who
 * writes, or any number of those who read.
 */

import { type Clock, sleep } from "../../base/clock.ts";
import { BlockError } from "../../base/errors.ts";
import { storeError } from "./errors.ts";
import { retryWhileBusy } from "./retry-busy.ts";

/** For how long others who read may keep one of them from writing. */
const PATIENCE_MS = 2000;

/** Ends one grant of the lock manager. */
type LetGo = () => Promise<void>;

export class NameLock {
  readonly #name: string;
  #mode: LockMode;
  /** null: released, or lost. */
  #letGo: LetGo | null;

  private constructor(name: string, mode: LockMode, letGo: LetGo) {
    this.#name = name;
    this.#mode = mode;
    this.#letGo = letGo;
  }

  /**
   * Takes the image's name in this origin, until it is released.
   *
   * @param mode readers share, as long as nobody writes
   * @throws BlockError EBUSY if somebody has it, ENOTSUP where there are no locks
   */
  static async take(name: string, mode: LockMode): Promise<NameLock> {
    return new NameLock(name, mode, await request(name, { mode, ifAvailable: true }));
  }

  /**
   * Goes on with another mode. The new one is in the queue before the old one is let go of, so
   * nobody who writes can come in between.
   *
   * @throws BlockError EBUSY while others read, and the lock is as before
   */
  async change(clock: Clock, mode: LockMode): Promise<void> {
    await retryWhileBusy(clock, undefined, () => this.#checkAlone());
    const patience = new AbortController();
    const wanted = request(this.#name, { mode, signal: patience.signal });
    const settled = new AbortController();
    sleep(clock, PATIENCE_MS, settled.signal).then(
      () => patience.abort(),
      () => {},
    );
    try {
      const [letGo] = await Promise.all([wanted, this.release()]);
      this.#letGo = letGo;
      this.#mode = mode;
    } catch (error) {
      // Somebody came to read since we looked.
      if (!(error instanceof BlockError)) throw error;
      this.#letGo = await request(this.#name, { mode: this.#mode, ifAvailable: true });
      throw error;
    } finally {
      settled.abort();
    }
  }

  /** @throws BlockError ESTALE if it was lost in change() */
  checkHeld(): void {
    if (this.#letGo) return;
    throw new BlockError(
      "ESTALE",
      `The image '${this.#name}' in IndexedDB was lost to another tab: close its node and open it ` +
        "again",
    );
  }

  /** Resolves when whoever asks next, in any tab, gets it. */
  async release(): Promise<void> {
    const letGo = this.#letGo;
    this.#letGo = null;
    await letGo?.();
  }

  async #checkAlone(): Promise<void> {
    const { held } = await navigator.locks.query();
    const count = held?.filter((lock) => lock.name === lockName(this.#name)).length ?? 0;
    if (count > 1) throw heldElsewhere(this.#name);
  }
}

function lockName(name: string): string {
  return `blocktab:indexeddb:${name}`;
}

/** @throws BlockError EBUSY if it is not available, or not until the signal is raised */
async function request(name: string, options: LockOptions): Promise<LetGo> {
  const locks = globalThis.navigator?.locks;
  if (locks === undefined) {
    throw new BlockError(
      "ENOTSUP",
      "There are no Web Locks here, which keep two tabs from writing to one image: they need a " +
        "page from https or localhost",
    );
  }
  let end: (() => void) | undefined;
  let gone: Promise<unknown> | undefined;
  try {
    await new Promise<void>((resolve, reject) => {
      gone = locks.request(lockName(name), options, (granted) => {
        if (granted === null) return reject(heldElsewhere(name));
        resolve();
        return new Promise<void>((letGo) => {
          end = letGo;
        });
      });
      gone.catch(reject);
    });
  } catch (error) {
    if (options.signal?.aborted) throw heldElsewhere(name);
    throw storeError(error, `Locking '${name}' in IndexedDB`);
  }
  return async () => {
    end?.();
    await gone;
    // An answer from the lock manager, which stands behind the release in its queue (Chromium): who
    // opens next, in any tab, gets the lock.
    await locks.query();
  };
}

function heldElsewhere(name: string): BlockError {
  return new BlockError(
    "EBUSY",
    `The image '${name}' in IndexedDB is open elsewhere: close the other tab that uses it`,
  );
}
