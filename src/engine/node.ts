/** The same engine on Node, with files as stores: for scripts, command lines and tests. */

import { readFile } from "node:fs/promises";
import { type Clock, SystemClock } from "../base/clock.ts";
import type { BlockError } from "../base/errors.ts";
import { type Random, systemRandom } from "../base/random.ts";
import type { Trace } from "../base/trace.ts";
import type { BlockDriver, World } from "../block/driver.ts";
import { browserDrivers } from "../drivers/index.ts";
import { fileDriver } from "../drivers/protocol/file.ts";
import { NbdServer } from "../export/nbd/server.ts";
import { loadKernel } from "../kernel/kernel.ts";
import { nbdCommands } from "../qmp/commands/nbd.ts";
import type { Command } from "../qmp/schema.ts";
import { Client } from "./client.ts";
import { createEngine, type Engine } from "./engine.ts";
import { localPorts } from "./local-port.ts";
import { listen } from "./node-listen.ts";

/** Built by `npm run build:wasm`. */
const KERNEL = new URL("../../build/kernel.wasm", import.meta.url);

export interface NodeEngineOptions {
  readonly clock?: Clock;
  readonly random?: Random;
  readonly trace?: Trace;
  readonly kernelBytes?: BufferSource | WebAssembly.Module;
  /** Instead of all that work on Node. */
  readonly drivers?: Iterable<BlockDriver>;
  /** Besides those that every engine on Node has. */
  readonly commands?: Iterable<Command>;
  /** See EngineOptions. */
  readonly onStopped?: (why: BlockError) => void;
}

export async function createNodeEngine(options: NodeEngineOptions = {}): Promise<Engine> {
  const blobs = new Map<string, Blob>();
  const clock = options.clock ?? new SystemClock();
  const nbd = new NbdServer({ clock, onBug: (bug) => engine.stop(bug) });
  const engine = await createEngine({
    clock,
    random: options.random ?? systemRandom(),
    ...(options.trace && { trace: options.trace }),
    kernelBytes: options.kernelBytes ?? (await readFile(KERNEL)),
    drivers: options.drivers ?? [...browserDrivers(blobs), fileDriver()],
    blobs,
    exportDrivers: [nbd],
    commands: [...nbdCommands(nbd, listen), ...(options.commands ?? [])],
    ...(options.onStopped && { onStopped: options.onStopped }),
  });
  return engine;
}

/** What nodes on Node live in, for those who need no engine. */
export async function createNodeWorld(clock: Clock, random: Random): Promise<World> {
  return { clock, random, kernel: await loadKernel(await readFile(KERNEL)), trace: {} };
}

/** A client in the same thread. Its close() leaves the engine running: call engine.close(). */
export async function connectLocally(engine: Engine): Promise<Client> {
  const [qmp, engineQmp] = localPorts();
  const [data, engineData] = localPorts();
  const client = new Client({ qmp, data, ownsWorker: false });
  engine.connect({ qmp: engineQmp, data: engineData });
  await client.negotiate();
  return client;
}
