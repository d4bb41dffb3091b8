/**
 * commit_top: what a commit puts above its top node. Reads go through it; it asks nothing of the
 * node below for them and lets everybody do anything there, as the job rewrites what lies beneath
 * (QEMU: bdrv_commit_top in block/commit.c).
 *
 * Only jobs make it: blockdev-add does not know it.
 */

import { assert } from "../base/errors.ts";
import type { BlockDriver } from "../block/driver.ts";
import { Perm } from "../block/permissions.ts";

export const commitTop: BlockDriver = {
  name: "commit_top",
  kind: "filter",
  roles: { file: true },
  openOptions: {},
  childPermissions: () => ({ take: Perm.none, share: Perm.all }),
  async open({ children: { file } }) {
    assert(file, "the graph gives a filter its file");
    return { limits: file.node.state.limits };
  },
};
