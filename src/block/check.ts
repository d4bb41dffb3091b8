/**
 * Checking and mending images, as far as it is the same for all formats: the request, what comes of
 * it, and the double check after a repair (QEMU: BdrvCheckResult, qemu-img's img_check()).
 *
 * An image that is to be checked is opened with OpenContext.forCheck (Graph.addForCheck()), so that
 * one which is marked corrupt, or has a broken snapshot table, opens at all.
 */

import { BlockError } from "../base/errors.ts";
import type { BlockNode } from "./node.ts";

/** What may be mended: nothing, counts that are too high, or all (QEMU: BdrvCheckMode). */
export type CheckFix = "none" | "leaks" | "all";

export interface CheckRequest {
  readonly fix: CheckFix;
  /** Raised when nobody wants the answer any more. A repair then stops where a new one can go on. */
  readonly signal?: AbortSignal;
  /** Told of everything that is found; the first FINDINGS_MAX of them. */
  report?(finding: CheckFinding): void;
  /** How far it is; the total may grow. */
  progress?(done: number, total: number): void;
}

/** Beyond this many only the counts go on: a small file can have millions of errors. */
export const FINDINGS_MAX = 100_000;

export interface CheckFinding {
  readonly kind: "corruption" | "leak" | "check-error";
  /** It has been mended. */
  readonly fixed: boolean;
  /** A sentence without a full stop: what, and where. */
  readonly text: string;
}

/** Counts, under QEMU's names (QEMU: ImageCheck in qapi/block-core.json); all are there, also zeroes. */
export interface CheckResult {
  /** Things that could not be found out or done. */
  readonly "check-errors": number;
  readonly corruptions: number;
  readonly leaks: number;
  readonly "corruptions-fixed": number;
  readonly "leaks-fixed": number;
  /** End of the last cluster in use, in the file. 0: not told. */
  readonly "image-end-offset": number;
  /** Clusters of the disk; of them those that have a place in the file, and so on. 0: not told. */
  readonly "total-clusters": number;
  readonly "allocated-clusters": number;
  readonly "fragmented-clusters": number;
  readonly "compressed-clusters": number;
}

/** What came of checking an image, and of looking again if something was mended. */
export interface CheckOutcome {
  /** What was found in the end. Its "-fixed" counts are those of the repair. */
  readonly result: CheckResult;
  /** The repair's own result; null if nothing was mended. */
  readonly repair: CheckResult | null;
}

/**
 * Checks a node that nothing else uses, drained. After a repair the image is checked once more, and that
 * is what is told.
 *
 * @param betweenBoth called when something was mended, before the second look
 * @throws BlockError ENOTSUP if the format knows no check; ECANCELED; what reading throws where QEMU's
 *   check fails as well
 */
export async function checkNode(
  node: BlockNode,
  request: CheckRequest,
  betweenBoth: (repair: CheckResult) => void = () => {},
): Promise<CheckOutcome> {
  const { state } = node;
  if (!state.check) {
    throw new BlockError("ENOTSUP", `The format '${node.driver.name}' does not support checks`);
  }
  if (request.fix !== "none" && node.readOnly) {
    throw new BlockError("EROFS", `Node '${node.name}' is read-only: it cannot be repaired`);
  }
  const first = await state.check(request);
  if (first["corruptions-fixed"] === 0 && first["leaks-fixed"] === 0) {
    return { result: first, repair: null };
  }
  betweenBoth(first);
  const second = await state.check({ ...request, fix: "none" });
  const result = {
    ...second,
    "corruptions-fixed": first["corruptions-fixed"],
    "leaks-fixed": first["leaks-fixed"],
  };
  return { result, repair: first };
}
