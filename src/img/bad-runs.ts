/**
 * What `convert --salvage` could not read, told run by run: a bad cluster is one problem, not 128 of its
 * sectors.
 *
 *     add  │512│512│512│   │512│       neighbours are joined while they come in order
 *     tell ├─ 1 run ───┤   ├ 1 ┤       when the next one is no neighbour, and at the end
 */

export class BadRuns {
  readonly #what: string;
  readonly #tell: (problem: string) => void;
  #last: { readonly offset: number; bytes: number; readonly reason: string } | null = null;

  /** @param what failed: "reading" */
  constructor(what: string, tell: (problem: string) => void) {
    this.#what = what;
    this.#tell = tell;
  }

  /** @param reason of a run that is joined to the one before it is not told: it is that one's */
  add(offset: number, bytes: number, reason: string): void {
    if (this.#last && this.#last.offset + this.#last.bytes === offset) {
      this.#last.bytes += bytes;
      return;
    }
    this.end();
    this.#last = { offset, bytes, reason };
  }

  /** No more is joined to what has been added. */
  end(): void {
    if (!this.#last) return;
    const { offset, bytes, reason } = this.#last;
    this.#last = null;
    this.#tell(`error while ${this.#what} ${bytes} bytes at offset ${offset}: ${reason}`);
  }
}
