/**
 * A backup as an action of a transaction: prepared, its moment has come and its job stands ready; the
 * commit starts it. The source is drained all the while, so several backups are of one moment.
 */

import { assert } from "../base/errors.ts";
import type { BlockNode } from "../block/node.ts";
import type { JobTxn } from "../job/txn.ts";
import { type CreatedBackup, createBackup } from "./backup.ts";
import type { BackupOptions } from "./backup-options.ts";
import type { BlockJobServices } from "./block-job.ts";
import { closeDriveTarget, type DriveTarget, openDriveTarget } from "./drive.ts";
import { type StillNode, standStill } from "./hold.ts";
import type { TransactionAction } from "./transaction.ts";

/**
 * blockdev-backup.
 *
 * @param txn the group to end with; without it the job is on its own
 */
export function backupAction(
  services: BlockJobServices,
  options: BackupOptions,
  txn?: JobTxn,
): TransactionAction {
  return new BackupAction(services, options.device, txn, async () => ({ options }));
}

/** drive-backup: the target is made, or opened, by its file's name. */
export function driveBackupAction(
  services: BlockJobServices,
  options: Omit<BackupOptions, "target">,
  target: Omit<DriveTarget, "sync">,
  txn?: JobTxn,
): TransactionAction {
  const { device, sync } = options;
  return new BackupAction(services, device, txn, async (source) => {
    const opened = await openDriveTarget(services.graph, source, { ...target, sync });
    return { options: { ...options, target: opened.name }, opened };
  });
}

interface Wanted {
  readonly options: BackupOptions;
  /** To be closed again if nothing comes of it. */
  readonly opened?: BlockNode;
}

class BackupAction implements TransactionAction {
  readonly #services: BlockJobServices;
  readonly #device: string;
  readonly #txn: JobTxn | undefined;
  readonly #want: (source: BlockNode) => Promise<Wanted>;
  #source: StillNode | null = null;
  #backup: CreatedBackup | null = null;

  constructor(
    services: BlockJobServices,
    device: string,
    txn: JobTxn | undefined,
    want: (source: BlockNode) => Promise<Wanted>,
  ) {
    this.#services = services;
    this.#device = device;
    this.#txn = txn;
    this.#want = want;
  }

  /** @throws BlockError as createBackup() and openDriveTarget() do */
  async prepare(): Promise<void> {
    const { graph } = this.#services;
    this.#source = await standStill(graph, this.#device, "a backup about to start");
    try {
      const { options, opened } = await this.#want(this.#source.node);
      try {
        this.#backup = await createBackup(this.#services, options, this.#txn);
        const { job } = this.#backup;
        job.isProvisional = true;
        this.#source.atEnd(() => {
          job.isProvisional = false;
        });
      } catch (error) {
        if (opened) await closeDriveTarget(graph, opened);
        throw error;
      }
    } catch (error) {
      await this.clean();
      throw error;
    }
  }

  async commit(): Promise<void> {
    assert(this.#backup, "only what was prepared is committed");
    await this.#backup.start();
  }

  /** The job ends without having run; one of its group may have ended it already. */
  async abort(): Promise<void> {
    assert(this.#backup, "only what was prepared is taken back");
    const { job } = this.#backup;
    job.cancel(true);
    await job.finished;
  }

  async clean(): Promise<void> {
    await this.#source?.end();
    this.#source = null;
  }
}
