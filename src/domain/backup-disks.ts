/** The disks of a backup: which are meant, and what was chosen for each where that was left open. */

import type { BackupDefinition, BackupDiskDefinition } from "./backup-definition.ts";
import { DomainError } from "./errors.ts";
import type { Operation } from "./operation.ts";
import type { BackupRecord, DomainRecord } from "./record.ts";
import { checkNoJob } from "./start-job.ts";

/** @throws DomainError CONFIG_UNSUPPORTED; BLOCK_COPY_ACTIVE, OPERATION_UNSUPPORTED if one has a job */
export function chooseDisks(
  op: Operation,
  { disks = [] }: BackupDefinition,
): BackupDiskDefinition[] {
  const all = op.record.disks;
  for (const { name } of disks) {
    if (all.some(({ target }) => target === name)) continue;
    throw new DomainError("CONFIG_UNSUPPORTED", `There is no disk '${name}' to be backed up`);
  }
  const writable = all.filter(({ readonly }) => !readonly).map(({ target }) => ({ name: target }));
  const listed: readonly BackupDiskDefinition[] = disks.length > 0 ? disks : writable;
  const chosen = listed.filter(({ backup }) => backup !== "no");
  if (chosen.length === 0) {
    throw new DomainError("CONFIG_UNSUPPORTED", "No disk is to be backed up");
  }
  for (const { name } of chosen) checkNoJob(op, op.disk(name));
  return chosen;
}

/** For backupGetDesc(). backupBegin() would take it again. */
export function describe({ disks: all }: DomainRecord, backup: BackupRecord): BackupDefinition {
  const { mode, incremental, server, disks } = backup;
  const others = all.filter(({ target }) => !disks.some(({ name }) => name === target));
  return {
    mode,
    ...(incremental !== undefined && { incremental }),
    ...(server && { server }),
    disks: [
      ...disks.map((disk) => describeDisk(mode, disk)),
      ...others.map(({ target }) => ({ name: target, backup: "no" as const })),
    ],
  };
}

function describeDisk(
  mode: BackupRecord["mode"],
  { name, store, incremental, exportName, bitmap }: BackupRecord["disks"][number],
): BackupDiskDefinition {
  const { format, source } = store;
  return {
    name,
    backup: "yes",
    backupmode: incremental === undefined ? "full" : "incremental",
    ...(incremental !== undefined && { incremental }),
    ...(mode === "pull" && exportName !== undefined && { exportname: exportName }),
    ...(mode === "pull" && bitmap !== undefined && { exportbitmap: bitmap }),
    format,
    ...(mode === "push" ? { target: source } : { scratch: source }),
  };
}
