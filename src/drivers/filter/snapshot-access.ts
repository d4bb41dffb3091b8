/**
 * snapshot-access: the disk that a copy-before-write filter keeps, as a node to read from: for an
 * export, or as the source of a backup (QEMU: block/snapshot-access.c).
 *
 * It is no filter, although it has one child: it does not read as that child does. Discards tell the
 * snapshot what will not be asked for any more.
 */

import { assert, BlockError } from "../../base/errors.ts";
import type { SnapshotAccess } from "../../block/driver.ts";
import type { BlockNode } from "../../block/node.ts";
import type { TypedDriver } from "../../block/option-types.ts";
import { Perm } from "../../block/permissions.ts";

/** What types are made of: see src/block/option-types.ts. */
interface Types {
  readonly name: "snapshot-access";
  readonly kind: "format";
  readonly roles: { readonly file: true };
  readonly openOptions: Record<never, never>;
}

export const snapshotAccess: TypedDriver<Types> = {
  name: "snapshot-access",
  kind: "format",
  // The moment that it shows is over.
  isVolatile: true,
  roles: { file: true },
  // A filter that is put in above has the snapshot of another moment.
  staysAtChildren: true,
  openOptions: {},

  childPermissions: () => ({ take: Perm.consistentRead, share: Perm.all }),

  async open({ children, nodeName }) {
    const { file } = children;
    assert(file, "blockdev-add gives snapshot-access a file");
    const opened = file.node.state.snapshotAccess;
    if (!opened) throw noSnapshot(file.node);
    /** Each time anew: the job whose filter it was may have ended, and have stood over another one. */
    const snapshot = (): SnapshotAccess => {
      if (file.node.state.snapshotAccess === opened) return opened;
      throw noSnapshot(file.node);
    };

    return {
      limits: { requestAlignment: 1, clusterSize: 0, growable: false },
      getLength: () => file.length,
      pread: (buf, offset, options) => snapshot().pread(buf, offset, options),
      storeStatus: (offset, bytes) => snapshot().status(offset, bytes),
      pdiscard: (offset, bytes) => snapshot().pdiscard(offset, bytes),
      async pwrite() {
        throw new BlockError("ENOTSUP", `Node '${nodeName}' is a snapshot: it cannot be written`);
      },
    };
  },
};

function noSnapshot(node: BlockNode): BlockError {
  return new BlockError("ENOTSUP", `Node '${node.name}' keeps no snapshot that could be read`);
}
