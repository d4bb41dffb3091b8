/**
 * What was done to files, in one order: what a crash can leave is made of it (states.ts). Where such a log
 * comes from is recorder.ts, written-log.ts, and for tests of one image test/drivers/format/log-store.ts.
 *
 *     write a │ write b │ flush a │ truncate b │ step "l2_update" │ write a │ flush a │ …
 */

export type Entry = (
  | { readonly kind: "write"; readonly offset: number; readonly bytes: Uint8Array }
  | { readonly kind: "truncate"; readonly length: number }
  /** A flush keeps what was written before it began. */
  | { readonly kind: "flush-begin"; readonly flush: number }
  | { readonly kind: "flush"; readonly flush: number }
  /** The format tells what comes next (src/block/debug.ts). Changes nothing. */
  | { readonly kind: "step"; readonly step: string }
) & { readonly file: string };

/** Where a log comes from. */
export interface LogSource {
  /** The files as they were when it began. */
  readonly starts: Files;
  readonly log: readonly Entry[];
}

/** Bytes that grow without being copied every time, and are not copied before they change. */
export class Content {
  #room: Uint8Array<ArrayBuffer>;
  #length: number;
  #isOwn = false;

  /** @param bytes that nobody else changes from now on */
  constructor(bytes: Uint8Array<ArrayBuffer>) {
    this.#room = bytes;
    this.#length = bytes.length;
  }

  get bytes(): Uint8Array<ArrayBuffer> {
    return this.#room.subarray(0, this.#length);
  }

  apply(entry: Entry): void {
    if (entry.kind === "truncate") this.resize(entry.length);
    if (entry.kind !== "write") return;
    this.resize(Math.max(this.#length, entry.offset + entry.bytes.length));
    this.#room.set(entry.bytes, entry.offset);
  }

  resize(length: number): void {
    if (!this.#isOwn || length > this.#room.length) {
      const room = new Uint8Array(length + Math.ceil(length / 8));
      room.set(this.#room.subarray(0, Math.min(this.#length, length)));
      this.#room = room;
      this.#isOwn = true;
    }
    if (length < this.#length) this.#room.fill(0, length, this.#length);
    this.#length = length;
  }
}

export type Files = ReadonlyMap<string, Uint8Array<ArrayBuffer>>;
