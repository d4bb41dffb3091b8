/** An internal snapshot in place of the disk: what -l names, for images that are only read. */

import { BlockError } from "../base/errors.ts";
import type { SnapshotInfo } from "../block/driver.ts";
import type { BlockNode } from "../block/node.ts";
import { skipFilters } from "../block/status.ts";

/**
 * @param wanted an id or a name, or `snapshot.id=…,snapshot.name=…`
 * @throws BlockError ENOTSUP, ENOENT, EINVAL
 */
export function loadSnapshot(image: BlockNode, wanted: string): void {
  const { state, driver } = skipFilters(image);
  if (!state.snapshots) {
    throw new BlockError("ENOTSUP", `Format '${driver.name}' has no internal snapshots`);
  }
  const found = find(state.snapshots.list(), wanted);
  if (!found) throw new BlockError("ENOENT", `The image has no snapshot '${wanted}'`);
  state.snapshots.load(found.id);
}

function find(list: readonly SnapshotInfo[], wanted: string): SnapshotInfo | undefined {
  const { id, name } = parts(wanted);
  if (id !== undefined || name !== undefined) {
    return list.find(
      (one) => (id === undefined || one.id === id) && (name === undefined || one.name === name),
    );
  }
  return list.find((one) => one.id === wanted) ?? list.find((one) => one.name === wanted);
}

/** @throws BlockError EINVAL for members that are not known */
function parts(wanted: string): { readonly id?: string; readonly name?: string } {
  if (!wanted.startsWith("snapshot.")) return {};
  const members: { id?: string; name?: string } = {};
  for (const pair of wanted.split(",")) {
    const [, member, value] = /^snapshot\.(id|name)=(.*)$/.exec(pair) ?? [];
    if (value === undefined) throw new BlockError("EINVAL", `Failed in parsing '${pair}'`);
    members[member as "id" | "name"] = value;
  }
  return members;
}
