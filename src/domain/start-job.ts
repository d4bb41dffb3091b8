/**
 * The start of a block job: its record is kept before the command goes out, so that there is never a job
 * that nobody knows of. What is known of it afterwards:
 *
 *     new  ──accepted──▶ running
 *      └────refused────▶ (gone; no event)
 *
 * If the engine itself is lost over the command nobody knows, and the record stays `new`: reconnect.ts looks
 * it up.
 */

import { QmpError } from "../engine/client.ts";
import { ACTIVE_STATES, END_STATES, type JobKind, TWO_PHASE } from "./enums.ts";
import { DomainError } from "./errors.ts";
import type { Operation } from "./operation.ts";
import { type DiskRecord, formatNode, type JobRecord, type Layer } from "./record.ts";

/** The job of a disk; there is one at a time. */
export function jobOf(op: Pick<Operation, "record">, disk: string): JobRecord | undefined {
  return op.record.jobs.find((job) => job.disk === disk);
}

/** It is over, and all that follows from it is done. */
export function hasEnded({ record }: Pick<Operation, "record">, job: JobRecord): boolean {
  return END_STATES.includes(job.state) && !record.jobs.includes(job);
}

/** A job that a verb can be for. @throws DomainError INVALID_ARG */
export function activeJobOf(op: Pick<Operation, "record">, disk: string): JobRecord {
  const job = jobOf(op, disk);
  if (job && ACTIVE_STATES.includes(job.state)) return job;
  throw new DomainError("INVALID_ARG", `Disk '${disk}' has no active block job`);
}

/** @throws DomainError BLOCK_COPY_ACTIVE, OPERATION_UNSUPPORTED if the disk has a job */
export function checkNoJob(op: Pick<Operation, "record">, disk: DiskRecord): void {
  const job = jobOf(op, disk.target);
  if (!job) return;
  if (TWO_PHASE.includes(job.kind)) {
    throw new DomainError("BLOCK_COPY_ACTIVE", `Disk '${disk.target}' is in a ${job.kind} job`);
  }
  const text = `Disk '${disk.target}' has a ${job.kind} job already`;
  throw new DomainError("OPERATION_UNSUPPORTED", text);
}

/** Deterministic, as libvirt's: the same job has the same name after a crash. */
function jobName(kind: JobKind, disk: DiskRecord, layer: Layer): string {
  const word = kind === "active-commit" ? "commit" : kind;
  return `${word}-${disk.target}-${formatNode(layer)}`;
}

/** Of wall time, as the engine tells it in its history. */
export function millisecondsOf(clock: Operation["host"]["clock"]): number {
  const { seconds, microseconds } = clock.timestamp();
  return seconds * 1000 + microseconds / 1000;
}

export function newJob(
  op: Operation,
  kind: JobKind,
  disk: DiskRecord,
  layer: Layer,
  flags: number,
): JobRecord {
  return {
    name: jobName(kind, disk, layer),
    serial: op.newSerial(),
    kind,
    state: "new",
    disk: disk.target,
    flags,
    began: millisecondsOf(op.host.clock),
    wasReady: false,
  };
}

/**
 * @param command starts it in the engine, under job.name
 * @throws what the command throws; then there is no job
 */
export async function startJob(
  op: Operation,
  job: JobRecord,
  command: () => Promise<unknown>,
): Promise<void> {
  const forget = () => {
    op.record.jobs = op.record.jobs.filter((other) => other !== job);
  };
  op.record.jobs.push(job);
  // If the domain is stopped amid the save, whoever stops it finds the job, and with it the images made for it.
  await op.save();
  try {
    await command();
  } catch (error) {
    if (!isRefused(error)) throw error;
    forget();
    await op.save();
    throw error;
  }
  job.state = "running";
  await op.save();
}

/**
 * Is it sure that nothing has come of a command? Not if the connection failed over it, nor if the domain was
 * stopped meanwhile: then whoever stops it, or reconnects, finds what there is by the record.
 */
export function isRefused(error: unknown): boolean {
  if (error instanceof QmpError) return error.errno === undefined;
  return error instanceof DomainError;
}

/** A command that the engine refuses only when what it is for is so already. */
export async function unlessNeedless(command: Promise<unknown>): Promise<void> {
  try {
    await command;
  } catch (error) {
    if (!isRefused(error)) throw error;
  }
}
