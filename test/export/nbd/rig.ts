/**
 * NBD servers for tests, real ones: an engine on Node, or a qemu-storage-daemon, with a monitor and
 * a unix socket. Also the real clients.
 */

import { type ChildProcessByStdio, execFile, spawn, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface, type Interface } from "node:readline";
import type { Readable, Writable } from "node:stream";
import { afterAll } from "vitest";
import type { BlockDriver } from "../../../src/block/driver.ts";
import { browserDrivers } from "../../../src/drivers/index.ts";
import { fileDriver } from "../../../src/drivers/protocol/file.ts";
import type { Engine } from "../../../src/engine/engine.ts";
import { createNodeEngine } from "../../../src/engine/node.ts";
import { SocketChannel } from "../../../src/engine/node-listen.ts";
import { kernelBytes } from "../../kernel/load.ts";

export type Wire = Record<string, unknown>;

const has = (tool: string) => spawnSync(tool, ["--version"]).error === undefined;
export const hasQemu = has("qemu-img") && has("qemu-storage-daemon");
export const hasLibnbd = has("nbdinfo");

/** A folder that is gone after the file's tests. */
export function testFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "blocktab-nbd-"));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

let sockets = 0;

/** Something that serves NBD at a socket, and is told by QMP what. */
export interface Served {
  readonly socket: string;
  /** @returns what came back. @throws Error with QEMU's or our class and text */
  execute(command: string, args?: object): Promise<unknown>;
  /** Events, in order. */
  readonly events: Wire[];
  close(): Promise<void>;
}

export interface OurServer extends Served {
  readonly engine: Engine;
}

async function started<T extends Served>(served: T, options: object): Promise<T> {
  await served.execute("qmp_capabilities");
  const addr = { type: "unix", data: { path: served.socket } };
  await served.execute("nbd-server-start", { addr, ...options });
  return served;
}

/** @param more drivers besides those of Node */
export async function ours(
  folder: string,
  options: object = {},
  more: readonly BlockDriver[] = [],
): Promise<OurServer> {
  const engine = await createNodeEngine({
    kernelBytes: kernelBytes(),
    drivers: [...browserDrivers(new Map()), fileDriver(), ...more],
  });
  const events: Wire[] = [];
  const replies: ((reply: Wire) => void)[] = [];
  const monitor = engine.openMonitor((message) => {
    if ("event" in message) events.push(message as Wire);
    else if (!("QMP" in message)) replies.shift()?.(message as Wire);
  });
  const served: OurServer = {
    engine,
    socket: join(folder, `ours-${sockets++}.sock`),
    events,
    async execute(command, args) {
      const reply = new Promise<Wire>((resolve) => replies.push(resolve));
      monitor.receive({ execute: command, ...(args && { arguments: args }) });
      return returned(await reply);
    },
    close: () => engine.close(),
  };
  return started(served, options);
}

/** The real one. @param binary which of them */
export async function qemus(
  folder: string,
  options: object = {},
  binary = "qemu-storage-daemon",
): Promise<Served> {
  const daemon = spawn(binary, ["--chardev", "stdio,id=c", "--monitor", "chardev=c"], {
    stdio: ["pipe", "pipe", "ignore"],
  });
  const talk = new Talk(daemon);
  const served: Served = {
    socket: join(folder, `qemu-${sockets++}.sock`),
    events: talk.events,
    execute: (command, args) => talk.execute(command, args),
    close: () => talk.close(),
  };
  return started(served, options);
}

class Talk {
  readonly events: Wire[] = [];
  readonly #daemon: ChildProcessByStdio<Writable, Readable, null>;
  readonly #lines: Interface;
  readonly #replies: ((reply: Wire) => void)[] = [];

  constructor(daemon: ChildProcessByStdio<Writable, Readable, null>) {
    this.#daemon = daemon;
    this.#lines = createInterface(daemon.stdout);
    this.#lines.on("line", (line) => {
      const message = JSON.parse(line) as Wire;
      if ("event" in message) this.events.push(message);
      else if (!("QMP" in message)) this.#replies.shift()?.(message);
    });
    daemon.on("close", () => {
      for (const reply of this.#replies) reply({ error: { class: "Gone", desc: "it ended" } });
    });
  }

  async execute(command: string, args?: object): Promise<unknown> {
    const reply = new Promise<Wire>((resolve) => this.#replies.push(resolve));
    const line = JSON.stringify({ execute: command, ...(args && { arguments: args }) });
    this.#daemon.stdin.write(`${line}\n`);
    return returned(await reply);
  }

  async close(): Promise<void> {
    const closed = new Promise((resolve) => this.#daemon.on("close", resolve));
    this.#daemon.kill("SIGTERM");
    await closed;
  }
}

function returned(reply: Wire): unknown {
  const error = reply["error"] as { class: string; desc: string } | undefined;
  if (error) throw new Error(`${error.class}: ${error.desc}`);
  return reply["return"];
}

/** Opens a connection. */
export async function dial(socket: string): Promise<SocketChannel & { readonly raw: Socket }> {
  const raw = connect({ path: socket, allowHalfOpen: true });
  await new Promise<void>((resolve, reject) => {
    raw.once("connect", resolve);
    raw.once("error", reject);
  });
  return Object.assign(new SocketChannel(raw), { raw });
}

export function uri(socket: string, name = ""): string {
  return `nbd+unix:///${name}?socket=${socket}`;
}

export interface ToolResult {
  readonly status: number;
  /** Both outputs. */
  readonly output: string;
}

/** Runs a tool to its end; the event loop goes on, for our server runs in it. */
export function tool(name: string, ...args: readonly string[]): Promise<ToolResult> {
  return new Promise((resolve) => {
    // nbdsh takes the first python3, which must be the system's: that has its module.
    const env = { ...process.env, PATH: `/usr/bin:${process.env["PATH"]}` };
    execFile(name, args, { env, maxBuffer: 64 << 20 }, (error, stdout, stderr) => {
      const status = error === null ? 0 : typeof error.code === "number" ? error.code : -1;
      resolve({ status, output: `${stdout}${stderr}` });
    });
  });
}

/** @throws Error if it fails */
export async function must(name: string, ...args: readonly string[]): Promise<string> {
  const { status, output } = await tool(name, ...args);
  if (status !== 0) throw new Error(`${name} ${args.join(" ")} failed (${status}): ${output}`);
  return output;
}

/** A Python script with libnbd's `h`, not connected yet. */
export function nbdsh(...lines: readonly string[]): Promise<string> {
  return must("nbdsh", "-c", lines.join("\n"));
}
