/**
 * What a client has written and nobody has flushed since: were the owner lost, the next one would need
 * it again (as with unstable writes of NFSv3, until their COMMIT).
 *
 *   done by this owner      until it is told durable, or lost
 *   done by an earlier one  held: its disk cannot be opened yet. Until this owner, or the next, has done it
 *                           again, or somebody has given the disk up
 */

import { has, type Run, union } from "./runs.ts";

/** Then the client flushes of its own accord. */
export const KEPT_BYTES_ENOUGH = 16 * 1024 * 1024;
/** Further writes wait for that flush. What is held does not count: it grows no more. */
export const KEPT_BYTES_MAX = 32 * 1024 * 1024;
/** What a write without data counts as. */
const ENTRY_BYTES = 256;

export interface KeptWrite {
  readonly export: string;
  /** Of the owner that has done it. */
  readonly epoch: number;
  /** Its number with that one. */
  readonly order: number;
  readonly offset: number;
  readonly bytes: number;
  /** null: zeroes. */
  readonly data: ArrayBuffer | null;
  readonly mayUnmap: boolean;
}

export class KeptWrites {
  #writes: KeptWrite[] = [];
  #epoch = 0;
  #bytes = 0;
  /** By export. The answer to a write may come later than word of a flush that covers it. */
  readonly #durable = new Map<string, readonly Run[]>();

  get all(): readonly KeptWrite[] {
    return this.#writes;
  }

  /** Without what is held, here and below. */
  get bytes(): number {
    return this.#bytes;
  }

  get exports(): readonly string[] {
    return [...new Set(this.#own.map((write) => write.export))];
  }

  add(write: Omit<KeptWrite, "epoch">): void {
    if (has(this.#durable.get(write.export) ?? [], write.order)) return;
    this.#writes.push({ ...write, epoch: this.#epoch });
    this.#bytes += costOf(write);
  }

  /** Those of these numbers need not be kept any more. @param exports null: all */
  durable(exports: readonly string[] | null, writes: readonly Run[]): void {
    for (const id of exports ?? this.exports) {
      this.#durable.set(id, union(this.#durable.get(id) ?? [], writes));
    }
    this.#keep(
      ({ epoch, order, export: id }) =>
        epoch !== this.#epoch || !has(writes, order) || exports?.includes(id) === false,
    );
  }

  /** Nobody waits for those of this owner any more. */
  giveUp(): void {
    this.#keep(({ epoch }) => epoch !== this.#epoch);
  }

  /**
   * An owner has let the client in: all of before is durable, or lost, but for what is held.
   *
   * @param held exports that it cannot open yet
   */
  welcome(epoch: number, held: readonly string[]): void {
    // Another owner counts from one again.
    if (epoch !== this.#epoch) this.#durable.clear();
    this.#epoch = epoch;
    this.#keep((write) => write.epoch !== epoch && held.includes(write.export));
  }

  /** Something is held of it. */
  holds(exportId: string): boolean {
    return this.#writes.some((write) => write.epoch !== this.#epoch && write.export === exportId);
  }

  /** What is held of these need not be any more. @returns those of which there was something */
  release(exports: readonly string[]): readonly string[] {
    const isHeld = ({ epoch, export: id }: KeptWrite) =>
      epoch !== this.#epoch && exports.includes(id);
    const released = new Set(this.#writes.filter(isHeld).map((write) => write.export));
    this.#keep((write) => !isHeld(write));
    return [...released];
  }

  get #own(): readonly KeptWrite[] {
    return this.#writes.filter(({ epoch }) => epoch === this.#epoch);
  }

  #keep(isKept: (write: KeptWrite) => boolean): void {
    this.#writes = this.#writes.filter(isKept);
    this.#bytes = this.#own.reduce((sum, write) => sum + costOf(write), 0);
  }
}

function costOf({ data }: Pick<KeptWrite, "data">): number {
  return ENTRY_BYTES + (data?.byteLength ?? 0);
}
