/**
 * Flushes of a file that a system caches. What a flush could not write, systems take for written from then on,
 * and tell one caller of it, once: the next flush would succeed, and the bytes be lost. So after one that has
 * failed all others fail, until the file is opened anew (QEMU: page_cache_inconsistent in
 * block/file-posix.c); and there is one at a time, or two that ask together could be told different things.
 */

import { Coalesced } from "../../base/coalesced.ts";
import { BlockError } from "../../base/errors.ts";

export class Flushes {
  readonly #flush: () => Promise<void>;
  readonly #runs = new Coalesced(() => this.#run());
  #failed: BlockError | null = null;

  /** @param flush makes last all that was written before it. @throws BlockError */
  constructor(flush: () => Promise<void>) {
    this.#flush = flush;
  }

  /** Resolves when what was written before this call is there to last. @throws BlockError */
  done(): Promise<void> {
    return this.#runs.done();
  }

  async #run(): Promise<void> {
    if (this.#failed) {
      throw new BlockError(
        this.#failed.errno,
        `${this.#failed.message}. That was earlier: what was written until then may be lost, and no later flush can ` +
          "tell. Close the image, open it again, and look what it holds",
        { cause: this.#failed },
      );
    }
    try {
      await this.#flush();
    } catch (error) {
      if (error instanceof BlockError) this.#failed = error;
      throw error;
    }
  }
}
