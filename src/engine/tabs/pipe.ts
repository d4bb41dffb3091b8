/**
 * A party line of two, as a Port: between a page and a worker of another tab, to which no MessagePort
 * can be handed without a third one. What is posted is cloned, never transferred.
 *
 *   client   dials: says the name in the lobby, again and again, until
 *   owner    picks up, and says so on the line; only then the client talks
 *
 * An end that is closed says so. One that dies cannot: the owner has the client's lock to watch, and
 * clients hear of the next owner.
 */

import type { Port } from "../protocol.ts";
import type { Channel } from "./host.ts";

type Said =
  | { readonly type: "open" }
  | { readonly type: "close" }
  | { readonly type: "message"; readonly message: unknown };

export class Pipe implements Port {
  readonly #channel: Channel;
  #onmessage: ((event: MessageEvent) => void) | null = null;
  readonly #onClose: (() => void)[] = [];
  /** Said before the other end has picked up; null afterwards. */
  #unsent: unknown[] | null;
  /** Came before anybody listened. */
  readonly #early: unknown[] = [];
  #isClosed = false;
  /** The other end has picked up. */
  onopen: () => void = () => {};

  /** @param isUp the other end is there already, waiting for the word */
  constructor(channel: Channel, isUp: boolean) {
    this.#channel = channel;
    this.#unsent = isUp ? null : [];
    channel.onmessage = (said) => this.#hear(said as Said);
    if (isUp) this.pickUp();
  }

  /** Says that this end is there. */
  pickUp(): void {
    if (!this.#isClosed) this.#channel.post({ type: "open" } satisfies Said);
  }

  get onmessage(): ((event: MessageEvent) => void) | null {
    return this.#onmessage;
  }

  set onmessage(handler: ((event: MessageEvent) => void) | null) {
    this.#onmessage = handler;
    for (const message of this.#early.splice(0)) this.#tell(message);
  }

  postMessage(message: unknown): void {
    if (this.#isClosed) return;
    if (this.#unsent) this.#unsent.push(message);
    else this.#channel.post({ type: "message", message } satisfies Said);
  }

  /** Whatever a channel cannot clone is refused where it is posted. */
  addEventListener(type: "close" | "messageerror", listener: () => void): void {
    if (type === "close") this.#onClose.push(listener);
  }

  close(): void {
    if (this.#isClosed) return;
    this.#channel.post({ type: "close" } satisfies Said);
    this.#end();
  }

  /** The other end is gone without a word. */
  lost(): void {
    if (this.#isClosed) return;
    this.#end();
    for (const listener of this.#onClose.splice(0)) listener();
  }

  #end(): void {
    this.#isClosed = true;
    this.#onmessage = null;
    this.#channel.onmessage = null;
    this.#channel.close();
  }

  #hear(said: Said): void {
    if (said.type === "message") this.#tell(said.message);
    else if (said.type === "close") this.lost();
    else this.#opened();
  }

  #opened(): void {
    const unsent = this.#unsent ?? [];
    this.#unsent = null;
    for (const message of unsent) this.postMessage(message);
    this.onopen();
  }

  #tell(message: unknown): void {
    if (this.#onmessage) this.#onmessage(new MessageEvent("message", { data: message }));
    else this.#early.push(message);
  }
}
