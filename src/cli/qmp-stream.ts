/**
 * A monitor for one client on a stream of bytes: what comes in is told to the engine's monitor, what
 * that says goes out, one message a line.
 *
 *   input ──▶ receiveBytes() ──▶ Monitor ──▶ line ──▶ output
 *     ▲                                                │
 *     └──── nothing is read while replies wait to be read
 */

import type { Clock } from "../base/clock.ts";
import { sleep } from "../base/clock.ts";
import type { Engine } from "../engine/engine.ts";
import { messageText } from "../qmp/json/writer.ts";
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
  /** The client does not read what it is sent. */
  #isUnread = false;
  /** More requests wait than are taken in. */
  #isFull = false;
  /** end() has been called. */
  #isOver = false;
  /** Nothing is asked any more; events go out as before. */
  #isLeaving = false;
  /** The reply that goes out last. */
  #lastReply: object | null = null;
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
    this.#monitor = init.engine.openMonitor(
      (message) => this.#send(message),
      () => this.#hold({ isFull: false }),
    );
    input.on("data", (piece: Uint8Array) => {
      if (!this.#monitor.receiveBytes(piece)) this.#hold({ isFull: true });
    });
    const inputIsOver = () => {
      if (!this.#isLeaving) void this.end();
    };
    input.once("end", inputIsOver);
    input.once("close", inputIsOver);
    output.once("close", () => void this.end());
    output.on("drain", () => this.#hold({ isUnread: false }));
    this.#hold({});
  }

  /**
   * The daemon is about to end: reads no more. Of the replies from now on the first, that to `quit`,
   * goes out behind all events, as QEMU's does; the others do not.
   */
  leave(): void {
    this.#isLeaving = true;
    this.#hold({});
  }

  /**
   * Answers what has been asked, as far as that goes within a second, and lets go of the client's
   * input. A second call waits for the first.
   */
  async end(): Promise<void> {
    const { engine, clock } = this.#init;
    if (this.#isOver) return this.gone;
    this.#isOver = true;
    this.#hold({});
    if (this.#lastReply) this.#write(this.#lastReply);
    // Nobody is kept waiting for a client who has gone.
    if (!this.#init.client.output.destroyed) {
      const done = new AbortController();
      const over = sleep(clock, FAREWELL_MS, done.signal).catch(() => {});
      await Promise.race([this.#monitor.idle().then(() => this.#written()), over]);
      done.abort();
    }
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

  /** Reads on, unless there is a reason not to. */
  #hold({ isFull = this.#isFull, isUnread = this.#isUnread }): void {
    this.#isFull = isFull;
    this.#isUnread = isUnread;
    const { input } = this.#init.client;
    if (isFull || isUnread || this.#isLeaving || this.#isOver) input.pause();
    else input.resume();
  }

  #send(message: object): void {
    if (!this.#isLeaving || "event" in message) this.#write(message);
    else this.#lastReply ??= message;
  }

  #write(message: object): void {
    const { client, pretty } = this.#init;
    const { output } = client;
    if (output.destroyed) return;
    if (!output.write(messageText(message, pretty))) this.#hold({ isUnread: true });
    if (output.writableLength > UNREAD_BYTES_MAX) client.destroy();
  }
}
