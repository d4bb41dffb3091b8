/**
 * A pair of ports within one thread, for an engine that lives next to its client (Node, tests).
 * Messages are cloned and transferred as between threads, and arrive in the same turn of the event
 * loop, so that a virtual clock sees them all before it moves on.
 */

import type { Port } from "./protocol.ts";

class LocalPort implements Port {
  other: LocalPort | null = null;
  /** Come before there was somebody to take them. */
  readonly #early: unknown[] = [];
  #onmessage: ((event: MessageEvent) => void) | null = null;
  readonly #onClose: (() => void)[] = [];

  get onmessage(): ((event: MessageEvent) => void) | null {
    return this.#onmessage;
  }

  set onmessage(handler: ((event: MessageEvent) => void) | null) {
    this.#onmessage = handler;
    for (const data of this.#early.splice(0)) this.deliver(data);
  }

  postMessage(message: unknown, transfer: Transferable[]): void {
    this.other?.deliver(structuredClone(message, { transfer }));
  }

  /** Whatever is sent can be read here. */
  addEventListener(type: "close" | "messageerror", listener: () => void): void {
    if (type === "close") this.#onClose.push(listener);
  }

  close(): void {
    const { other } = this;
    this.other = null;
    this.#onmessage = null;
    if (other?.other !== this) return;
    other.other = null;
    queueMicrotask(() => other.#closed());
  }

  #closed(): void {
    for (const listener of this.#onClose.splice(0)) listener();
  }

  deliver(data: unknown): void {
    queueMicrotask(() => {
      if (this.#onmessage) this.#onmessage(new MessageEvent("message", { data }));
      else this.#early.push(data);
    });
  }
}

/** Two ends: what is posted at one comes out at the other, in order. */
export function localPorts(): [Port, Port] {
  const a = new LocalPort();
  const b = new LocalPort();
  a.other = b;
  b.other = a;
  return [a, b];
}
