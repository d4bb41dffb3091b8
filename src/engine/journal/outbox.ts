/**
 * What a monitor says, held until it is on record: what a client was told, a crash does not take back.
 * Replies and events keep their order.
 */

import type { BlockError } from "../../base/errors.ts";
import type { Recorder } from "./recorder.ts";

interface Held {
  readonly message: object;
  readonly covered: Promise<void>;
  /** Of those who wait for it to be sent. */
  readonly told: (() => void)[];
}

export class Outbox {
  readonly #recorder: Recorder;
  readonly #send: (message: object) => void;
  readonly #held: Held[] = [];
  #isStopped = false;

  constructor(recorder: Recorder, send: (message: object) => void) {
    this.#recorder = recorder;
    this.#send = send;
  }

  /** Replies are about what is: a query's, too, may tell of what is not on record yet. */
  send(message: object): void {
    if (this.#isStopped) return this.#send(message);
    this.#recorder.touch();
    this.#held.push({ message, covered: this.#recorder.covered(), told: [] });
    if (this.#held.length === 1) void this.#sendAll();
  }

  /** Nothing will be on record any more: what waits for it has not happened, as far as anybody knows. */
  stop(why: BlockError): void {
    this.#isStopped = true;
    for (const { message, told } of this.#held.splice(0)) {
      for (const tell of told) tell();
      if ("event" in message) continue;
      const { return: _done, error: _failed, ...rest } = message as Record<string, unknown>;
      this.#send({ error: why.toQmp(), ...rest });
    }
  }

  /** Resolves when all that waits now has been sent, or never will be: a client may go on asking for ever. */
  told(): Promise<void> {
    const last = this.#held.at(-1);
    return new Promise((resolve) => {
      if (last) last.told.push(resolve);
      else resolve();
    });
  }

  async #sendAll(): Promise<void> {
    for (let first = this.#held[0]; first; first = this.#held[0]) {
      await first.covered;
      if (this.#held[0] !== first) return;
      this.#send(first.message);
      this.#held.shift();
      for (const tell of first.told) tell();
    }
  }
}
