/**
 * A client's QMP on its way to the engine: before a command that puts other content in a disk's place,
 * what all clients have written is flushed, so that none of them keeps a write that the next owner
 * would do again on top of it.
 */

import { BlockError } from "../../base/errors.ts";
import type { Port } from "../protocol.ts";

const REPLACES = "snapshot-load";

export class BarrierPort implements Port {
  readonly #port: Port;
  readonly #flushAll: () => Promise<void>;
  #onmessage: ((event: MessageEvent) => void) | null = null;
  /** The commands behind one that waits keep their order; null: none waits. */
  #waiting: Promise<void> | null = null;

  constructor(port: Port, flushAll: () => Promise<void>) {
    this.#port = port;
    this.#flushAll = flushAll;
  }

  get onmessage(): ((event: MessageEvent) => void) | null {
    return this.#onmessage;
  }

  set onmessage(handler: ((event: MessageEvent) => void) | null) {
    this.#onmessage = handler;
    this.#port.onmessage = handler && ((event) => this.#receive(event));
  }

  postMessage(message: unknown, transfer: Transferable[]): void {
    this.#port.postMessage(message, transfer);
  }

  addEventListener(type: "close" | "messageerror", listener: () => void): void {
    this.#port.addEventListener(type, listener);
  }

  close(): void {
    this.#port.close();
  }

  #receive(event: MessageEvent): void {
    const { execute, id } = (event.data ?? {}) as { execute?: unknown; id?: unknown };
    if (execute !== REPLACES && !this.#waiting) return this.#onmessage?.(event);
    const before = this.#waiting ?? Promise.resolve();
    const turn = before.then(async () => {
      try {
        if (execute === REPLACES) await this.#flushAll();
        this.#onmessage?.(event);
      } catch (error) {
        if (!(error instanceof BlockError)) throw error;
        this.#port.postMessage({ error: error.toQmp(), id }, []);
      }
      if (this.#waiting === turn) this.#waiting = null;
    });
    this.#waiting = turn;
  }
}
