/**
 * How many need an object. Who made it counts one; with the last it is disposed of, once.
 */

import { assert } from "../../base/errors.ts";

export class Reference {
  readonly #name: string;
  readonly #dispose: () => void;
  #count = 1;

  /** @param dispose runs when nobody needs the object any more; must not wait */
  constructor(name: string, dispose: () => void) {
    this.#name = name;
    this.#dispose = dispose;
  }

  get count(): number {
    return this.#count;
  }

  retain(): void {
    assert(this.#count > 0, `${this.#name} is not used after its end`);
    this.#count++;
  }

  release(): void {
    assert(this.#count > 0, `${this.#name} is released as often as it is retained`);
    if (--this.#count === 0) this.#dispose();
  }
}
