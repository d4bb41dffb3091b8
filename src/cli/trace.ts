/**
 * --trace: which points are on, and where their lines go. The options add up, in their order:
 *
 *     -T 'job_*'                     by pattern, `*` and `?` as in a shell
 *     -T 'enable=-job_apply_verb'    a '-' in front switches off
 *     -T events=FILE                 patterns, one a line; behind '#' is for people
 *     -T file=FILE                   lines go there, not to stderr
 *     -T help                        lists the points
 *
 *     1234@1795700426.521000:job_state_transition job "s0" from "created" to "running"
 *     pid  seconds           point                what it tells
 *
 * which is what QEMU's log backend writes where it is to write the time.
 */

import { closeSync, openSync, readFileSync, writeSync } from "node:fs";
import type { Clock } from "../base/clock.ts";
import { Opts } from "../base/opts.ts";
import {
  matchPoints,
  POINT_NAMES,
  switchTrace,
  type Trace,
  type TracePoint,
  type TraceValue,
  traceText,
} from "../base/trace.ts";
import { systemError } from "./chardev/chardev.ts";

/** What `help` shows. */
export const POINT_LIST = `${POINT_NAMES.join("\n")}\n`;

export class TraceLog {
  /** For the engine. */
  readonly trace: Trace = {};
  readonly #clock: Clock;
  readonly #note: (text: string) => void;
  /** Null: stderr. */
  #file: number | null = null;

  /** @param note takes one line for people */
  constructor(clock: Clock, note: (text: string) => void) {
    this.#clock = clock;
    this.#note = note;
  }

  /**
   * @param text as --trace takes it
   * @throws BlockError EINVAL; what the file system says
   */
  add(text: string): void {
    const opts = new Opts(text, "enable");
    const pattern = opts.take("enable");
    const events = opts.take("events");
    const file = opts.take("file");
    opts.finish();
    if (events !== undefined) for (const line of readPatterns(events)) this.#switch(line);
    if (file !== undefined) this.#openFile(file);
    if (pattern !== undefined && pattern !== "") this.#switch(pattern);
  }

  close(): void {
    switchTrace(this.trace, POINT_NAMES, null);
    if (this.#file !== null) closeSync(this.#file);
    this.#file = null;
  }

  #switch(pattern: string): void {
    const isOff = pattern.startsWith("-");
    const name = isOff ? pattern.slice(1) : pattern;
    const points = matchPoints(name);
    // QEMU, too, goes on: names come and go with versions.
    if (points.length === 0) this.#note(`--trace: there is no point '${name}'`);
    switchTrace(this.trace, points, isOff ? null : (point, values) => this.#log(point, values));
  }

  #openFile(path: string): void {
    try {
      const file = openSync(path, "w");
      if (this.#file !== null) closeSync(this.#file);
      this.#file = file;
    } catch (error) {
      throw systemError(error, `Opening '${path}'`);
    }
  }

  #log(point: TracePoint, values: readonly TraceValue[]): void {
    const { seconds, microseconds } = this.#clock.timestamp();
    const time = `${seconds}.${String(Math.floor(microseconds)).padStart(6, "0")}`;
    const line = `${process.pid}@${time}:${traceText(point, values)}\n`;
    if (this.#file === null) process.stderr.write(line);
    else this.#write(this.#file, line);
  }

  /** At once: what was told before a crash is what one wants to see. */
  #write(file: number, line: string): void {
    try {
      writeSync(file, line);
    } catch (error) {
      this.close();
      this.#note(systemError(error, "Tracing").message);
    }
  }
}

function readPatterns(path: string): string[] {
  try {
    const lines = readFileSync(path, "utf8").split("\n");
    return lines.map((line) => line.replace(/#.*/, "").trim()).filter((line) => line !== "");
  } catch (error) {
    throw systemError(error, `Reading '${path}'`);
  }
}

/** Whether the option asks for the list. */
export function asksForPoints(text: string): boolean {
  return /^(?:.*,)?(?:help|\?)$/.test(text);
}
