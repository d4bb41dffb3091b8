/**
 * Work that is done side by side, and comes out in the order in which it came in.
 */

export class InOrder {
  #last: Promise<void> = Promise.resolve();

  /** Settles as `work` does, after all that were given before have settled. */
  async next<T>(work: Promise<T>): Promise<T> {
    const before = this.#last;
    // What has come out is not kept.
    this.#last = Promise.allSettled([before, work]).then(() => {});
    await before;
    return work;
  }
}
