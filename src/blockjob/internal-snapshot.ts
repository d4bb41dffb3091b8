/**
 * States of a disk kept inside its image, one image at a time, as blockdev-snapshot-internal-sync and
 * transactions have it (QEMU: block/snapshot.c, blockdev.c). What covers several disks is snapshot.ts.
 *
 * Everything happens while the node is drained: what is in the snapshot is what had been answered by
 * then, and no request sees a half of a change.
 */

import type { Clock } from "../base/clock.ts";
import { assert, BlockError } from "../base/errors.ts";
import type { SnapshotInfo, SnapshotMoment, SnapshotStore } from "../block/driver.ts";
import type { Graph } from "../block/graph.ts";
import * as io from "../block/io.ts";
import type { BlockNode } from "../block/node.ts";
import { Perm } from "../block/permissions.ts";
import type { BlockJobServices } from "./block-job.ts";
import { type StillNode, standStill } from "./hold.ts";
import type { TransactionAction } from "./transaction.ts";

/** Where snapshots of a disk are kept. Good until the next await. */
export interface SnapshotHome {
  /** The format node: the one that was named, or the one below the filters that were. */
  readonly node: BlockNode;
  readonly store: SnapshotStore;
}

/**
 * @param named the disk, or a filter above it
 * @throws BlockError EBUSY while a job works on it, EROFS, ENOTSUP if the format cannot
 */
export function snapshotHome(named: BlockNode): SnapshotHome {
  let node = named;
  node.checkOperation("snapshot");
  for (; node.driver.kind === "filter"; node.checkOperation("snapshot"))
    node = io.fileOf(node).node;
  if (node.readOnly) throw new BlockError("EROFS", `Node '${named.name}' is read-only`);
  const store = node.state.snapshots;
  if (store) return { node, store };
  throw new BlockError(
    "ENOTSUP",
    `Node '${named.name}' is of driver '${node.driver.name}', which has no internal snapshots`,
  );
}

/** The snapshot with this tag, which need not be the only one. */
export function findTag({ store }: SnapshotHome, tag: string): SnapshotInfo | undefined {
  return store.list().find(({ name }) => name === tag);
}

/**
 * @param counted what it is to say of instructions executed
 * @throws BlockError EEXIST, EINVAL (empty), and what the format throws
 */
export async function createSnapshot(
  home: SnapshotHome,
  tag: string,
  clock: Clock,
  counted: Pick<SnapshotMoment, "icount"> = {},
): Promise<SnapshotInfo> {
  if (tag === "") throw new BlockError("EINVAL", "A snapshot's name cannot be empty");
  if (findTag(home, tag)) {
    throw new BlockError("EEXIST", `Node '${home.node.name}' has a snapshot '${tag}' already`);
  }
  const { seconds, microseconds } = clock.timestamp();
  return home.store.create(tag, {
    seconds,
    nanoseconds: Math.floor(microseconds * 1000),
    ...counted,
  });
}

/**
 * Makes the disk what it was. Guests notice, and whatever was cached above is out of date.
 *
 * @throws BlockError EBUSY if bitmaps record what changes on the disk, EPERM if others rely on what is
 *   in it, ENOENT, and what the format throws; nothing has changed then
 */
export async function applySnapshot(
  graph: Graph,
  { node, store }: SnapshotHome,
  { id, diskBytes }: SnapshotInfo,
): Promise<void> {
  checkUnrecorded(node);
  const resizes = diskBytes !== io.getLength(node);
  const { consistentRead, write, resize, none, all } = Perm;
  const backend = graph.openBackend(node, {
    name: "",
    description: `loading a snapshot of node '${node.name}'`,
    permissions: { take: consistentRead | write | (resizes ? resize : none), share: all },
  });
  const apply = async () => {
    try {
      await store.apply(id);
    } finally {
      // A bitmap that came in meanwhile does not know what had been changed before it.
      forNodeAndUsers(node, ({ bitmaps }) => {
        for (const bitmap of bitmaps.all()) if (bitmap.recording) bitmap.setAll();
      });
    }
  };
  try {
    // It is as if all of the disk were written, for whoever has to know of that after a crash.
    const bytes = Math.max(diskBytes, io.getLength(node));
    await (node.gate ? node.gate.pass(0, bytes, apply) : apply());
  } finally {
    await graph.closeBackend(backend);
  }
}

/** What comes back with a snapshot is no write that a bitmap could tell of. */
export function checkUnrecorded(node: BlockNode): void {
  forNodeAndUsers(node, ({ name, bitmaps }) => {
    if (bitmaps.isEmpty) return;
    throw new BlockError("EBUSY", `Node '${name}' has dirty bitmaps: remove them first`);
  });
}

function forNodeAndUsers(node: BlockNode, visit: (node: BlockNode) => void): void {
  visit(node);
  for (const { parent } of node.parents) {
    if ("bitmaps" in parent) forNodeAndUsers(parent, visit);
  }
}

/**
 * blockdev-snapshot-internal-sync, as an action of a transaction: takes a snapshot, or deletes it
 * again.
 *
 * @param device name of a device or node
 */
export function internalSnapshotAction(
  { graph, clock }: BlockJobServices,
  device: string,
  name: string,
): TransactionAction {
  let still: StillNode | undefined;
  let made: { readonly node: BlockNode; readonly id: string } | undefined;
  const clean = async () => still?.end();
  return {
    async prepare() {
      snapshotHome(graph.getDeviceOrNode(device)); // Refused without anybody being held up.
      still = await standStill(graph, device, "taking a snapshot");
      try {
        const home = snapshotHome(still.node);
        const { id } = await createSnapshot(home, name, clock);
        made = { node: home.node, id };
      } catch (error) {
        await clean();
        throw error;
      }
    },
    async abort() {
      assert(made, "only what was prepared is taken back");
      try {
        // By way of the node: it may have been reopened since.
        await made.node.state.snapshots?.delete(made.id);
      } catch (error) {
        // Nobody can be told: the transaction's own error is. The snapshot stays in the image's list.
        if (!(error instanceof BlockError)) throw error;
      }
    },
    clean,
  };
}

interface Wanted {
  readonly id?: string | undefined;
  readonly name?: string | undefined;
}

/**
 * blockdev-snapshot-delete-internal-sync.
 *
 * @param device name of a device or node
 * @param wanted both must fit, if both are given
 * @returns what was deleted
 * @throws BlockError EINVAL without id and name, ENOENT
 */
export async function deleteInternalSnapshot(
  { graph }: BlockJobServices,
  device: string,
  wanted: Wanted,
): Promise<SnapshotInfo> {
  const { id, name } = wanted;
  const first = graph.getDeviceOrNode(device);
  if (id === undefined && name === undefined) {
    throw new BlockError("EINVAL", "One of the parameters 'id' and 'name' must be given");
  }
  snapshotHome(first); // Refused without anybody being held up.
  const still = await standStill(graph, device, "deleting a snapshot");
  try {
    const { store } = snapshotHome(still.node);
    const found = store
      .list()
      .find((one) => (id ?? one.id) === one.id && (name ?? one.name) === one.name);
    if (!found) throw noSuchSnapshot(device, wanted);
    await store.delete(found.id);
    return found;
  } finally {
    await still.end();
  }
}

function noSuchSnapshot(device: string, { id, name }: Wanted): BlockError {
  const what = [id !== undefined && `id '${id}'`, name !== undefined && `name '${name}'`];
  return new BlockError(
    "ENOENT",
    `'${device}' has no snapshot with ${what.filter(Boolean).join(" and ")}`,
  );
}
