/**
 * An engine with an NBD server, a disk that is attacked, and a neighbour: a client of another export
 * who reads and writes all the time, and must always be answered with the right bytes.
 *
 *     attacker ──▶ "fuzz"       made anew for each attack, raw or qcow2
 *     neighbour ─▶ "quiet"      stays
 */

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ByteChannel } from "../../../src/base/channel.ts";
import { SystemClock } from "../../../src/base/clock.ts";
import { BlockError } from "../../../src/base/errors.ts";
import { seededRandom } from "../../../src/base/random.ts";
import { qcow2Driver } from "../../../src/drivers/format/qcow2/index.ts";
import { memoryDriver } from "../../../src/drivers/protocol/memory.ts";
import { createEngine, type Engine } from "../../../src/engine/engine.ts";
import { listen } from "../../../src/engine/node-listen.ts";
import { Option } from "../../../src/export/nbd/protocol.ts";
import { NbdServer } from "../../../src/export/nbd/server.ts";
import { nbdCommands } from "../../../src/qmp/commands/nbd.ts";
import type { Command } from "../../../src/qmp/schema.ts";
import { memoryChannels } from "../../export/nbd/channels.ts";
import { RawClient } from "../../export/nbd/raw-client.ts";
import { dial } from "../../export/nbd/rig.ts";
import { compiledKernel } from "../../kernel/load.ts";
import type { Dice } from "../../model/dice.ts";
import { EXPORT, SIZE } from "./session.ts";

const QUIET_BYTES = 65536;
/** What takes longer hangs. */
export const PATIENCE_MS = 30_000;

/** A client's end of a connection. */
export interface Line {
  readonly channel: ByteChannel;
  /** Sends no more, but may be told the rest. */
  endSending(): void;
}

export class FuzzWorld {
  readonly engine: Engine;
  readonly clock: SystemClock;
  readonly #bugs: unknown[];
  readonly #dial: () => Promise<Line>;
  readonly #done: () => void;
  #neighbour!: RawClient;
  readonly #quiet = new Uint8Array(QUIET_BYTES);
  #checks = 0;

  private constructor(
    engine: Engine,
    clock: SystemClock,
    bugs: unknown[],
    dialled: () => Promise<Line>,
    done: () => void,
  ) {
    this.engine = engine;
    this.clock = clock;
    this.#bugs = bugs;
    this.#dial = dialled;
    this.#done = done;
  }

  /** @param onSockets real ones; else connections in memory */
  static async start(onSockets: boolean): Promise<FuzzWorld> {
    const bugs: unknown[] = [];
    const clock = new SystemClock();
    const nbd = new NbdServer({ clock, onBug: (bug) => bugs.push(bug) });
    let accept: (channel: ByteChannel) => void = () => {};
    const inMemory = async (_: unknown, onConnection: (channel: ByteChannel) => void) => {
      accept = onConnection;
      return { close: async () => {} };
    };
    const engine = await createEngine({
      clock,
      random: seededRandom(1),
      kernelBytes: await compiledKernel(),
      drivers: [memoryDriver(), qcow2Driver()],
      exportDrivers: [nbd],
      commands: nbdCommands(nbd, onSockets ? listen : inMemory) as readonly Command[],
    });
    const folder = onSockets ? mkdtempSync(join(tmpdir(), "blocktab-fuzz-")) : "";
    const path = join(folder, "s");
    const dialled = async (): Promise<Line> => {
      if (onSockets) {
        const channel = await dial(path);
        return { channel, endSending: () => void channel.raw.end() };
      }
      const [near, far] = memoryChannels();
      accept(far);
      return { channel: near, endSending: () => near.endSending() };
    };
    const done = () => {
      if (onSockets) rmSync(folder, { recursive: true, force: true });
    };
    const world = new FuzzWorld(engine, clock, bugs, dialled, done);
    const addr = { type: "unix", data: { path } };
    await engine.execute("nbd-server-start", { addr });
    await world.#moveIn();
    return world;
  }

  dial(): Promise<Line> {
    return this.#dial();
  }

