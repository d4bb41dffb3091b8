/** A line that shows how far something is: one that moves on a terminal, a new one each second else. */

import { formatBytes, percentOf } from "../web/format.ts";

const CELLS = 24;
const LOG_EVERY_MS = 1000;

export interface Progress {
  readonly offset: number;
  readonly len: number;
  /** What stands behind the bytes: rate, time left. */
  readonly notes?: readonly string[];
}

/** "█████████░░░░░  47 %  90 MiB of 190 MiB  7.9 MiB/s  13 s left" */
export function drawProgress({ offset, len, notes = [] }: Progress): string {
  const filled = Math.floor((percentOf(offset, len) / 100) * CELLS);
  const bar = "█".repeat(filled) + "░".repeat(CELLS - filled);
  const percent = `${String(percentOf(offset, len)).padStart(3)} %`;
  return [bar, percent, `${formatBytes(offset)} of ${formatBytes(len)}`, ...notes].join("  ");
}

export class ProgressLine {
  readonly #out: NodeJS.WriteStream;
  readonly #indent: string;
  #loggedMs = Number.NEGATIVE_INFINITY;
  #last = "";

  constructor(out: NodeJS.WriteStream = process.stdout, indent = "   ") {
    this.#out = out;
    this.#indent = indent;
  }

  show(progress: Progress): void {
    this.#last = `${this.#indent}${drawProgress(progress)}`;
    if (this.#out.isTTY) {
      const room = this.#out.columns ?? 80;
      this.#out.write(`\r\x1b[K${this.#last.slice(0, room - 1)}`);
      return;
    }
    const nowMs = performance.now();
    if (nowMs - this.#loggedMs < LOG_EVERY_MS) return;
    this.#loggedMs = nowMs;
    this.#out.write(`${this.#last}\n`);
    this.#last = "";
  }

  /** Writes a line of its own; on a terminal the bar goes on below it. */
  say(text: string): void {
    if (!this.#out.isTTY) this.#out.write(`${this.#indent}${text}\n`);
    else this.#out.write(`\r\x1b[K${this.#indent}${text}\n${this.#last}`);
  }

  /** Leaves the last state standing. */
  end(): void {
    if (this.#out.isTTY) this.#out.write("\n");
    else if (this.#last !== "") this.#out.write(`${this.#last}\n`);
    this.#last = "";
  }
}
