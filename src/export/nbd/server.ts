/**
 * The NBD server: exports by name, and the clients of one listener (QEMU: blockdev-nbd.c).
 *
 *   listener ──▶ waiting ──▶ connections ──▶ exports
 *                   └─ while there are max-connections of them
 *
 * It is the export type `nbd`, too: exports are opened while it runs, and all go with it.
 */

import * as v from "valibot";
import type { ByteChannel, Listener } from "../../base/channel.ts";
import type { Clock } from "../../base/clock.ts";
import { assert, BlockError } from "../../base/errors.ts";
import type { Graph } from "../../block/graph.ts";
import { Perm } from "../../block/permissions.ts";
import type { BlockExport, BlockExportDriver, OpenedExport } from "../driver.ts";
import { Connection } from "./connection.ts";
import { checkStrings, NbdExport, type NbdExportOptions } from "./export.ts";

export const NBD = "nbd";

/** Clients that have connected and wait for another one to go; more are turned away. */
const WAITING_MAX = 100;

export interface NbdServerInit {
  readonly clock: Clock;
  /** Something that is no BlockError came out of a connection: the engine must stop. */
  readonly onBug: (bug: unknown) => void;
}

export interface NbdServerOptions {
  /** 0: as many as come. */
  readonly maxConnections: number;
  /** For each handshake; 0: all the time in the world. */
  readonly handshakeSeconds: number;
  /** Begins to listen. @throws BlockError */
  readonly listen: (onConnection: (channel: ByteChannel) => void) => Promise<Listener>;
}

/** Of one start. */
interface Run {
  readonly options: NbdServerOptions;
  listener: Listener | null;
  isStopping: boolean;
}

export class NbdServer implements BlockExportDriver<NbdExportOptions> {
  readonly type = NBD;
  readonly options = {
    name: v.optional(v.string()),
    description: v.optional(v.string()),
    bitmaps: v.optional(
      v.array(v.union([v.string(), v.strictObject({ node: v.string(), name: v.string() })])),
    ),
    "allocation-depth": v.optional(v.boolean()),
  };
  /** A client believes that its disk keeps its size. */
  readonly share = Perm.all & ~Perm.resize;
  readonly #init: NbdServerInit;
  /** By name; the oldest first. */
  readonly #exports = new Map<string, NbdExport>();
  readonly #connections = new Map<Connection, Promise<void>>();
  readonly #waiting: ByteChannel[] = [];
  #run: Run | null = null;

  constructor(init: NbdServerInit) {
    this.#init = init;
  }

  get isRunning(): boolean {
    return this.#run !== null;
  }

  /** @throws BlockError EBUSY if it runs already, ECANCELED by close(); what listening throws */
  async start(options: NbdServerOptions): Promise<void> {
    if (this.#run) throw new BlockError("EBUSY", "The NBD server is already running");
    const run: Run = { options, listener: null, isStopping: false };
    this.#run = run;
    try {
      const listener = await options.listen((channel) => this.#accept(run, channel));
      if (run.isStopping) {
        await listener.close();
        throw new BlockError("ECANCELED", "The engine is closing down");
      }
      run.listener = listener;
    } catch (error) {
      this.#run = null;
      throw error;
    }
  }

  /**
   * Lets nobody in any more, has the exports removed, and sends all clients away.
   *
   * @param removeExports those of this type
   * @throws BlockError ENOENT if it does not run
   */
  async stop(removeExports: () => Promise<void>): Promise<void> {
    const run = this.#run;
    if (!run?.listener || run.isStopping) throw notRunning();
    run.isStopping = true;
    try {
      await run.listener.close();
      await removeExports();
    } finally {
      await this.#disconnectAll();
      this.#run = null;
    }
  }

  /** The engine closes down; exports are gone already. */
  async close(): Promise<void> {
    if (!this.#run || this.#run.isStopping) return;
    if (this.#run.listener) await this.stop(async () => {});
    // start() sees it when it comes to listen; the engine waits for the command.
    else this.#run.isStopping = true;
  }

  open(exported: BlockExport, options: NbdExportOptions, graph: Graph): OpenedExport {
    const run = this.#run;
    if (!run?.listener || run.isStopping) throw notRunning();
    const name = options.name ?? exported.backend.node.name;
    checkStrings(name, options.description);
    if (this.#exports.has(name)) {
      throw new BlockError("EEXIST", `The NBD server already has an export named '${name}'`);
    }
    const opened = new NbdExport(exported, options, graph, run.options.maxConnections !== 1);
    this.#exports.set(name, opened);
    return {
      shutdown: () => {
        this.#exports.delete(name);
      },
      close: () => opened.close(),
    };
  }

  #accept(run: Run, channel: ByteChannel): void {
    if (run.isStopping || this.#waiting.length >= WAITING_MAX) return channel.destroy();
    this.#waiting.push(channel);
    channel.closed.then(() => {
      const at = this.#waiting.indexOf(channel);
      if (at >= 0) this.#waiting.splice(at, 1);
    });
    this.#admit(run);
  }

  #admit({ options, isStopping }: Run): void {
    const most = options.maxConnections || Number.POSITIVE_INFINITY;
    while (!isStopping && this.#connections.size < most) {
      const channel = this.#waiting.shift();
      if (!channel) return;
      const connection = new Connection({
        channel,
        exports: {
          all: () => [...this.#exports.values()],
          find: (name) => this.#exports.get(name),
        },
        clock: this.#init.clock,
        handshakeSeconds: options.handshakeSeconds,
      });
      this.#connections.set(connection, this.#serve(connection));
    }
  }

  async #serve(connection: Connection): Promise<void> {
    try {
      await connection.run();
    } catch (bug) {
      this.#init.onBug(bug);
    }
    this.#connections.delete(connection);
    if (this.#run) this.#admit(this.#run);
  }

  async #disconnectAll(): Promise<void> {
    for (const channel of this.#waiting.splice(0)) channel.destroy();
    const ends = [...this.#connections.values()];
    for (const connection of this.#connections.keys()) connection.disconnect();
    await Promise.all(ends);
    assert(this.#connections.size === 0, "nobody is let in while the server stops");
  }
}

function notRunning(): BlockError {
  return new BlockError("ENOENT", "The NBD server is not running");
}