  /** The disk for the next attack. */
  async openTarget(dice: Dice): Promise<void> {
    const { engine } = this;
    if (dice.oneIn(2)) {
      await engine.execute("blockdev-add", { driver: "memory", "node-name": EXPORT, size: SIZE });
    } else {
      await engine.execute("blockdev-add", { driver: "memory", "node-name": "store", size: 0 });
      const options = { driver: "qcow2", file: "store", size: SIZE, "cluster-size": 4096 };
      await engine.execute("blockdev-create", { "job-id": "create", options });
      await this.until("the image is made", async () => {
        const jobs = (await engine.execute("query-jobs", {})) as { status: string }[];
        return jobs[0]?.status === "concluded";
      });
      await engine.execute("job-dismiss", { id: "create" });
      await engine.execute("blockdev-add", { driver: "qcow2", "node-name": EXPORT, file: "store" });
    }
    const writable = !dice.oneIn(10);
    const bitmap = { node: EXPORT, name: "b0", disabled: !writable };
    await engine.execute("block-dirty-bitmap-add", bitmap);
    await engine.execute("block-export-add", {
      type: "nbd",
      id: EXPORT,
      "node-name": EXPORT,
      writable,
      bitmaps: ["b0"],
      "allocation-depth": true,
    });
  }

  /** It must be possible to take it away. @param hard whoever is still there is sent away */
  async closeTarget(hard: boolean): Promise<void> {
    const { engine } = this;
    const mode = hard ? "hard" : "safe";
    await this.until(`the export is removed, ${mode}`, () =>
      this.#succeeds("block-export-del", { id: EXPORT, mode }),
    );
    await this.until("the disk is free", () =>
      this.#succeeds("blockdev-del", { "node-name": EXPORT }),
    );
    const nodes = (await engine.execute("query-named-block-nodes", {})) as {
      "node-name": string;
    }[];
    if (nodes.some((node) => node["node-name"] === "store")) {
      await engine.execute("blockdev-del", { "node-name": "store" });
    }
  }

  /** The neighbour writes, and reads that and something older. @throws Error */
  async checkNeighbour(dice: Dice): Promise<void> {
    const at = 512 * dice.below(QUIET_BYTES / 512);
    const old = 512 * dice.below(QUIET_BYTES / 512);
    const value = 1 + dice.below(255);
    const data = new Uint8Array(512).fill(value);
    await this.patiently("the neighbour's turn", async () => {
      await this.#neighbour.request({ type: 1, offset: at, data });
      this.#quiet.fill(value, at, at + 512);
      await this.#expect(at);
      await this.#expect(old);
    });
    this.#checks++;
  }

  /** @throws Error if something of the engine's own has gone wrong */
  checkAlive(): void {
    if (this.#bugs.length > 0) throw new Error("A connection has a bug", { cause: this.#bugs[0] });
    if (this.engine.stopped) throw this.engine.stopped;
  }

  /** @throws Error if it does not come true in a long time */
  async until(what: string, isTrue: () => Promise<boolean>): Promise<void> {
    await this.patiently(what, async () => {
      while (!(await isTrue())) {
        this.checkAlive();
        await this.clock.yield();
      }
    });
  }

  /** @throws Error what the work throws, and if it does not end in a long time */
  async patiently<T>(what: string, work: () => Promise<T>): Promise<T> {
    let timer: { cancel(): void } | undefined;
    const isLate = new Promise<never>((_, reject) => {
      timer = this.clock.setTimer(PATIENCE_MS, () => reject(new Error(`It hangs: ${what}`)));
    });
    try {
      return await Promise.race([work(), isLate]);
    } finally {
      timer!.cancel();
    }
  }

  async close(): Promise<void> {
    await this.patiently("the end", () => this.engine.close());
    this.#done();
    if (this.#checks === 0) throw new Error("Nobody has looked after the neighbour");
  }

  async #moveIn(): Promise<void> {
    const node = { driver: "memory", "node-name": "quiet", size: QUIET_BYTES };
    await this.engine.execute("blockdev-add", node);
    const quiet = { type: "nbd", id: "quiet", "node-name": "quiet", writable: true };
    await this.engine.execute("block-export-add", quiet);
    this.#neighbour = new RawClient((await this.#dial()).channel);
    await this.#neighbour.greet();
    await this.#neighbour.option(Option.structuredReply);
    await this.#neighbour.go("quiet");
    this.#neighbour.transcript();
  }

  async #expect(offset: number): Promise<void> {
    // With that flag zeroes are sent, too.
    await this.#neighbour.request({ type: 0, offset, bytes: 512, flags: 4 });
    const value = this.#quiet[offset]!.toString(16).padStart(2, "0");
    const heard = this.#neighbour.transcript();
    if (!heard.endsWith(` 512 x ${value}\n`)) {
      throw new Error(`The neighbour wants ${value} at ${offset}, and is told: ${heard}`);
    }
  }

  async #succeeds(command: string, args: object): Promise<boolean> {
    try {
      await this.engine.execute(command, args);
      return true;
    } catch (error) {
      if (error instanceof BlockError) return false;
      throw error;
    }
  }
}
