/** All commands: the one place where a new one is listed. */

import type { AnyAmendOptions, AnyBlockdevOptions, AnyCreateOptions } from "../../drivers/index.ts";
import type { Command, CommandTypes } from "../schema.ts";
import { changeBackingFileCommand } from "./backing-file.ts";
import {
  blockDirtyBitmapAdd,
  blockDirtyBitmapClear,
  blockDirtyBitmapDisable,
  blockDirtyBitmapEnable,
  blockDirtyBitmapMerge,
  blockDirtyBitmapRemove,
  xDebugBlockDirtyBitmapSha256,
} from "./bitmap.ts";
import { blockdevBackup } from "./block-backup.ts";
import { blockCommit } from "./block-commit.ts";
import { blockExportAdd, blockExportDel, queryBlockExports } from "./block-export.ts";
import { blockdevMirror, blockJobChange } from "./block-mirror.ts";
import {
  queryBlock,
  queryBlockstats,
  queryNamedBlockNodes,
  xDebugQueryBlockGraph,
} from "./block-query.ts";
import { blockStream } from "./block-stream.ts";
import {
  blockdevAdd,
  blockdevCreate,
  blockdevDel,
  blockdevReopen,
  xBlockdevAmend,
} from "./blockdev.ts";
import { qmpCapabilities, queryCommands, queryQmpSchema, queryVersion } from "./control.ts";
import { driveBackup, driveMirror } from "./drive.ts";
import {
  blockJobCancel,
  blockJobComplete,
  blockJobDismiss,
  blockJobFinalize,
  blockJobPause,
  blockJobResume,
  blockJobSetSpeed,
  jobCancel,
  jobComplete,
  jobDismiss,
  jobFinalize,
  jobPause,
  jobResume,
  queryBlockJobs,
  queryJobs,
} from "./job.ts";
import type { journalCommands } from "./journal.ts";
import type { nbdCommands } from "./nbd.ts";
import {
  objectAdd,
  objectDel,
  qomGet,
  qomList,
  qomListProperties,
  qomListTypes,
  qomSet,
} from "./object.ts";
import { blockResize } from "./resize.ts";
import {
  blockdevSnapshotDeleteInternalSync,
  blockdevSnapshotInternalSync,
  snapshotDelete,
  snapshotLoad,
  snapshotSave,
} from "./snapshot.ts";
import { blockdevSnapshot, blockdevSnapshotSync } from "./snapshot-external.ts";
import { transaction } from "./transaction.ts";
import { blockSetWriteThreshold } from "./write-threshold.ts";

const LIST = [
  qmpCapabilities,
  queryCommands,
  queryVersion,
  queryQmpSchema,
  blockdevCreate,
  blockdevAdd,
  blockdevDel,
  blockdevReopen,
  blockdevSnapshot,
  blockdevSnapshotSync,
  blockResize,
  queryNamedBlockNodes,
  queryBlock,
  queryBlockstats,
  xDebugQueryBlockGraph,
  changeBackingFileCommand,
  blockSetWriteThreshold,
  objectAdd,
  objectDel,
  qomGet,
  qomSet,
  qomList,
  qomListTypes,
  qomListProperties,
  blockExportAdd,
  blockExportDel,
  queryBlockExports,
  blockStream,
  blockdevMirror,
  blockJobChange,
  blockdevBackup,
  driveMirror,
  driveBackup,
  transaction,
  blockCommit,
  queryJobs,
  jobPause,
  jobResume,
  jobCancel,
  jobComplete,
  jobFinalize,
  jobDismiss,
  queryBlockJobs,
  blockJobCancel,
  blockJobPause,
  blockJobResume,
  blockJobComplete,
  blockJobFinalize,
  blockJobDismiss,
  blockJobSetSpeed,
  blockDirtyBitmapAdd,
  blockDirtyBitmapRemove,
  blockDirtyBitmapClear,
  blockDirtyBitmapEnable,
  blockDirtyBitmapDisable,
  blockDirtyBitmapMerge,
  xDebugBlockDirtyBitmapSha256,
  snapshotSave,
  snapshotLoad,
  snapshotDelete,
  blockdevSnapshotInternalSync,
  blockdevSnapshotDeleteInternalSync,
  xBlockdevAmend,
] as const;

export const COMMANDS: ReadonlyMap<string, Command> = new Map(
  (LIST as readonly Command[]).map((command) => [command.name, command]),
);

/** Arguments that depend on the driver. */
interface DriverArguments {
  readonly "blockdev-add": AnyBlockdevOptions;
  readonly "blockdev-reopen": WithOptions<"blockdev-reopen", AnyBlockdevOptions[]>;
  readonly "blockdev-create": WithOptions<"blockdev-create", AnyCreateOptions>;
  readonly "x-blockdev-amend": WithOptions<"x-blockdev-amend", AnyAmendOptions>;
}
type WithOptions<Name extends CommandName, Options> = Omit<Commands[Name]["args"], "options"> & {
  readonly options: Options;
};

/**
 * Arguments and answers of every command, by its name; those of NBD are there on Node only, those of
 * the journal where one is kept.
 */
export type Commands = CommandTypes<
  [...typeof LIST, ...ReturnType<typeof nbdCommands>, ...ReturnType<typeof journalCommands>]
>;
export type CommandName = keyof Commands;
export type ArgumentsOf<Name extends CommandName> = Name extends keyof DriverArguments
  ? DriverArguments[Name]
  : Commands[Name]["args"];
export type ReturnOf<Name extends CommandName> = Commands[Name]["returns"];
