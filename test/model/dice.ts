/** Chance in the words of a simulation. All of a run's come from one seed. */

import type { Random } from "../../src/base/random.ts";

export class Dice {
  readonly random: Random;

  constructor(random: Random) {
    this.random = random;
  }

  /** A whole number, 0 <= n < limit. */
  below(limit: number): number {
    return this.random.below(limit);
  }

  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)]!;
  }

  /** True once in so many throws, on average. */
  oneIn(times: number): boolean {
    return this.below(times) === 0;
  }
}
