/**
 * The order in which an owner does all guests' writes: each has a number, and of two that touch the
 * same bytes the one with the lower number is over before the other begins. So whoever does the last
 * of them again, in order, has the same disk, and it is enough to know up to which number all is
 * durable.
 *
 * Offsets of all exports are held against each other, since two may lead to one node.
 */

export interface Turn {
  readonly order: number;
  /** Resolves when all earlier writes to these bytes are over; null: they are. */
  readonly ready: Promise<void> | null;
}

interface UnderWay {
  readonly offset: number;
  readonly end: number;
  readonly over: Promise<void>;
  readonly tellOver: () => void;
}

export class WriteOrder {
  #last = 0;
  /** By number, so the first is the lowest. */
  readonly #underWay = new Map<number, UnderWay>();

  enter(offset: number, bytes: number): Turn {
    const end = offset + bytes;
    const before = [...this.#underWay.values()].filter(
      (other) => offset < other.end && other.offset < end,
    );
    let tellOver = () => {};
    const over = new Promise<void>((resolve) => {
      tellOver = resolve;
    });
    const order = ++this.#last;
    this.#underWay.set(order, { offset, end, over, tellOver });
    const ready =
      before.length === 0 ? null : Promise.all(before.map((one) => one.over)).then(() => {});
    return { order, ready };
  }

  leave(order: number): void {
    this.#underWay.get(order)?.tellOver();
    this.#underWay.delete(order);
  }

  /** Resolves when all that have entered until now are over. */
  async settle(): Promise<void> {
    await Promise.all([...this.#underWay.values()].map(({ over }) => over));
  }

  get last(): number {
    return this.#last;
  }

  /** This one and all before it are over. */
  get settled(): number {
    for (const lowest of this.#underWay.keys()) return lowest - 1;
    return this.#last;
  }
}
