/**
 * The log that our filter blklogwrites has written, as a source of crash states: read back from its file
 * in the published format (test/drivers/filter/write-log.ts), so that what is cut is what anybody else
 * could replay.
 *
 *     qcow2 ──▶ blklogwrites ──▶ disk
 *                    └─────────▶ disk.log ──▶ entries
 *
 * It knows one file and whole sectors, and neither lengths nor what else happens during a flush.
 */

import type { BlockdevOptions } from "../../src/block/options.ts";
import { countOf, readLog } from "../drivers/filter/write-log.ts";
import type { Entry, Files, LogSource } from "./log.ts";
import type { Recorder } from "./recorder.ts";

export class WrittenLog implements LogSource {
  starts: Files = new Map();
  readonly #recorder: Recorder;
  readonly #disk: string;
  #known: readonly Entry[] = [];
  #knownCount = 0;
  #skipped = 0;

  /** @param disk name of the file that is logged */
  constructor(recorder: Recorder, disk: string) {
    this.#recorder = recorder;
    this.#disk = disk;
    recorder.add(this.#name);
  }

  /** Since record(). */
  get log(): readonly Entry[] {
    const bytes = this.#recorder.bytesOf(this.#name);
    const count = countOf(bytes);
    if (count > this.#knownCount) {
      this.#known = entriesOf(bytes, this.#disk).slice(this.#skipped);
      this.#knownCount = count;
    }
    return this.#known;
  }

  record(): void {
    this.#skipped += this.log.length;
    this.#known = [];
    this.starts = new Map([[this.#disk, this.#recorder.bytesOf(this.#disk).slice()]]);
  }

  /** What blockdev-add must be told for the file of the image. */
  get options(): BlockdevOptions {
    const store = (filename: string) => ({ driver: "recorded", filename });
    return {
      driver: "blklogwrites",
      file: store(this.#disk),
      log: store(this.#name),
      "log-append": true,
      // What has been done is in the log at once.
      "log-super-update-interval": 1,
    };
  }

  get #name(): string {
    return `${this.#disk}.log`;
  }
}

/** The same in the terms of states.ts. */
export function entriesOf(log: Uint8Array, file: string): Entry[] {
  return readLog(log).entries.flatMap((entry, flush): Entry[] => {
    const { offset, bytes, isFlush, data } = entry;
    const flushed: Entry[] = [
      { kind: "flush-begin", file, flush },
      { kind: "flush", file, flush },
    ];
    // What is discarded may be anything: nothing of it may be gone, some, or all.
    const written = data ?? new Uint8Array(bytes);
    return [
      ...(isFlush ? flushed : []),
      ...(bytes > 0 ? [{ kind: "write", file, offset, bytes: written } as const] : []),
    ];
  });
}
