/** One monitor of a fuzzed engine: says things, and waits until all that it said is answered. */

import type { VirtualClock } from "../../../src/base/virtual-clock.ts";
import type { Engine } from "../../../src/engine/engine.ts";
import type { Monitor } from "../../../src/qmp/monitor.ts";
import { joined, text } from "../../qmp/json/corpus.ts";

type Reply = Record<string, unknown>;

/** Most steps of the clock until an answer is there; and real time, for what never comes back. */
const STEPS_MAX = 100_000;
const SECONDS_MAX = 60;

export class Talker {
  readonly #clock: VirtualClock;
  readonly #engine: Engine;
  readonly #kinds: Map<string, number> | undefined;
  readonly #monitor: Monitor;
  readonly #waiting = new Map<string, (reply: Reply) => void>();
  #asked = 0;
  /** Replies, events aside. */
  #replies = 0;

  private constructor(engine: Engine, clock: VirtualClock, kinds?: Map<string, number>) {
    this.#engine = engine;
    this.#clock = clock;
    this.#kinds = kinds;
    this.#monitor = engine.openMonitor((message) => this.#hear(message as Reply));
  }

  /** @param kinds counts what is heard, by kind */
  static async open(
    engine: Engine,
    clock: VirtualClock,
    kinds?: Map<string, number>,
  ): Promise<Talker> {
    const talker = new Talker(engine, clock, kinds);
    await talker.ask("qmp_capabilities");
    return talker;
  }

  /** @throws Error if there is no answer */
  async ask(execute: string, args: object = {}): Promise<Reply> {
    const { id, answer } = this.#expect();
    this.#monitor.receive({ execute, arguments: args, id });
    return this.#wait(answer);
  }

  /**
   * Anything; what comes after it is answered after it.
   *
   * @throws Error if an object did not get exactly one reply
   */
  async say(message: Uint8Array | object): Promise<void> {
    const { id, answer } = this.#expect();
    const before = this.#replies;
    const mark = { execute: "query-version", id };
    if (message instanceof Uint8Array) {
      // The NUL ends whatever the bytes have left open: see test/qmp/json/daemons.test.ts.
      this.#monitor.receiveBytes(joined([message, text(`\0\n${JSON.stringify(mark)}`)]));
    } else {
      this.#monitor.receive(message);
      this.#monitor.receive(mark);
    }
    await this.#wait(answer);
    const replies = this.#replies - before - 1;
    // What bytes ask for only the monitor can tell.
    if (message instanceof Uint8Array || replies === 1) return;
    throw new Error(`${replies} replies to one message`);
  }

  /** Goes away, having said something without waiting for an answer. */
  leave(message?: Uint8Array | object): void {
    if (message instanceof Uint8Array) this.#monitor.receiveBytes(message);
    else if (message) this.#monitor.receive(message);
    this.#engine.closeMonitor(this.#monitor);
  }

  /** Of what was heard nothing is kept; there for the meter of memory. */
  forget(): void {
    this.#waiting.clear();
  }

  #expect(): { id: string; answer: Promise<Reply> } {
    const id = `talker ${this.#asked++}`;
    const answer = new Promise<Reply>((resolve) => this.#waiting.set(id, resolve));
    return { id, answer };
  }

  async #wait(answer: Promise<Reply>): Promise<Reply> {
    let watchdog: ReturnType<typeof setTimeout> | undefined;
    const bite = new Promise<never>((_, reject) => {
      const why = new Error(`No answer within ${SECONDS_MAX} seconds`);
      watchdog = setTimeout(() => reject(why), SECONDS_MAX * 1000);
    });
    try {
      return await Promise.race([this.#clock.runUntil(answer, STEPS_MAX), bite]);
    } finally {
      clearTimeout(watchdog);
    }
  }

  #hear(message: Reply): void {
    const { id, error, event } = message as {
      id?: string;
      error?: { class: string };
      event?: string;
    };
    if (event === undefined) this.#replies++;
    const kind = event ?? error?.class ?? "return";
    this.#kinds?.set(kind, (this.#kinds.get(kind) ?? 0) + 1);
    const waiting = typeof id === "string" ? this.#waiting.get(id) : undefined;
    if (!waiting) return;
    this.#waiting.delete(id!);
    waiting(message);
  }
}
