/** Two ends of a connection in memory: what is written at one is read at the other. */

import type { ByteChannel } from "../../../src/base/channel.ts";
import { BlockError } from "../../../src/base/errors.ts";

/** A write waits while this much lies unread at the other end. */
const UNREAD_BYTES_MAX = 64 * 1024;

class End implements ByteChannel {
  other: End | null = null;
  readonly closed: Promise<void>;
  #resolveClosed: () => void = () => {};
  #isGone = false;
  #hasEnded = false;
  readonly #unread: Uint8Array[] = [];
  #wake: (() => void)[] = [];

  constructor() {
    this.closed = new Promise((resolve) => {
      this.#resolveClosed = resolve;
    });
  }

  get unreadBytes(): number {
    return this.#unread.reduce((sum, { length }) => sum + length, 0);
  }

  async read(): Promise<Uint8Array | null> {
    while (this.#unread.length === 0 && !this.#hasEnded && !this.#isGone) await this.#change();
    const piece = this.#isGone ? null : (this.#unread.shift() ?? null);
    if (this.#hasEnded && this.#unread.length === 0) this.#resolveClosed();
    this.other?.wake();
    return piece;
  }

  async write(bytes: Uint8Array): Promise<void> {
    const { other } = this;
    if (this.#isGone || !other || other.#isGone) throw new BlockError("EIO", "Gone");
    other.#unread.push(bytes.slice());
    other.wake();
    const isGone = () => this.#isGone || other.#isGone;
    while (other.unreadBytes >= UNREAD_BYTES_MAX && !isGone()) await this.#change();
    if (isGone()) throw new BlockError("EIO", "Gone");
  }

  /** Sends no more; what comes may still be read. */
  endSending(): void {
    if (!this.other) return;
    this.other.#hasEnded = true;
    if (this.other.#unread.length === 0) this.other.#resolveClosed();
    this.other.wake();
  }

  finish(): void {
    this.endSending();
    this.#isGone = true;
    this.#resolveClosed();
    this.wake();
  }

  destroy(): void {
    for (const end of [this, this.other]) {
      if (!end) continue;
      end.#isGone = true;
      end.#resolveClosed();
      end.wake();
    }
  }

  wake(): void {
    for (const wake of this.#wake.splice(0)) wake();
  }

  #change(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake.push(resolve);
    });
  }
}

export function memoryChannels(): [End, End] {
  const [a, b] = [new End(), new End()];
  a.other = b;
  b.other = a;
  return [a, b];
}
