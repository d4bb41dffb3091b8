/**
 * A daemon in a process of its own, ours or QEMU's, driven over a unix socket: the same words to both.
 */

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { ROOT } from "../../scripts/setup.mjs";

export type Whose = "ours" | "theirs";

/** Longer than a daemon takes to come up on a busy machine. */
const START_TRIES = 600;

export class BenchDaemon {
  /** Of its sockets: the paths of such must be short. */
  readonly #folder: string;
  readonly #process: ChildProcess;
  readonly #monitor: Socket;
  readonly #replies: ((reply: Record<string, unknown>) => void)[] = [];

  private constructor(folder: string, process: ChildProcess, monitor: Socket) {
    this.#folder = folder;
    this.#process = process;
    this.#monitor = monitor;
    createInterface(monitor).on("line", (line) => {
      const message = JSON.parse(line) as Record<string, unknown>;
      if ("return" in message || "error" in message) this.#replies.shift()?.(message);
    });
  }

  static async start(whose: Whose): Promise<BenchDaemon> {
    const folder = mkdtempSync(join(tmpdir(), "blocktab-bench-"));
    const qmp = join(folder, "qmp");
    const options = ["--chardev", `socket,id=c,path=${qmp},server=on,wait=off`, "--monitor", "c"];
    const [program, words] =
      whose === "ours"
        ? [process.execPath, [join(ROOT, "bin", "blocktab.mjs"), "daemon", ...options]]
        : ["qemu-storage-daemon", options];
    const child = spawn(program, words, { stdio: ["ignore", "ignore", "inherit"] });
    const failed = new Promise<never>((_, reject) => {
      child.once("error", reject);
      child.once("exit", (status) => reject(new Error(`${program} has ended with ${status}`)));
    });
    failed.catch(() => {});
    const monitor = await Promise.race([connected(qmp), failed]);
    const daemon = new BenchDaemon(folder, child, monitor);
    await daemon.execute("qmp_capabilities");
    const addr = { type: "unix", data: { path: join(folder, "nbd") } };
    await daemon.execute("nbd-server-start", { addr });
    return daemon;
  }

  async execute(command: string, args: object = {}): Promise<unknown> {
    const reply = new Promise<Record<string, unknown>>((resolve) => this.#replies.push(resolve));
    this.#monitor.write(`${JSON.stringify({ execute: command, arguments: args })}\n`);
    const { error, return: returned } = await reply;
    if (error) throw new Error(`${command} failed: ${JSON.stringify(error)}`);
    return returned;
  }

  /** A node for a file, exported to be written, by the name `disk`. */
  async exportFile(driver: "raw" | "qcow2", filename: string): Promise<void> {
    await this.execute("blockdev-add", {
      driver,
      "node-name": "disk",
      file: { driver: "file", filename },
    });
    const disk = { type: "nbd", id: "disk", "node-name": "disk", name: "disk", writable: true };
    await this.execute("block-export-add", disk);
  }

  /** Of the export. */
  get uri(): string {
    return `nbd+unix:///disk?socket=${join(this.#folder, "nbd")}`;
  }

  async stop(): Promise<void> {
    const ended = once(this.#process, "exit");
    this.#monitor.destroy();
    this.#process.kill("SIGTERM");
    await ended;
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

async function connected(path: string): Promise<Socket> {
  for (let tries = 1; ; tries++) {
    const socket = connect(path);
    try {
      await once(socket, "connect");
      return socket;
    } catch (error) {
      if (tries === START_TRIES) throw error;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}
