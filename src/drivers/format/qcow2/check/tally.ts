/**
 * What a check has found so far, and how it goes on: the counts, the telling, and the pauses.
 */

import type { Clock } from "../../../../base/clock.ts";
import { throwIfAborted } from "../../../../base/errors.ts";
import { TimeSlice } from "../../../../base/time-slice.ts";
import {
  type CheckFinding,
  type CheckRequest,
  type CheckResult,
  FINDINGS_MAX,
} from "../../../../block/check.ts";

type Counts = { -readonly [K in keyof CheckResult]: number };

export class Tally {
  readonly counts: Counts = {
    "check-errors": 0,
    corruptions: 0,
    leaks: 0,
    "corruptions-fixed": 0,
    "leaks-fixed": 0,
    "image-end-offset": 0,
    "total-clusters": 0,
    "allocated-clusters": 0,
    "fragmented-clusters": 0,
    "compressed-clusters": 0,
  };
  /** The refcounts cannot be mended one by one: see rebuild-refcounts.ts. */
  needsRebuild = false;
  /**
   * Something that refers to clusters could not be read, so what nothing seems to refer to may be in
   * use: no count may be lowered.
   */
  isIncomplete = false;
  /** Of the corruptions and check errors, those that are gone with new refcounts. */
  readonly #ofRefcounts = { corruptions: 0, checkErrors: 0 };
  /** Walking again over what was told already. */
  isSilent = false;
  readonly #request: CheckRequest;
  readonly #slice: TimeSlice;
  #findings = 0;
  #done = 0;
  #total = 0;

  constructor(request: CheckRequest, clock: Clock) {
    this.#request = request;
    this.#slice = new TimeSlice(clock, request.signal);
  }

  /** @param times as often as that stands in the image */
  corruption(text: string, times = 1): void {
    if (this.isSilent || times === 0) return;
    this.counts.corruptions += times;
    this.#tell("corruption", text, false, times);
  }

  /** A corruption that is mended with what is written next. */
  fixedCorruption(text: string, times = 1): void {
    if (this.isSilent || times === 0) return;
    this.counts["corruptions-fixed"] += times;
    this.#tell("corruption", text, true, times);
  }

  /** A corruption that new refcounts mend. */
  refcountCorruption(text: string): void {
    if (!this.isSilent) this.#ofRefcounts.corruptions++;
    this.corruption(text);
  }

  /** Refcounts that cannot be read. */
  refcountError(text: string, times: number): void {
    if (!this.isSilent) this.#ofRefcounts.checkErrors += times;
    this.checkError(text, times);
  }

  /** All refcounts have been made anew. */
  settleRebuilt(): void {
    const { corruptions, checkErrors } = this.#ofRefcounts;
    this.counts.corruptions -= corruptions;
    this.counts["corruptions-fixed"] += corruptions;
    this.counts["check-errors"] -= checkErrors;
    if (!this.isIncomplete) {
      this.counts["leaks-fixed"] += this.counts.leaks;
      this.counts.leaks = 0;
    }
    this.#tell("corruption", "All refcounts were made anew", true, 1);
  }

  leak(text: string, fixed: boolean): void {
    if (this.isSilent) return;
    this.counts[fixed ? "leaks-fixed" : "leaks"]++;
    this.#tell("leak", text, fixed, 1);
  }

  checkError(text: string, times = 1): void {
    if (this.isSilent || times === 0) return;
    this.counts["check-errors"] += times;
    this.#tell("check-error", text, false, times);
  }

  #tell(kind: CheckFinding["kind"], text: string, fixed: boolean, times: number): void {
    if (this.#findings >= FINDINGS_MAX) return;
    this.#findings++;
    const often = times > 1 ? ` (${times} times)` : "";
    this.#request.report?.({ kind, fixed, text: text + often });
  }

  addTotal(bytes: number): void {
    this.#total += bytes;
  }

  /**
   * So many bytes of tables have been looked at.
   *
   * @returns null, or to be awaited: others get their turn
   * @throws BlockError ECANCELED
   */
  step(bytes: number): Promise<void> | null {
    this.#done += bytes;
    throwIfAborted(this.#request.signal);
    return this.#slice.isOver ? this.#rest() : null;
  }

  async #rest(): Promise<void> {
    this.#request.progress?.(this.#done, Math.max(this.#done, this.#total));
    await this.#slice.rest();
  }

  /** The last word on progress. */
  finish(): void {
    this.#request.progress?.(this.#done, this.#done);
  }
}
