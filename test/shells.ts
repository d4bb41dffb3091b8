/**
 * The real qemu-img, thousands of times: a few shells that wait for commands, because starting a
 * program from a shell costs a tenth of what it costs from a large process.
 */

import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";

export interface Answer {
  readonly status: number;
  readonly text: string;
}

const END = /^@@ (\d+)\n$/m;

class Shell {
  readonly #process: ChildProcessWithoutNullStreams;
  #text = "";
  #answer: ((answer: Answer) => void) | null = null;

  constructor() {
    this.#process = spawn("sh", [], { stdio: "pipe" });
    this.#process.stdout.setEncoding("utf8").on("data", (text: string) => {
      this.#text += text;
      const end = END.exec(this.#text);
      if (!end) return;
      const answer = { status: Number(end[1]), text: this.#text.slice(0, end.index) };
      this.#text = "";
      this.#answer?.(answer);
    });
  }

  /** @param command words without quotes or spaces */
  run(command: readonly string[]): Promise<Answer> {
    return new Promise((resolve) => {
      this.#answer = resolve;
      this.#process.stdin.write(`${command.join(" ")} 2>&1 </dev/null; echo "@@ $?"\n`);
    });
  }

  end(): Promise<void> {
    return new Promise((resolve) => {
      this.#process.on("close", () => resolve());
      this.#process.stdin.end();
    });
  }
}

export class Shells {
  readonly #idle: Shell[] = [];
  readonly #all: Shell[] = [];
  readonly #queue: ((shell: Shell) => void)[] = [];

  constructor(count: number) {
    for (let i = 0; i < count; i++) this.#all.push(new Shell());
    this.#idle.push(...this.#all);
  }

  /** In a folder: names of data files count from there. */
  async qemuImg(folder: string, ...args: string[]): Promise<Answer> {
    const shell = this.#idle.pop() ?? (await new Promise<Shell>((next) => this.#queue.push(next)));
    const answer = await shell.run(["cd", folder, "&&", "qemu-img", ...args]);
    const next = this.#queue.shift();
    if (next) next(shell);
    else this.#idle.push(shell);
    return answer;
  }

  async end(): Promise<void> {
    await Promise.all(this.#all.map((shell) => shell.end()));
  }
}
