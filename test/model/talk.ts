/** One monitor of the simulation: sends and does not wait; every request must be answered once. */

import * as v from "valibot";
import type { Engine } from "../../src/engine/engine.ts";
import { COMMANDS } from "../../src/qmp/commands/index.ts";
import { EVENTS } from "../../src/qmp/events.ts";

export interface HeardEvent {
  readonly event: string;
  readonly data: Record<string, unknown>;
}

export interface Reply {
  readonly return?: unknown;
  readonly error?: { readonly class: string; readonly desc: string };
}

export class Talk {
  onEvent: ((event: HeardEvent) => void) | null = null;
  readonly name: string;
  readonly #engine: Engine;
  readonly #monitor;
  readonly #note: (line: string) => void;
  readonly #waiting: { name: string; onReply: (reply: Reply) => void }[] = [];
  #hasLeft = false;
  #failure: unknown = null;

  constructor(engine: Engine, name: string, note: (line: string) => void) {
    this.name = name;
    this.#engine = engine;
    this.#note = note;
    this.#monitor = engine.openMonitor((message) => {
      // Nobody in the engine is to see what the model thinks of it.
      try {
        this.#hear(message as Record<string, unknown>);
      } catch (error) {
        this.#failure ??= error;
      }
    });
    this.send("qmp_capabilities", {});
  }

  /** @throws what was wrong with something that it has heard */
  check(): void {
    if (this.#failure !== null) throw this.#failure;
  }

  get isWaiting(): boolean {
    return this.#waiting.length > 0 && !this.#hasLeft;
  }

  /** @param onReply in the same turn as the reply; never called once the client has left */
  send(name: string, args: object, onReply: (reply: Reply) => void = () => {}): void {
    this.#note(`${this.name} -> ${name} ${JSON.stringify(args)}`);
    this.#waiting.push({ name, onReply });
    this.#monitor.receive({ execute: name, arguments: args });
  }

  /** The client goes without waiting for its answers. */
  leave(): void {
    this.#note(`${this.name} leaves`);
    this.#hasLeft = true;
    this.#engine.closeMonitor(this.#monitor);
  }

  /** Nothing is to be heard any more, as the engine has closed. */
  checkAllAnswered(): void {
    const [first] = this.#waiting;
    if (first && !this.#hasLeft) throw new Error(`${this.name}: ${first.name} is not answered`);
  }

  #hear(message: Record<string, unknown>): void {
    if (this.#hasLeft) throw new Error(`${this.name} hears something after it has left`);
    if ("QMP" in message) return;
    if ("event" in message) {
      v.parse(EVENTS[message["event"] as keyof typeof EVENTS], message["data"]);
      if (this.onEvent === null) return;
      this.#note(`<- ${message["event"]} ${JSON.stringify(message["data"])}`);
      this.onEvent(message as unknown as HeardEvent);
      return;
    }
    const request = this.#waiting.shift();
    if (!request) throw new Error(`${this.name}: a reply that nobody has asked for`);
    const { timestamp: _timestamp, ...reply } = message;
    this.#note(`${this.name} <- ${request.name} ${JSON.stringify(reply).slice(0, 200)}`);
    if ("return" in message) v.parse(COMMANDS.get(request.name)!.returns, message["return"]);
    request.onReply(reply as Reply);
  }
}
