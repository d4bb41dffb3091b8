/**
 * A client and an engine as a transcript, in the way of QEMU's iotests: what was sent and what came
 * back, line by line, in order. The engine is the real one in small: memory stores, a virtual clock.
 *
 *   -> a line sent     <- greeting, reply or event, without its timestamp
 *
 * Every reply and event is held against the schema that it is declared with.
 */

import * as v from "valibot";
import { expect } from "vitest";
import { seededRandom } from "../../src/base/random.ts";
import { VirtualClock } from "../../src/base/virtual-clock.ts";
import type { BlockDriver } from "../../src/block/driver.ts";
import { copyOnRead } from "../../src/drivers/filter/copy-on-read.ts";
import { memoryDriver } from "../../src/drivers/protocol/memory.ts";
import { createEngine, type Engine } from "../../src/engine/engine.ts";
import { EVENTS } from "../../src/qmp/events.ts";
import { tinyFormat } from "../block/tiny-format.ts";
import { kernelBytes } from "../kernel/load.ts";

export type Wire = Record<string, unknown> & { readonly id?: unknown };

export async function testEngine(
  more: readonly BlockDriver[] = [],
): Promise<{ engine: Engine; clock: VirtualClock }> {
  const clock = new VirtualClock();
  const engine = await createEngine({
    clock,
    random: seededRandom(1),
    kernelBytes: kernelBytes(),
    drivers: [memoryDriver(), copyOnRead, tinyFormat, ...more],
  });
  return { engine, clock };
}

export class Conversation {
  readonly engine: Engine;
  readonly clock: VirtualClock;
  /** Everything received, as it was. */
  readonly received: Wire[] = [];
  readonly #lines: string[] = [];
  readonly #monitor;
  #onReply: ((reply: Wire) => void) | null = null;
  #command: string | undefined;

  constructor({ engine, clock }: { engine: Engine; clock: VirtualClock }) {
    this.engine = engine;
    this.clock = clock;
    this.#monitor = engine.openMonitor((message) => this.#hear(message as Wire));
  }

  /** Sends a command, waits for its reply; what it sets off that takes no time happens, too. */
  async execute(name: string, args?: object): Promise<Wire> {
    return this.say(JSON.stringify({ execute: name, ...(args && { arguments: args }) }));
  }

  /** Sends text as it is, which must be one request, and waits for the reply. */
  async say(text: string): Promise<Wire> {
    const reply = new Promise<Wire>((resolve) => {
      this.#onReply = resolve;
    });
    this.#command = (/"execute": ?"([^"]*)"/.exec(text) ?? [])[1];
    this.#lines.push(`-> ${text}`);
    this.#monitor.receiveText(`${text}\n`);
    const answer = await this.clock.runUntil(reply);
    await this.settle();
    return answer;
  }

  /** Ends the negotiation, and starts the transcript anew. */
  async negotiated(): Promise<this> {
    await this.execute("qmp_capabilities");
    this.#lines.length = 0;
    return this;
  }

  /** Lets everything happen that takes no time. */
  async settle(): Promise<void> {
    await this.clock.advance(0);
  }

  /** What was said since the last call. */
  transcript(): string {
    return `\n${this.#lines.splice(0).join("\n")}\n`;
  }

  #hear(message: Wire): void {
    this.received.push(message);
    const { timestamp, ...shown } = message;
    this.#lines.push(`<- ${JSON.stringify(shown)}`);
    if ("event" in message) checkEvent(message);
    if ("event" in message || "QMP" in message) return;
    if ("return" in message && this.#command !== undefined) {
      v.parse(this.engine.command(this.#command).returns, message["return"]);
    }
    this.#onReply?.(message);
  }
}

export async function conversation(more: readonly BlockDriver[] = []): Promise<Conversation> {
  return new Conversation(await testEngine(more));
}

function checkEvent({ event, data, timestamp }: Wire): void {
  v.parse(EVENTS[event as keyof typeof EVENTS], data);
  expect(timestamp).toEqual({ seconds: expect.any(Number), microseconds: expect.any(Number) });
}
