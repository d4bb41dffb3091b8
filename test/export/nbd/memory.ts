/**
 * An engine with an NBD server that listens in memory, and a virtual clock: every connection is two
 * ends in this thread.
 */

import { assert } from "../../../src/base/errors.ts";
import { seededRandom } from "../../../src/base/random.ts";
import { VirtualClock } from "../../../src/base/virtual-clock.ts";
import type { BlockDriver } from "../../../src/block/driver.ts";
import { memoryDriver } from "../../../src/drivers/protocol/memory.ts";
import { createEngine, type Engine } from "../../../src/engine/engine.ts";
import { Option } from "../../../src/export/nbd/protocol.ts";
import { NbdServer } from "../../../src/export/nbd/server.ts";
import { nbdCommands } from "../../../src/qmp/commands/nbd.ts";
import type { Command } from "../../../src/qmp/schema.ts";
import { type MoodyDriver, moodyDriver } from "../../engine/world.ts";
import { kernelBytes } from "../../kernel/load.ts";
import type { Wire } from "../../qmp/conversation.ts";
import { memoryChannels } from "./channels.ts";
import { RawClient } from "./raw-client.ts";

export const SIZE = 65536;

export class MemoryWorld {
  readonly clock = new VirtualClock();
  readonly moody: MoodyDriver = moodyDriver();
  readonly bugs: unknown[] = [];
  readonly events: string[] = [];
  readonly #replies: ((reply: Wire) => void)[] = [];
  #engine: Engine | null = null;
  #monitor: { receive(message: unknown): void } | null = null;
  /** What the server gets its connections by; null while it does not listen. */
  #accept: ((end: ReturnType<typeof memoryChannels>[0]) => void) | null = null;

  /** @param options of nbd-server-start */
  static async start(
    options: object = {},
    more: readonly BlockDriver[] = [],
  ): Promise<MemoryWorld> {
    const world = new MemoryWorld();
    const { clock } = world;
    const nbd = new NbdServer({ clock, onBug: (bug) => world.bugs.push(bug) });
    const commands = nbdCommands(nbd, async (_, accept) => {
      world.#accept = accept;
      return {
        async close() {
          world.#accept = null;
        },
      };
    }) as readonly Command[];
    const engine = await createEngine({
      clock,
      random: seededRandom(1),
      kernelBytes: kernelBytes(),
      drivers: [memoryDriver(), world.moody, ...more],
      exportDrivers: [nbd],
      commands,
    });
    world.#engine = engine;
    world.#monitor = engine.openMonitor((message) => world.#hear(message as Wire));
    await world.execute("qmp_capabilities");
    const addr = { type: "unix", data: { path: "somewhere" } };
    await world.execute("nbd-server-start", { addr, ...options });
    return world;
  }

  get engine(): Engine {
    assert(this.#engine, "it has been started");
    return this.#engine;
  }

  /** @returns what came back, or the error's text */
  async execute(command: string, args: object = {}): Promise<unknown> {
    const reply = await this.clock.runUntil(this.send(command, args));
    const error = reply["error"] as { desc: string } | undefined;
    return error ? error.desc : reply["return"];
  }

  /** Does not wait. */
  send(command: string, args: object = {}): Promise<Wire> {
    return new Promise((resolve) => {
      this.#replies.push(resolve);
      this.#monitor?.receive({ execute: command, arguments: args });
    });
  }

  /** A disk of that driver, exported for writing under its name. */
  async disk(name: string, driver = "memory", more: object = {}): Promise<void> {
    await this.execute("blockdev-add", { driver, "node-name": name, size: SIZE });
    const args = { type: "nbd", id: name, "node-name": name, writable: true, ...more };
    await this.execute("block-export-add", args);
  }

  /** A connection, not greeted yet. */
  dial(): RawClient {
    const [near, far] = memoryChannels();
    if (this.#accept) this.#accept(far);
    else far.destroy();
    return new RawClient(near);
  }

  /** One that is in the transmission. @param mode "simple", "structured" or "extended" */
  async client(name: string, mode = "structured"): Promise<RawClient> {
    const client = this.dial();
    await this.run(async () => {
      await client.greet();
      if (mode === "structured") await client.option(Option.structuredReply);
      if (mode === "extended") await client.option(Option.extendedHeaders);
      client.isExtended = mode === "extended";
      await client.go(name);
    });
    client.transcript();
    return client;
  }

  /** Lets time run until the work is done. */
  run<T>(work: () => Promise<T>): Promise<T> {
    return this.clock.runUntil(work());
  }

  /** Lets everything happen that takes no time. */
  settle(): Promise<void> {
    return this.clock.advance(0);
  }

  #hear(message: Wire): void {
    if ("event" in message) {
      const { event, data } = message as unknown as { event: string; data: { id?: string } };
      this.events.push(`${event} ${data.id}`);
    } else if (!("QMP" in message)) {
      this.#replies.shift()?.(message);
    }
  }
}
