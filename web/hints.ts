/** What a person can do about an error: the engine says what happened, this says what helps. */

import type { StopReason } from "./fold.ts";

/** An error as it is shown: what happened, and a sentence about what to do. */
export interface Problem {
  readonly text: string;
  readonly hint?: string;
  readonly errno?: string;
}

const HINTS: Readonly<Record<string, string>> = {
  ENOSPC:
    "The browser has no more room for this site: free disk space, or delete data of other sites. Nothing that was copied is lost.",
  ESTALE:
    "The template is not the one that this disk was made from, so going on would mix two disks. Put the old file back, or delete this disk and start over.",
  EACCES: "The browser refuses access. In a private window, open the page in a normal one.",
  EROFS: "The disk is open for reading only.",
  EFBIG: "The disk is larger than this store can hold.",
  ENOTSUP: "This image uses something that is not supported here.",
};

const AWAY =
  "Check that the template's server is running and that you are online. Nothing that was copied is lost.";

/** Of what a server was asked for, in the place of the others. */
const SERVER_HINTS: Readonly<Record<string, string>> = {
  ESTALE: HINTS["ESTALE"]!,
  ENOENT: "Check that the file is still where it was, and that the server serves it.",
  EACCES: "The server refuses access: check that whoever sees this page may have the file.",
  ETIMEDOUT: AWAY,
  EIO: AWAY,
};

/** Errors of servers name what was asked for. */
const URL_IN_TEXT = /'https?:\/\//;

/** A QMP error, or whatever else was thrown, as a problem. */
export function problemOf(error: unknown): Problem {
  const text = error instanceof Error ? error.message : String(error);
  const errno = (error as { errno?: unknown } | null)?.errno;
  return typeof errno === "string" ? withHint(text, errno) : { text };
}

export function withHint(text: string, errno: string | undefined): Problem {
  if (errno === undefined) return { text };
  const hints = URL_IN_TEXT.test(text) ? SERVER_HINTS : HINTS;
  const hint = Object.hasOwn(hints, errno) ? hints[errno] : undefined;
  return { text, errno, ...(hint !== undefined && { hint }) };
}

/** Why a job stands still, or is about to. @param status QEMU's word */
export function stopProblem({ operation, reason, errno }: StopReason, status: string): Problem {
  // What is under way besides is given up first, so the pause may be a moment away.
  const isParked = status === "paused" || status === "standby";
  const state = isParked ? "Paused" : "About to pause";
  const text = `${state}: ${reason ?? `the job could not ${operation}`}`;
  const { hint, ...problem } = withHint(text, errno ?? "EIO");
  return { ...problem, hint: `${hint ?? ""} Resume tries the same bytes again.`.trim() };
}
