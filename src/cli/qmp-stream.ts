/**
 * A monitor for one client on a stream of bytes: what comes in is told to the engine's monitor, what
 * that says goes out, one message a line.
 *
 *   input ──▶ receiveText() ──▶ Monitor ──▶ line ──▶ output
 *     ▲                                                │
 *     └──── nothing is read while replies wait to be read
 */

import type { Clock } from "../base/clock.ts";
import { sleep } from "../base/clock.ts";
import type { Engine } from "../engine/engine.ts";
import type { Monitor } from "../qmp/monitor.ts";
import type { ChardevClient } from "./chardev/chardev.ts";

/** How long a client that is going may take to read what it has been sent. */
const FAREWELL_MS = 1000;
/** Events come unasked; a client that leaves more than this unread is hung up on. */
const UNREAD_BYTES_MAX = 16 * 1024 * 1024;

export interface QmpStreamInit {
  readonly engine: Engine;
  readonly client: ChardevClient;
  readonly clock: Clock;
  readonly pretty: boolean;
}

export class QmpStream {
  readonly #init: QmpStreamInit;
  readonly #monitor: Monitor;
  readonly #decoder = new TextDecoder();
  /** How many replies still go out; events always do. */
  #repliesLeft = Number.POSITIVE_INFINITY;
  #gone!: () => void;
  /** Resolves when this is over: the client has left, or end() has been called. */
  readonly gone = new Promise<void>((resolve) => {
    this.#gone = resolve;
  });

  constructor(init: QmpStreamInit) {
    this.#init = init;
    const { input, output } = init.client;
    // Both are followed by a close.
    input.on("error", () => {});
    output.on("error", () => {});
    this.#monitor = init.engine.openMonitor((message) => this.#send(message));
    input.on("data", (piece: Uint8Array) => this.#receive(piece));
    input.once("end", () => void this.end());
    input.once("close", () => void this.end());
    output.once("close", () => void this.end());
    output.on("drain", () => input.resume());
    input.resume();
  }

  /**
   * The daemon is about to end.
   *
   * @param replies how many more may go out before there is nothing but events
   */
  silence(replies: number): void {
    this.#repliesLeft = Math.min(this.#repliesLeft, replies);
  }

  /**
   * Answers what has been asked, as far as that goes within a second, and lets go of the client's
   * input. A second call does nothing.
   */
  async end(): Promise<void> {
    const { engine, client, clock } = this.#init;
    client.input.removeAllListeners("data");
    client.input.pause();
    const done = new AbortController();
    const over = sleep(clock, FAREWELL_MS, done.signal).catch(() => {});
    await Promise.race([this.#monitor.idle().then(() => this.#written()), over]);
    done.abort();
    engine.closeMonitor(this.#monitor);
    this.#gone();
  }

  /** Resolves when the client has been sent everything, or is gone. */
  #written(): Promise<void> {
    const { output } = this.#init.client;
    return new Promise((resolve) => {
      if (output.destroyed || output.writableLength === 0) return resolve();
      output.once("close", resolve);
      output.once("drain", resolve);
      output.write("", () => resolve());
    });
  }

  #receive(piece: Uint8Array): void {
    this.#monitor.receiveText(this.#decoder.decode(piece, { stream: true }));
  }

  #send(message: object): void {
    const { client, pretty } = this.#init;
    const { input, output } = client;
    if (!("event" in message) && this.#repliesLeft-- <= 0) return;
    if (output.destroyed) return;
    const text = JSON.stringify(message, null, pretty ? 4 : 0);
    if (!output.write(`${text}\r\n`)) input.pause();
    if (output.writableLength > UNREAD_BYTES_MAX) client.destroy();
  }
}
