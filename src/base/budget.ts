/** An amount that several may have a part of, and no more than that at any time: bytes of buffers. */

import { Bell } from "./bell.ts";

export class Budget {
  readonly #total: number;
  readonly #freed = new Bell();
  #spent = 0;

  constructor(total: number) {
    this.#total = total;
  }

  /**
   * Runs `work` with a part of the budget in its name. Somebody who needs more than there is waits
   * for all of it.
   *
   * There is no signal: who calls off the work of all that have a part of it ends the wait as well.
   */
  async run<T>(amount: number, work: () => Promise<T>): Promise<T> {
    const part = Math.min(amount, this.#total);
    while (this.#spent + part > this.#total) await this.#freed.rung();
    this.#spent += part;
    try {
      return await work();
    } finally {
      this.#spent -= part;
      this.#freed.ring();
    }
  }
}
