/**
 * The order in which an owner does all guests' writes: each has a number, and of two that touch the
 * same bytes the one with the lower number is over before the other begins. A flush makes last what is
 * over, so that of these two the later one is durable only if the earlier one is, too. So whoever does
 * those again that are not, in order, has the same disk.
 *
 * It is not all up to some number that is over: a write that takes long is passed by later ones, elsewhere.
 *
 * Offsets of all exports are held against each other, since two may lead to one node.
 */

import type { Run } from "./runs.ts";

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

  get last(): number {
    return this.#last;
  }

  /** Numbers of those that are over. */
  get over(): readonly Run[] {
    const runs: Run[] = [];
    let first = 1;
    for (const order of [...this.#underWay.keys(), this.#last + 1]) {
      if (first < order) runs.push([first, order - 1]);
      first = order + 1;
    }
    return runs;
  }
}
