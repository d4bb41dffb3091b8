/**
 * What guests have done, and so what a sector may read as: the last write, or one that was under way
 * together with it. A write that was acknowledged counts unless all who knew of it may have lost it:
 * its guest is dead, or has been told, and nobody has flushed since.
 */

/** Whose writes they are. */
export interface Writer {
  readonly isDead: boolean;
}

export interface Write {
  readonly id: number;
  readonly guest: Writer;
  readonly sector: number;
  readonly began: number;
  /** Infinity: nobody knows of it. */
  ended: number;
  /** The owner that has done it. */
  epoch: number;
  isFlushed: boolean;
  isLost: boolean;
}

export class History {
  #moment = 0;
  #id = 0;
  readonly #writes: Write[] = [];

  get writeCount(): number {
    return this.#writes.length;
  }

  now(): number {
    return ++this.#moment;
  }

  begin(guest: Writer, sector: number, isZero: boolean): Write {
    const write: Write = {
      id: isZero ? 0 : ++this.#id,
      guest,
      sector,
      began: this.now(),
      ended: Number.POSITIVE_INFINITY,
      epoch: 0,
      isFlushed: false,
      isLost: false,
    };
    this.#writes.push(write);
    return write;
  }

  /** @param epoch of the owner that has done it */
  end(write: Write, epoch: number): void {
    write.ended = this.now();
    write.epoch = epoch;
  }

  /**
   * @param began when the flush did
   * @param epoch of the owner that did it; null: there was more than one meanwhile
   */
  flushed(began: number, guest: Writer, epoch: number | null): void {
    for (const write of this.#writes) {
      // What an earlier owner did for somebody who is gone may be gone, too.
      const isMeant = write.guest === guest || write.epoch === epoch;
      if (isMeant && write.ended < began && !write.isLost) write.isFlushed = true;
    }
  }

  /** Those that it has not flushed may be lost from now on. */
  lost(guest: Writer): void {
    for (const write of this.#writes) {
      if (write.guest === guest && !write.isFlushed) write.isLost = true;
    }
  }

  /** @param began when the read did; throws if the sector cannot have that content */
  check(sector: number, id: number, began: number): void {
    const writes = this.#writes.filter((write) => write.sector === sector);
    const binding = writes.filter(
      (write) => write.ended < began && (write.isFlushed || !(write.guest.isDead || write.isLost)),
    );
    const isSuperseded = (write: Write) => binding.some((later) => later.began > write.ended);
    const isAllowed =
      writes.some((write) => write.id === id && !isSuperseded(write)) ||
      (id === 0 && binding.length === 0);
    if (isAllowed) return;
    const text = writes.map(({ guest, ...write }) =>
      JSON.stringify({ ...write, isDead: guest.isDead }),
    );
    throw new Error(`Sector ${sector} reads as ${id}, at ${began}:\n${text.join("\n")}`);
  }
}
