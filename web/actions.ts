/** What buttons do, one action per place of the page at a time, and why it did not work. */

import { batch, signal } from "@preact/signals";
import { type Problem, problemOf } from "./hints.ts";

/** Where on the page an action was started, and its error is shown. */
export type Place =
  | "template"
  | "disk"
  | "job"
  | "sector"
  | "verify"
  | "tools"
  | "verbs"
  | "jobs"
  | "images"
  | "recovery"
  | "keeping";

export class Actions {
  readonly problems = signal<Readonly<Partial<Record<Place, Problem>>>>({});
  readonly busy = signal<ReadonlySet<Place>>(new Set());
  /** An action is over, however. */
  onDone: (place: Place) => void = () => {};

  /**
   * Runs what a button does. One action per place at a time.
   *
   * @returns whether it was done; if not, its error is shown at the place
   */
  async act(place: Place, action: () => Promise<unknown>): Promise<boolean> {
    if (this.busy.value.has(place)) return false;
    const { [place]: _old, ...others } = this.problems.value;
    batch(() => {
      this.problems.value = others;
      this.busy.value = new Set([...this.busy.value, place]);
    });
    try {
      await action();
      return true;
    } catch (error) {
      this.show(place, error);
      return false;
    } finally {
      this.busy.value = new Set([...this.busy.value].filter((other) => other !== place));
      this.onDone(place);
    }
  }

  show(place: Place, error: unknown): void {
    console.error(error);
    this.problems.value = { ...this.problems.value, [place]: problemOf(error) };
  }
}
