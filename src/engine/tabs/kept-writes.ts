/**
 * What a client has written and nobody has flushed since: were the owner lost, the next one would need
 * it again (as with unstable writes of NFSv3, until their COMMIT).
 */

/** Then the client flushes of its own accord. */
export const KEPT_BYTES_ENOUGH = 16 * 1024 * 1024;
/** Further writes wait for that flush. */
export const KEPT_BYTES_MAX = 32 * 1024 * 1024;
/** What a write without data counts as. */
const ENTRY_BYTES = 256;

export interface KeptWrite {
  readonly export: string;
  /** Its number with the owner that has done it. */
  readonly order: number;
  readonly offset: number;
  readonly bytes: number;
  /** null: zeroes. */
  readonly data: ArrayBuffer | null;
  readonly mayUnmap: boolean;
}

export class KeptWrites {
  #writes: KeptWrite[] = [];
  #bytes = 0;
  /** By export. The answer to a write may come later than word of a flush that covers it. */
  readonly #durable = new Map<string, number>();

  get all(): readonly KeptWrite[] {
    return this.#writes;
  }

  get bytes(): number {
    return this.#bytes;
  }

  get exports(): readonly string[] {
    return [...new Set(this.#writes.map((write) => write.export))];
  }

  add(write: KeptWrite): void {
    if (write.order <= (this.#durable.get(write.export) ?? 0)) return;
    this.#writes.push(write);
    this.#bytes += costOf(write);
  }

  /** Those up to this number need not be kept any more. @param exports null: all */
  durable(exports: readonly string[] | null, upTo: number): void {
    for (const id of exports ?? this.exports) {
      this.#durable.set(id, Math.max(upTo, this.#durable.get(id) ?? 0));
    }
    this.#keep((write) => write.order > upTo || exports?.includes(write.export) === false);
  }

  clear(): void {
    this.#keep(() => false);
  }

  /** Another owner counts from one again. */
  startAnew(): void {
    this.clear();
    this.#durable.clear();
  }

  #keep(isKept: (write: KeptWrite) => boolean): void {
    this.#writes = this.#writes.filter(isKept);
    this.#bytes = this.#writes.reduce((sum, write) => sum + costOf(write), 0);
  }
}

function costOf({ data }: KeptWrite): number {
  return ENTRY_BYTES + (data?.byteLength ?? 0);
}
