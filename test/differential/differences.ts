/**
 * Differences from QEMU on purpose that show in many scripts; docs/differences.md has the table for
 * people. One that shows in one command of one script stands there, as `differs`.
 */

import type { Rule } from "./rules.ts";

export const DIFFERENCES: readonly Rule[] = [
  {
    why: "who we are",
    kind: "event",
    about: "greeting",
    members: ["version"],
  },
  {
    why: "a name inside an image is a label, and is not resolved",
    kind: "reply",
    about: "query-named-block-nodes",
    members: ["full-backing-filename"],
  },
  {
    why: "a person wants to know which URL, which bytes",
    kind: "event",
    about: "BLOCK_JOB_ERROR",
    members: ["reason", "errno"],
  },
  {
    why: "what a mirror has to copy is recorded by the disk's node, not by the job's filter",
    kind: "reply",
    members: ["dirty-bitmaps"],
    itemsWithout: "name",
  },
];

/** To choose from, for scripts in which they show. */

export const MOMENTARY_PAUSES: Rule = {
  why: "QEMU drains all nodes where ours drains those that the command is about",
  kind: "event",
  pauses: true,
};

export const EXIT_STATUS: Rule = {
  why: "a disk that could not be written at the end is told by the exit status",
  kind: "tool",
  about: "end of the daemon",
  members: ["how"],
};

export const TRUE_FIGURES: Rule = {
  why: "nodes count their requests, too, not only devices",
  kind: "reply",
  about: "query-blockstats",
  members: ["rd", "wr", "flush", "unmap"].flatMap((what) => [
    `${what}_bytes`,
    `${what}_operations`,
  ]),
};

/** @param file the image whose discarded clusters differ */
export function discardsArePassedOn(file: string): Rule {
  const why = "a discard is passed on unless 'discard' is 'ignore'";
  return { why, kind: "image", about: file, members: ["map", "sha256"] };
}

/** @param file the image whose map differs */
export function zeroesAreSkipped(file: string): Rule {
  const why = "a stream of a whole chain leaves out what reads as zeroes: nothing does so, too";
  return { why, kind: "image", about: file, members: ["map"] };
}

export const IN_USE: Rule = {
  why: "a bitmap is marked in use in its image when it first changes, not when the image is opened",
  kind: "reply",
  about: "query-named-block-nodes",
  items: ["in-use"],
};

export const FILE_LENGTH: Rule = {
  why: "how long a file is depends on the places that clusters were given in it",
  kind: "reply",
  about: "query-named-block-nodes",
  members: ["virtual-size"],
  within: { format: "file" },
};

/** @param file the image that a stream reopened for writing */
export function readOnlyAgain(file: string): Rule {
  const why = "QEMU 10 leaves a read-only node writable after a stream into it";
  return { why, from: "10.0.0", kind: "reply", about: "nodes", members: ["ro"], within: { file } };
}

export const UNWRITTEN_AT_THE_END: Rule = {
  why: "a daemon that could not write all of its images at the end says so by its exit status",
  kind: "tool",
  about: "end of the daemon",
  whole: true,
};
