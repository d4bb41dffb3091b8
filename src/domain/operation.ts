/**
 * One call at work on one domain: what it may do while it has the domain's job. Commands go through the
 * domain's monitor, waits drop its lock; what was looked up before either is looked up again after it.
 */

import type { Clock } from "../base/clock.ts";
import type { Client } from "../engine/client.ts";
import type { DomainEntry } from "./entry.ts";
import { DomainError } from "./errors.ts";
import type { DomainEvent } from "./events.ts";
import type { ImageFiles } from "./image-files.ts";
import type { Ctx } from "./locks/ctx.ts";
import { withMonitor, withUnlocked } from "./locks/with-job.ts";
import type { DiskRecord, DomainRecord, DriverRecord, JobRecord } from "./record.ts";
import { pathOf } from "./source.ts";

/** The part of a client that is used: the engine, over whatever port or socket. */
export type Qmp = Pick<Client, "execute" | "events" | "waitForJob">;

/** Where jobs are asked about and their speed is set, however long the engine opens an image meanwhile. */
export type Asking = Pick<Qmp, "execute">;

/** What all calls have in common. */
export interface Host {
  readonly qmp: Qmp;
  readonly asking: Asking;
  readonly clock: Clock;
  readonly files: ImageFiles | undefined;
  readonly onPullError: "report" | "stop";
  readonly record: DriverRecord;
  /** Resolves when the record as it is now is kept. @throws DomainError OPERATION_FAILED */
  save(): Promise<void>;
  emit(event: DomainEvent): void;
}

export class Operation {
  readonly host: Host;
  readonly entry: DomainEntry;
  readonly ctx: Ctx;

  constructor(host: Host, entry: DomainEntry, ctx: Ctx) {
    this.host = host;
    this.entry = entry;
    this.ctx = ctx;
  }

  get record(): DomainRecord {
    return this.entry.record;
  }

  /** A command of the engine. @throws QmpError, JobError */
  readonly execute: Qmp["execute"] = (name, ...args) =>
    withMonitor(this.ctx, this.entry.object, () => this.host.qmp.execute(name, ...args));

  /** As execute(), of options that depend on a driver and were put together here. */
  run(
    name: "blockdev-add" | "blockdev-create" | "block-export-add",
    args: object,
  ): Promise<object> {
    return this.execute(name, args as never);
  }

  /** Resolves when what is true now is kept. Others may look at the domain meanwhile. */
  async save(): Promise<void> {
    this.entry.object.changed();
    await this.unlocked(() => this.host.save());
  }

  /** A wait for something that is no command. */
  unlocked<T>(wait: () => Promise<T>): Promise<T> {
    return withUnlocked(this.ctx, this.entry.object, wait);
  }

  /**
   * @param name a target, or the path of the image at the top if it begins with a slash
   * @throws DomainError INVALID_ARG
   */
  disk(name: string): DiskRecord {
    return findDisk(this.record, name);
  }

  job(serial: number): JobRecord | undefined {
    return this.record.jobs.find((job) => job.serial === serial);
  }

  /** A number for a new image, kept with the next save. */
  newLayerNumber(): number {
    return this.host.record.nextLayer++;
  }

  newSerial(): number {
    return this.host.record.nextSerial++;
  }
}

/** @throws DomainError INVALID_ARG */
export function findDisk({ disks }: Pick<DomainRecord, "disks">, name: string): DiskRecord {
  const found = name.startsWith("/")
    ? disks.find(({ layers }) => pathOf(layers[0]!.source) === name)
    : disks.find(({ target }) => target === name);
  if (found) return found;
  throw new DomainError("INVALID_ARG", `There is no disk '${name}'`);
}
