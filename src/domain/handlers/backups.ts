/** Calls on backups and checkpoints. */

import * as backup from "../backup.ts";
import { type BackupDefinition, backupSchema, checkBackup } from "../backup-definition.ts";
import { describe } from "../backup-disks.ts";
import { getJobStats } from "../backup-end.ts";
import type { ArgumentsOf } from "../calls.ts";
import * as checkpoint from "../checkpoint.ts";
import { checkpointSchema } from "../checkpoint-definition.ts";
import { withSizes } from "../checkpoint-size.ts";
import { checked } from "../definition.ts";
import type { DomainDriver } from "../driver.ts";
import { DomainError } from "../errors.ts";
import * as flag from "../flags.ts";
import { checkFlags } from "../flags.ts";
import { withJob } from "../locks/with-job.ts";
import { Operation } from "../operation.ts";
import { type Handlers, inTurn, look, mustRun } from "./turn.ts";

type Names =
  | "backupBegin"
  | "backupGetDesc"
  | "abortJob"
  | "getJobStats"
  | "checkpointCreate"
  | "checkpointDelete"
  | "checkpointGetDesc"
  | "checkpointGetParent"
  | "listAllCheckpoints"
  | "checkpointListAllChildren";

export const BACKUP_HANDLERS: Handlers<Names> = {
  backupBegin,
  backupGetDesc: look("backupGetDesc", {}, (_, { record }): BackupDefinition => {
    if (record.backup) return describe(record, record.backup);
    throw new DomainError("NO_DOMAIN_BACKUP", "There is no backup");
  }),
  abortJob: async (driver, [name], signal) => {
    const entry = driver.entry(name);
    const turn = { driver, api: "abortJob", entry, signal } as const;
    await inTurn(turn, { class: "abort" }, async (op) => {
      if (!op.record.backup) throw new DomainError("OPERATION_INVALID", "There is no job to abort");
      await backup.cancelAll(op);
    });
  },
  getJobStats: look("getJobStats", flag.JOB_STATS, async (driver, entry, _, flags) => {
    const { record } = entry;
    if (!(flags & flag.JOB_STATS.COMPLETED)) mustRun(entry);
    const { stats, isTaken } = await getJobStats(driver.host, record, flags);
    if (isTaken) {
      record.completed = null;
      await driver.host.save();
    }
    return stats;
  }),

  checkpointCreate,
  checkpointDelete: async (driver, [name, which, flags], signal) => {
    checkFlags("checkpointDelete", flags, flag.CHECKPOINT_DELETE);
    const entry = driver.entry(name);
    const offline = (flags & flag.CHECKPOINT_DELETE.METADATA_ONLY) !== 0;
    if (!offline) mustRun(entry, "OPERATION_UNSUPPORTED");
    const turn = { driver, api: "checkpointDelete", entry, signal } as const;
    await inTurn(turn, { class: "modify", offline }, (op) => checkpoint.remove(op, which, flags));
  },
  checkpointGetDesc: async (driver, [name, which, flags], signal) => {
    checkFlags("checkpointGetDesc", flags, flag.CHECKPOINT_XML);
    const entry = driver.entry(name);
    const found = checkpoint.find(entry.record, which);
    if (!(flags & flag.CHECKPOINT_XML.SIZE)) return found;
    const turn = { driver, api: "checkpointGetDesc", entry, signal } as const;
    return inTurn(turn, { class: "modify" }, (op) =>
      withSizes(op, checkpoint.find(op.record, which)),
    );
  },
  listAllCheckpoints: look(
    "listAllCheckpoints",
    flag.CHECKPOINT_LIST,
    (_, { record }, _name, flags) => checkpoint.list(record, flags),
  ),
  checkpointGetParent: look("checkpointGetParent", {}, (_, { record }, _name, which) =>
    checkpoint.parentOf(record, which),
  ),
  checkpointListAllChildren: look(
    "checkpointListAllChildren",
    flag.CHECKPOINT_LIST,
    (_, { record }, _name, which, flags) => checkpoint.listChildren(record, which, flags),
  ),
};

/** What was is put on record again also where nothing runs; what is made needs the disks. */
async function checkpointCreate(
  driver: DomainDriver,
  [name, definition, flags]: ArgumentsOf<"checkpointCreate">,
  signal: AbortSignal | undefined,
): Promise<string> {
  checkFlags("checkpointCreate", flags, flag.CHECKPOINT_CREATE);
  const { REDEFINE, REDEFINE_VALIDATE } = flag.CHECKPOINT_CREATE;
  const isRedefined = (flags & REDEFINE) !== 0;
  const isValidated = (flags & REDEFINE_VALIDATE) !== 0;
  if (isValidated && !isRedefined) {
    throw new DomainError("INVALID_ARG", "REDEFINE_VALIDATE goes with REDEFINE alone");
  }
  const wanted = checked(checkpointSchema, definition);
  const entry = driver.entry(name);
  if (!isRedefined) mustRun(entry, "OPERATION_UNSUPPORTED");
  const offline = isRedefined && !isValidated;
  const turn = { driver, api: "checkpointCreate", entry, signal } as const;
  return inTurn(turn, { class: "modify", offline }, (op) => checkpoint.create(op, wanted, flags));
}

async function backupBegin(
  driver: DomainDriver,
  [name, definition, moment, flags]: ArgumentsOf<"backupBegin">,
  signal: AbortSignal | undefined,
): Promise<void> {
  checkFlags("backupBegin", flags, flag.BACKUP_BEGIN);
  const wanted = checked(backupSchema, definition);
  checkBackup(wanted);
  const point = moment === null ? null : checked(checkpointSchema, moment);
  const entry = driver.entry(name);
  mustRun(entry, "OPERATION_UNSUPPORTED");
  const options = { backup: wanted, checkpoint: point, flags };
  await driver.withBackup(
    entry,
    (ctx) =>
      withJob(ctx, entry.object, { class: "async-nested", kind: "backup" }, () =>
        backup.begin(new Operation(driver.host, entry, ctx), options),
      ),
    signal,
  );
}
