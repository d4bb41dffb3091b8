/**
 * Programs that run side by side, thousands of them: a few shells that wait for commands, because
 * starting a program from a shell costs a tenth of what it costs from a large process. For one program
 * after the other there is spawn.ts.
 */

import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import { quoted } from "./spawn.ts";

export interface Answer {
  readonly status: number;
  /** What it printed. */
  readonly text: string;
}

const END = /\n@@ (\d+)\n$/;

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

  run(folder: string, words: readonly string[], complaints: string): Promise<Answer> {
    const command = `cd ${quoted(folder)} && ${words.map(quoted).join(" ")}`;
    return new Promise((resolve) => {
      this.#answer = resolve;
      this.#process.stdin.write(
        `{ ${command}; } ${complaints} </dev/null; printf '\\n@@ %s\\n' $?\n`,
      );
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

  /** In a folder: names of files count from there. The answer has what it complains of, too. */
  run(folder: string, ...words: string[]): Promise<Answer> {
    return this.#run(folder, words, "2>&1");
  }

  /** The same; what it complains of is dropped. */
  runQuietly(folder: string, ...words: string[]): Promise<Answer> {
    return this.#run(folder, words, "2>/dev/null");
  }

  async #run(folder: string, words: readonly string[], complaints: string): Promise<Answer> {
    const shell = this.#idle.pop() ?? (await new Promise<Shell>((next) => this.#queue.push(next)));
    const answer = await shell.run(folder, words, complaints);
    const next = this.#queue.shift();
    if (next) next(shell);
    else this.#idle.push(shell);
    return answer;
  }

  async end(): Promise<void> {
    await Promise.all(this.#all.map((shell) => shell.end()));
  }
}
