/**
 * The engine's end of a port, whose other end may be closed, or go away with its page, without a word.
 *
 * Node tells of that by an event; browsers do not, but there a port is collected as garbage once the
 * other end is gone, so that an end which nobody else holds can be noticed to be missing. Therefore the
 * engine reaches its ports through one of these only: what a port's handlers hold lives as long as it
 * does, and what the engine holds does not hold the port.
 *
 * That is for MessagePorts only. Ports of other kinds tell of their end, and are held: a client in this
 * thread that waits for its answer may be reachable through its port alone (local-port.ts).
 */

import type { Port } from "./protocol.ts";

const registry = new FinalizationRegistry<() => void>((gone) => gone());

export class HeldPort {
  readonly #port: { deref(): Port | undefined };
  #isGone = false;
  readonly #onGone: () => void;

  /**
   * @param receive takes what comes
   * @param onGone told once when the other end is gone; not after close(). Must not hold the port
   */
  constructor(port: Port, receive: (data: unknown) => void, onGone: () => void) {
    this.#port = referenceTo(port);
    this.#onGone = onGone;
    registry.register(port, () => this.#gone(), this);
    port.addEventListener("close", () => this.#gone());
    // What cannot be read is not what anybody waits for.
    port.addEventListener("messageerror", () => receive(undefined));
    port.onmessage = ({ data }) => receive(data);
  }

  post(message: unknown, transfer: Transferable[] = []): void {
    if (!this.#isGone) this.#port.deref()?.postMessage(message, transfer);
  }

  close(): void {
    this.#isGone = true;
    registry.unregister(this);
    const port = this.#port.deref();
    if (!port) return;
    port.onmessage = null;
    port.close();
  }

  #gone(): void {
    if (this.#isGone) return;
    this.close();
    this.#onGone();
  }
}

/** Not in the constructor: a closure there that holds the port would hold it for all closures there. */
function referenceTo(port: Port): { deref(): Port | undefined } {
  return port instanceof MessagePort ? new WeakRef(port) : { deref: () => port };
}
