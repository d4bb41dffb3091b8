/** The same engine on Node, with files as stores: for scripts, command lines and tests. */

import { open, readFile } from "node:fs/promises";
import { KiB } from "../base/bytes.ts";
import { type Clock, SystemClock } from "../base/clock.ts";
import { BlockError } from "../base/errors.ts";
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
import type { OpenedJournal } from "./journal/store.ts";
import { localPorts } from "./local-port.ts";
import { listen } from "./node-listen.ts";
import { nodeZlib } from "./node-zlib.ts";

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
  /** See EngineOptions, here and below. */
  readonly journal?: OpenedJournal;
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
    zlib: nodeZlib,
    drivers: options.drivers ?? [...browserDrivers(blobs), fileDriver()],
    blobs,
    readSecretFile,
    exportDrivers: [nbd],
    commands: [...nbdCommands(nbd, listen), ...(options.commands ?? [])],
    ...(options.journal && { journal: options.journal }),
    ...(options.onStopped && { onStopped: options.onStopped }),
  });
  return engine;
}

/** What nodes on Node live in, for those who need no engine. */
export async function createNodeWorld(clock: Clock, random: Random): Promise<World> {
  const kernel = await loadKernel(await readFile(KERNEL));
  return { clock, random, kernel, trace: {}, zlib: nodeZlib };
}

/** More than this is no passphrase. */
const SECRET_BYTES_MAX = 64 * KiB;

async function readSecretFile(filename: string): Promise<Uint8Array> {
  const buf = new Uint8Array(SECRET_BYTES_MAX + 1);
  let done = 0;
  try {
    const file = await open(filename);
    try {
      for (let bytes = 1; bytes > 0 && done < buf.length; done += bytes) {
        bytes = (await file.read(buf, done, buf.length - done)).bytesRead;
      }
    } finally {
      await file.close();
    }
  } catch (error) {
    if (!(error instanceof Error) || !("code" in error)) throw error;
    throw new BlockError("EIO", `The secret's file '${filename}' cannot be read: ${error.code}`);
  }
  if (done <= SECRET_BYTES_MAX) return buf.slice(0, done);
  throw new BlockError(
    "EFBIG",
    `The secret's file '${filename}' is longer than ${SECRET_BYTES_MAX} bytes`,
  );
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
