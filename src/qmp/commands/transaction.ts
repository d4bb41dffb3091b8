/**
 * transaction: several actions, all or none (QEMU: qapi/transaction.json). An action's data are the
 * arguments of the command of the same name.
 */

import * as v from "valibot";
import { BlockError } from "../../base/errors.ts";
import { settleAll } from "../../base/settle.ts";
import {
  addBitmap,
  type BitmapChange,
  type BitmapName,
  beforeChange,
  clearBitmap,
  disableBitmap,
  enableBitmap,
  mergeBitmaps,
  removeBitmap,
} from "../../block/bitmap-changes.ts";
import type { Graph } from "../../block/graph.ts";
import { backupAction, driveBackupAction } from "../../blockjob/backup-action.ts";
import { externalSnapshot } from "../../blockjob/external-snapshot.ts";
import { type StillNode, standStill } from "../../blockjob/hold.ts";
import { internalSnapshotAction } from "../../blockjob/internal-snapshot.ts";
import { runTransaction, type TransactionAction } from "../../blockjob/transaction.ts";
import { JobTxn } from "../../job/txn.ts";
import type { QmpContext } from "../context.ts";
import { command, nothing } from "../schema.ts";
import { union } from "../union.ts";
import { bitmapAddArgs, bitmapMergeArgs, bitmapName } from "./bitmap.ts";
import { backupOptions, blockdevBackup } from "./block-backup.ts";
import { driveBackup, driveTarget } from "./drive.ts";
import { blockdevSnapshotInternalSync } from "./snapshot.ts";
import { snapshotArgs, snapshotSyncAction, snapshotSyncArgs } from "./snapshot-external.ts";

/** One type of action, as data. */
interface ActionType {
  /** valibot entries of its data. */
  readonly data: v.ObjectEntries;
  /** Makes a job, so it may be of a group. */
  readonly isGroupable?: boolean;
  make(context: QmpContext, data: never, txn: JobTxn | undefined): TransactionAction;
}

/** Only there so that each make() gets the type of its own data. */
function action<const Data extends v.ObjectEntries>(it: {
  readonly data: Data;
  readonly isGroupable?: boolean;
  make(
    context: QmpContext,
    data: v.InferOutput<v.StrictObjectSchema<Data, undefined>>,
    txn: JobTxn | undefined,
  ): TransactionAction;
}): ActionType {
  return it as ActionType;
}

/**
 * An action on one bitmap, which any of these commands names in the same way.
 *
 * @param use see beforeChange(); without it nothing is to be done before
 */
function onBitmap(
  apply: (graph: Graph, name: BitmapName) => BitmapChange,
  use?: "enable" | "remove",
): ActionType {
  return action({
    data: bitmapName,
    make: ({ graph }, name) =>
      bitmapAction(graph, [name.node], async () => {
        if (use) await beforeChange(graph, name, use);
        return apply(graph, name);
      }),
  });
}

const ACTIONS: Readonly<Record<string, ActionType>> = {
  abort: action({ data: {}, make: () => ABORT }),
  "block-dirty-bitmap-add": action({
    data: bitmapAddArgs,
    make: ({ graph }, data) => bitmapAction(graph, [data.node], () => addBitmap(graph, data)),
  }),
  "block-dirty-bitmap-remove": onBitmap(removeBitmap, "remove"),
  "block-dirty-bitmap-clear": onBitmap(clearBitmap),
  "block-dirty-bitmap-enable": onBitmap(enableBitmap, "enable"),
  "block-dirty-bitmap-disable": onBitmap(disableBitmap),
  "block-dirty-bitmap-merge": action({
    data: bitmapMergeArgs,
    make({ graph }, data) {
      const others = data.bitmaps.map((source) =>
        typeof source === "string" ? data.node : source.node,
      );
      return bitmapAction(graph, [data.node, ...others], async () => {
        await beforeChange(graph, { node: data.node, name: data.target }, "merge-target");
        return mergeBitmaps(graph, data);
      });
    },
  }),
  "blockdev-backup": action({
    data: blockdevBackup.args,
    isGroupable: true,
    make: (context, { target, ...data }, txn) =>
      backupAction(context, { ...backupOptions(data), target }, txn),
  }),
  "drive-backup": action({
    data: driveBackup.args,
    isGroupable: true,
    make: (context, data, txn) =>
      driveBackupAction(context, backupOptions(data), driveTarget(data), txn),
  }),
  "blockdev-snapshot": action({
    data: snapshotArgs,
    make: ({ graph }, data) => externalSnapshot(graph, data),
  }),
  "blockdev-snapshot-sync": action({
    data: snapshotSyncArgs,
    make: ({ graph }, data) => snapshotSyncAction(graph, data),
  }),
  "blockdev-snapshot-internal-sync": action({
    data: blockdevSnapshotInternalSync.args,
    make: (context, { device, name }) => internalSnapshotAction(context, device, name),
  }),
};

function actionSchema(): v.GenericSchema<{ type: string; data: object }> {
  const cases = Object.entries(ACTIONS).map(([type, { data }]) => [
    type,
    { data: v.strictObject(data) },
  ]);
  return union("type", {}, Object.fromEntries(cases)) as v.GenericSchema<unknown> as ReturnType<
    typeof actionSchema
  >;
}

const ABORT: TransactionAction = {
  async prepare() {
    throw new BlockError("ECANCELED", "Transaction aborted by its 'abort' action");
  },
};

export const transaction = command({
  name: "transaction",
  doc: "Runs several actions of which all have an effect, or none.",
  args: {
    actions: v.array(actionSchema()),
    properties: v.optional(
      v.strictObject({
        /** grouped: the jobs that it starts end together, well or not. */
        "completion-mode": v.optional(v.picklist(["individual", "grouped"])),
      }),
    ),
  },
  returns: nothing,
  isOnce: true,
  alone: true,
  async run(context, { actions, properties }) {
    const isGrouped = properties?.["completion-mode"] === "grouped";
    const txn = isGrouped ? new JobTxn() : undefined;
    const made = actions.map(({ type, data }) => {
      const known = ACTIONS[type]!;
      if (isGrouped && !known.isGroupable) {
        throw new BlockError(
          "EINVAL",
          `Action '${type}' does not go with 'completion-mode': 'grouped'`,
        );
      }
      return known.make(context, data as never, txn);
    });
    await runTransaction(made);
    return {};
  },
});

/** A change of bitmaps: nothing is written to their nodes until the transaction has ended. */
function bitmapAction(
  graph: Graph,
  nodes: readonly string[],
  apply: () => BitmapChange | Promise<BitmapChange>,
): TransactionAction {
  const still: StillNode[] = [];
  let change: BitmapChange | undefined;
  const clean = () => settleAll(still.map(({ end }) => end()));
  return {
    async prepare() {
      try {
        for (const name of new Set(nodes)) {
          still.push(await standStill(graph, name, "a change of its bitmaps"));
        }
        change = await apply();
      } catch (error) {
        await clean();
        throw error;
      }
    },
    commit: () => change?.commit(),
    abort: () => change?.abort(),
    clean,
  };
}
