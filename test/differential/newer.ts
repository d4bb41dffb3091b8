/** What QEMU came to do between 7.2 and 10: ours follows the newest. */

import type { Rule } from "./rules.ts";

export interface NewerRule extends Rule {
  /** The first version that does it; the rule is for those before it. */
  readonly since: string;
}

export const NEWER: readonly NewerRule[] = [
  {
    since: "10.0.0",
    why: "nodes tell whether they are active",
    kind: "reply",
    about: "query-named-block-nodes",
    members: ["active"],
  },
  {
    since: "10.1.0",
    why: "nodes tell their children",
    kind: "reply",
    about: "query-named-block-nodes",
    members: ["children"],
  },
  {
    since: "10.0.0",
    why: "files tell that there is nothing special about them",
    kind: "reply",
    about: "query-named-block-nodes",
    within: { format: "file" },
    members: ["format-specific"],
  },
  {
    since: "8.1.0",
    why: "appends to zones are counted",
    kind: "reply",
    about: "query-blockstats",
    members: [
      "zone_append_bytes",
      "zone_append_merged",
      "zone_append_operations",
      "zone_append_total_time_ns",
      "failed_zone_append_operations",
      "invalid_zone_append_operations",
    ],
  },
  {
    since: "10.0.0",
    why: "at the end exports are taken away the newest first",
    kind: "event",
    about: "BLOCK_EXPORT_DELETED",
    anyOrder: true,
  },
  {
    since: "8.2.0",
    why: "mirrors tell whether guests write to both disks",
    kind: "reply",
    about: "query-block-jobs",
    members: ["actively-synced"],
  },
];

/** For scripts that are about it: `since`. */

export const DRAINED_SPEED = {
  version: "8.1.0",
  what: "that a drain does not let a job copy more than its speed allows",
};
