/** Calls on backups and checkpoints. */

import * as backup from "../backup.ts";
import { type BackupDefinition, backupSchema, checkBackup } from "../backup-definition.ts";
import { getJobStats } from "../backup-end.ts";
import type { ArgumentsOf } from "../calls.ts";
import * as checkpoint from "../checkpoint.ts";
import { checked } from "../definition.ts";
import type { DomainDriver } from "../driver.ts";
import { DomainError } from "../errors.ts";
import * as flag from "../flags.ts";
import { checkFlags } from "../flags.ts";
import { withJob } from "../locks/with-job.ts";
import { Operation } from "../operation.ts";
import { type Handlers, inTurn, look, modify } from "./turn.ts";

type Names =
  | "backupBegin"
  | "backupGetDesc"
  | "abortJob"
  | "getJobStats"
  | "checkpointCreate"
  | "checkpointDelete"
  | "checkpointGetDesc"
  | "listAllCheckpoints";

export const BACKUP_HANDLERS: Handlers<Names> = {
  backupBegin,
  backupGetDesc: look("backupGetDesc", {}, (_, { record }): BackupDefinition => {
    if (record.backup) return backup.describe(record.backup);
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
  getJobStats: look("getJobStats", flag.JOB_STATS, async (driver, { record }, _, flags) => {
    const { stats, isTaken } = await getJobStats(driver.host, record, flags);
    if (isTaken) {
      record.completed = null;
      await driver.host.save();
    }
    return stats;
  }),

  checkpointCreate: modify("checkpointCreate", flag.CHECKPOINT_CREATE, (_, definition, flags) => {
    const wanted = checked(checkpoint.checkpointSchema, definition);
    return (op) => checkpoint.create(op, wanted, flags);
  }),
  checkpointDelete: async (driver, [name, which, flags], signal) => {
    checkFlags("checkpointDelete", flags, flag.CHECKPOINT_DELETE);
    const offline = (flags & flag.CHECKPOINT_DELETE.METADATA_ONLY) !== 0;
    const turn = { driver, api: "checkpointDelete", entry: driver.entry(name), signal } as const;
    await inTurn(turn, { class: "modify", offline }, (op) => checkpoint.remove(op, which, flags));
  },
  checkpointGetDesc: look("checkpointGetDesc", {}, (_, { record }, _name, which) =>
    checkpoint.find(record, which),
  ),
  listAllCheckpoints: look(
    "listAllCheckpoints",
    flag.CHECKPOINT_LIST,
    (_, { record }, _name, flags) => checkpoint.list(record, flags),
  ),
};

async function backupBegin(
  driver: DomainDriver,
  [name, definition, moment, flags]: ArgumentsOf<"backupBegin">,
  signal: AbortSignal | undefined,
): Promise<void> {
  checkFlags("backupBegin", flags, flag.BACKUP_BEGIN);
  const wanted = checked(backupSchema, definition);
  checkBackup(wanted);
  const point = moment === null ? null : checked(checkpoint.checkpointSchema, moment);
  const entry = driver.entry(name);
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
