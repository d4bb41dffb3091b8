/** How far a long subcommand is: shown as it goes on with -p, else whenever the user asks. */

import type { Session } from "./session.ts";

/** Smaller steps are not shown, in percent. */
const STEP = 1;

export class Progress {
  readonly #session: Session;
  readonly #shown: boolean;
  readonly #stopListening: () => void;
  #percent = 0;
  #lastShown = Number.NEGATIVE_INFINITY;

  /** @param shown -p is given */
  constructor(session: Session, shown: boolean) {
    const { host } = session;
    this.#session = session;
    this.#shown = shown;
    const tell = () => void host.complain(`${this.#text()}\n`);
    this.#stopListening = (!shown && host.onProgressAsked?.(tell)) || (() => {});
  }

  /** @param percent 0 .. 100 of the whole */
  async report(percent: number): Promise<void> {
    this.#percent = Math.min(percent, 100);
    if (!this.#shown) return;
    const isStep = this.#percent >= this.#lastShown + STEP;
    const isEnd = this.#percent === 100 && this.#lastShown !== 100;
    if (!isStep && !isEnd) return;
    this.#lastShown = this.#percent;
    await this.#session.print(`${this.#text()}\r`);
  }

  /** Done, well or not. */
  async end(): Promise<void> {
    this.#stopListening();
    if (this.#shown) await this.#session.print("\n");
  }

  #text(): string {
    return `    (${this.#percent.toFixed(2)}/100%)`;
  }
}
