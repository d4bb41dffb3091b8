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
];
