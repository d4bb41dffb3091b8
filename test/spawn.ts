/**
 * Programs that tests run and wait for, started by a small process. Starting one copies the page tables
 * of who starts it: those of a worker with an engine are large, those of a shell are not.
 *
 *     worker ── "\n" ──→ FIFO "go" ──→ sh: runs the file "command" ──→ programs, one by one
 *        ←── status ── FIFO "ended" ←──┘      their output in the files "stdout" and "stderr"
 *
 * The shell ends, and takes the folder with it, when the worker closes its end of "go" by its own end.
 */

import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, openSync, readFileSync, readSync, writeFileSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

export interface Ended {
  /** 128 + its number if a signal ended it. */
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Surroundings {
  /** Names of files count from here. */
  readonly cwd?: string | undefined;
  readonly input?: string;
  /** Whether what it complains of is dropped: of some images there is a lot. */
  readonly quiet?: boolean;
}

/** What a shell ends with if there is no such program. */
const NOT_FOUND = 127;

/** A signal to all of a run ends the loop, not the shell. */
const LOOP = `trap : HUP INT TERM
cd "$0" && exec 3<go 4>ended
while read -r _ <&3; do . "$0/command"; echo $? >&4; done
rm -r "$0"`;

class Shell {
  readonly #folder = mkdtempSync(join(tmpdir(), "blocktab-shell-"));
  readonly #go: number;
  readonly #ended: number;

  constructor() {
    const go = join(this.#folder, "go");
    const ended = join(this.#folder, "ended");
    execFileSync("mkfifo", [go, ended]);
    spawn("/bin/sh", ["-c", LOOP, this.#folder], { stdio: "ignore" }).unref();
    this.#go = openSync(go, "w");
    this.#ended = openSync(ended, "r");
  }

  run(words: readonly string[], { cwd = process.cwd(), input, quiet }: Surroundings): Ended {
    const at = (name: string) => join(this.#folder, name);
    if (input !== undefined) writeFileSync(at("stdin"), input);
    const stdin = input === undefined ? "/dev/null" : at("stdin");
    const redirected = `<${stdin} >${at("stdout")} 2>${at("stderr")}`;
    const dropped = quiet ? "2>/dev/null" : "";
    const command = `${words.map(quoted).join(" ")} ${dropped}`;
    writeFileSync(at("command"), `{ cd ${quoted(cwd)} && ${command}; } ${redirected}\n`);
    writeSync(this.#go, "\n");
    const status = this.#status();
    const text = (name: string) => readFileSync(at(name), "utf8");
    return { status, stdout: text("stdout"), stderr: text("stderr") };
  }

  #status(): number {
    const buf = new Uint8Array(16);
    const bytes = readSync(this.#ended, buf);
    if (bytes === 0) throw new Error("the shell that runs programs has ended");
    return Number(new TextDecoder().decode(buf.subarray(0, bytes)));
  }
}

/** For a shell. */
export function quoted(word: string): string {
  return `'${word.replaceAll("'", "'\\''")}'`;
}

let shell: Shell | undefined;

/** Runs a program to its end. */
export function run(program: string, args: readonly string[], where: Surroundings = {}): Ended {
  shell ??= new Shell();
  const ended = shell.run([program, ...args], where);
  if (ended.status === NOT_FOUND) throw new Error(ended.stderr);
  return ended;
}

/** The same; that it fails is an error. @returns what it printed */
export function runWell(program: string, args: readonly string[], where?: Surroundings): string {
  const { status, stdout, stderr } = run(program, args, where);
  if (status === 0) return stdout;
  throw Object.assign(new Error(`${program} ${args.join(" ")}: ${stdout}${stderr}`), {
    status,
    stdout,
    stderr,
  });
}
