/**
 * Reads and writes of a file on Node: small ones in this thread, others in the thread pool.
 *
 * What lies in the page cache is there in some microseconds, of which the way to the pool and back
 * takes most: a read of 4 KiB costs 6 µs of processor time in this thread and 70 by way of the pool
 * (fs.promises; with callbacks it is 67), 64 KiB 11 and 50, 1 MiB about the same. What has to come
 * from a disk would stop everything else here for as long as that takes: so after a call that took
 * long, the next ones go to the pool, and only then another one is tried here.
 *
 * Nor does a call here let anybody else have a turn, and a job that only waits for such calls would
 * keep monitors and timers out for as long as it runs: so after many of them calls go to the pool
 * until one has come back, with which the event loop has come round.
 */

import { readSync, writeSync } from "node:fs";
import type { FileHandle } from "node:fs/promises";
import { KiB } from "../../base/bytes.ts";
import type { Clock } from "../../base/clock.ts";

/** What is longer goes to the pool in any case: there it is as quick, and nobody waits for it. */
const HERE_BYTES_MAX = 64 * KiB;
/** No page cache takes that long, though a busy machine may let us wait that long. */
const SLOW_MS = 2;
/** So many calls go to the pool after a slow one. */
const CAUTIOUS_CALLS = 32;

/** So many calls are made here before everybody else gets a turn. */
const TURN_CALLS = 32;

type Call = (fd: number, buf: Uint8Array, offset: number) => number;

export class FileIo {
  readonly #clock: Clock;
  /** Calls that still go to the pool. */
  #cautious = 0;
  /** Calls here since one has come back from the pool. */
  #inTurn = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** @returns how many bytes it were; 0 at the end. @throws what Node throws */
  read(file: FileHandle, buf: Uint8Array, offset: number): number | Promise<number> {
    if (this.#isForPool(buf)) {
      return this.#turned(file.read(buf, 0, buf.length, offset)).then((done) => done.bytesRead);
    }
    return this.#here(readHere, file, buf, offset);
  }

  /** @returns how many bytes it were. @throws what Node throws */
  write(file: FileHandle, buf: Uint8Array, offset: number): number | Promise<number> {
    if (this.#isForPool(buf)) {
      return this.#turned(file.write(buf, 0, buf.length, offset)).then((done) => done.bytesWritten);
    }
    return this.#here(writeHere, file, buf, offset);
  }

  #isForPool({ length }: Uint8Array): boolean {
    if (length > HERE_BYTES_MAX || this.#inTurn >= TURN_CALLS) return true;
    if (this.#cautious === 0) return false;
    this.#cautious--;
    return true;
  }

  /** By way of the pool; also a call that fails has come back. */
  #turned<T>(pooled: Promise<T>): Promise<T> {
    return pooled.finally(() => {
      this.#inTurn = 0;
    });
  }

  #here(call: Call, { fd }: FileHandle, buf: Uint8Array, offset: number): number {
    this.#inTurn++;
    const start = this.#clock.now();
    try {
      return call(fd, buf, offset);
    } finally {
      if (this.#clock.now() - start > SLOW_MS) this.#cautious = CAUTIOUS_CALLS;
    }
  }
}

const readHere: Call = (fd, buf, offset) => readSync(fd, buf, 0, buf.length, offset);
const writeHere: Call = (fd, buf, offset) => writeSync(fd, buf, 0, buf.length, offset);
