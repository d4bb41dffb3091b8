/**
 * The daemons that are compared, and one of them as a running process.
 *
 *   theirs   qemu-storage-daemon on the PATH, and a second one, of QEMU 10, that the environment
 *            variable QEMU_STORAGE_DAEMON_10 names
 *   ours     `node bin/blocktab.mjs daemon`
 *
 * All take the same command line. QMP goes over standard input and output.
 */

import { type ChildProcessWithoutNullStreams, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { isOlder } from "../../scripts/setup.mjs";

const ROOT = join(import.meta.dirname, "..", "..");

export interface Daemon {
  /** "qemu-storage-daemon 7.2.22". */
  readonly title: string;
  readonly command: readonly string[];
  /** Of QEMU. Ours has none: it follows the newest that is known. */
  readonly version: string | null;
}

export type Message = Record<string, unknown>;

export const OURS: Daemon = {
  title: "blocktab daemon",
  command: [process.execPath, join(ROOT, "bin", "blocktab.mjs"), "daemon"],
  version: null,
};

/** What a person without a qemu-storage-daemon should do. */
export const HOW_TO_INSTALL =
  "qemu-storage-daemon is not on the PATH (Debian: apt install qemu-system-common qemu-utils)";

/** The real ones that are here, the oldest first; none where QEMU is not installed. */
export function realDaemons(): Daemon[] {
  const candidates = ["qemu-storage-daemon", process.env["QEMU_STORAGE_DAEMON_10"]];
  const found: Daemon[] = [];
  for (const command of candidates) {
    if (command === undefined || command === "") continue;
    const { stdout } = spawnSync(command, ["--version"], { encoding: "utf8" });
    const version = /version (\d+\.\d+\.\d+)/.exec(stdout ?? "")?.[1];
    if (version === undefined) continue;
    found.push({ title: `qemu-storage-daemon ${version}`, command: [command], version });
  }
  return found;
}

/** Whether `daemon` is a QEMU that is older than `version` ("8.1.0"). */
export function isBefore({ version: own }: Pick<Daemon, "version">, version: string): boolean {
  return own !== null && isOlder(own, version);
}

export class DaemonProcess {
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #end: Promise<string>;
  #complaints = "";

  /** @param hear takes each message: greeting, reply or event, and null once the daemon is gone */
  constructor(
    { command, version }: Daemon,
    options: {
      readonly folder: string;
      readonly args: readonly string[];
      hear(message: Message | null): void;
    },
  ) {
    const [program, ...before] = command;
    const monitor = ["--chardev", "stdio,id=stdio", "--monitor", "chardev=stdio"];
    this.#child = spawn(program!, [...before, ...options.args, ...monitor], {
      cwd: options.folder,
    });
    this.#child.stderr.setEncoding("utf8").on("data", (text) => {
      this.#complaints += text;
    });
    // Writing to a daemon that has just ended is no failure of its own: its end is seen.
    this.#child.stdin.on("error", () => {});
    const lines = createInterface(this.#child.stdout);
    lines.on("line", (text) => {
      // QEMU tells of images that it makes on standard output, among its replies.
      if (text.startsWith("{")) options.hear(JSON.parse(text));
      else if (version !== null) this.#complaints += `${text}\n`;
      else options.hear({ "not a message": text });
    });
    const close = once(lines, "close");
    this.#end = once(this.#child, "exit").then(async ([status, signal]) => {
      await close;
      options.hear(null);
      return signal === null ? `status ${status}` : `signal ${signal}`;
    });
  }

  send(text: string): void {
    this.#child.stdin.write(`${text}\n`);
  }

  /** "status 0", or "signal SIGABRT"; null if it has not ended within so many seconds. */
  async end(seconds: number): Promise<string | null> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<null>((resolve) => {
      timer = setTimeout(resolve, seconds * 1000, null);
    });
    const how = await Promise.race([this.#end, late]);
    clearTimeout(timer);
    return how;
  }

  /** What it wrote on standard error: for people, never compared. */
  get complaints(): string {
    return this.#complaints;
  }

  /** The end of a script that did not get to its own. */
  async kill(): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#end;
  }
}
