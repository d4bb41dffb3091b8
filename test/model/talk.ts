/** One monitor of the simulation: sends and does not wait; every request must be answered once. */

import * as v from "valibot";
import type { VirtualClock } from "../../src/base/virtual-clock.ts";
import type { Engine } from "../../src/engine/engine.ts";
import { COMMANDS } from "../../src/qmp/commands/index.ts";
import { EVENTS } from "../../src/qmp/events.ts";

export interface HeardEvent {
  readonly event: string;
  readonly data: Record<string, unknown>;
}

type Reply = { readonly return: unknown } | { readonly error: { class: string; desc: string } };

export class Talk {
  onEvent: ((event: HeardEvent) => void) | null = null;
  readonly #monitor;
  readonly #note: (line: string) => void;
  readonly #name: string;
  readonly #waiting: { name: string; onReply: (reply: Reply) => void }[] = [];

  constructor(engine: Engine, name: string, note: (line: string) => void) {
    this.#name = name;
    this.#note = note;
    this.#monitor = engine.openMonitor((message) => this.#hear(message as Record<string, unknown>));
  }

  async negotiate(clock: VirtualClock): Promise<void> {
    this.send("qmp_capabilities", {});
    await clock.advance(0);
  }

  /** @param onReply in the same turn as the reply */
  send(name: string, args: object, onReply: (reply: Reply) => void = () => {}): void {
    this.#note(`${this.#name} -> ${name} ${JSON.stringify(args)}`);
    this.#waiting.push({ name, onReply });
    this.#monitor.receive({ execute: name, arguments: args });
  }

  checkAllAnswered(): void {
    const [first] = this.#waiting;
    if (first) throw new Error(`${this.#name}: ${first.name} has not been answered`);
  }

  #hear(message: Record<string, unknown>): void {
    if ("QMP" in message) return;
    if ("event" in message) {
      v.parse(EVENTS[message["event"] as keyof typeof EVENTS], message["data"]);
      if (this.onEvent === null) return;
      this.#note(`<- ${message["event"]} ${JSON.stringify(message["data"])}`);
      this.onEvent(message as unknown as HeardEvent);
      return;
    }
    const request = this.#waiting.shift();
    if (!request) throw new Error(`${this.#name}: a reply that nobody has asked for`);
    const { timestamp: _timestamp, ...reply } = message;
    const text = JSON.stringify(reply);
    this.#note(`${this.#name} <- ${request.name} ${text.slice(0, 200)}`);
    if ("return" in message) v.parse(COMMANDS.get(request.name)!.returns, message["return"]);
    request.onReply(reply as Reply);
  }
}
