/**
 * The real daemons, for tests that set their answers next to ours: the installed
 * qemu-storage-daemon, and a second one where the environment variable QEMU_STORAGE_DAEMON_10 says
 * where to find it, which decides where the two differ.
 */

import { type ChildProcessByStdio, spawn, spawnSync } from "node:child_process";
import type { Readable, Writable } from "node:stream";

const PROGRAMS = ["qemu-storage-daemon", process.env["QEMU_STORAGE_DAEMON_10"]];

/** Those that there are; none is a reason to skip by name, or to fail where CI is to have one. */
export const DAEMONS: readonly string[] = PROGRAMS.filter(
  (program): program is string =>
    program !== undefined && spawnSync(program, ["--version"]).status === 0,
);

const TAIL_CHARACTERS = 4096;

export class RealDaemon {
  readonly #process: ChildProcessByStdio<Writable, Readable, null>;
  #heard = "";
  #hasEnded = false;
  #wake = () => {};

  constructor(program: string) {
    const args = ["--chardev", "stdio,id=c", "--monitor", "chardev=c"];
    this.#process = spawn(program, args, { stdio: ["pipe", "pipe", "ignore"] });
    this.#process.stdout.setEncoding("utf8").on("data", (piece: string) => {
      this.#heard += piece;
      this.#wake();
    });
    this.#process.on("exit", () => {
      this.#hasEnded = true;
      this.#wake();
    });
  }

  say(bytes: Uint8Array | string): void {
    this.#process.stdin.write(bytes);
  }

  /** All that was heard, once `mark` is in the last of it. */
  async hear(mark: string): Promise<string> {
    // Not all of it again each time: answers come by the ten thousand.
    while (!this.#heard.slice(-TAIL_CHARACTERS).includes(mark)) {
      if (this.#hasEnded) throw new Error(`The daemon has ended; it said:\n${this.#heard}`);
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    return this.#heard;
  }

  kill(): void {
    this.#process.kill();
  }
}
