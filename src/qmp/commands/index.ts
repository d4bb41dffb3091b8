/** All commands: the one place where a new one is listed. */

import type { Command, CommandTypes } from "../schema.ts";
import { blockExportAdd, blockExportDel, queryBlockExports } from "./block-export.ts";
import { queryBlock, queryNamedBlockNodes } from "./block-query.ts";
import { blockStream } from "./block-stream.ts";
import { blockdevAdd, blockdevCreate, blockdevDel } from "./blockdev.ts";
import { qmpCapabilities, queryCommands, queryVersion } from "./control.ts";
import {
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

const LIST = [
  qmpCapabilities,
  queryCommands,
  queryVersion,
  blockdevCreate,
  blockdevAdd,
  blockdevDel,
  queryNamedBlockNodes,
  queryBlock,
  blockExportAdd,
  blockExportDel,
  queryBlockExports,
  blockStream,
  queryJobs,
  jobPause,
  jobResume,
  jobCancel,
  jobComplete,
  jobFinalize,
  jobDismiss,
  queryBlockJobs,
  blockJobSetSpeed,
] as const;

export const COMMANDS: ReadonlyMap<string, Command> = new Map(
  (LIST as readonly Command[]).map((command) => [command.name, command]),
);

/** Arguments and answers of every command, by its name. */
export type Commands = CommandTypes<typeof LIST>;
export type CommandName = keyof Commands;
export type ArgumentsOf<Name extends CommandName> = Commands[Name]["args"];
export type ReturnOf<Name extends CommandName> = Commands[Name]["returns"];
