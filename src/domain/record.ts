/**
 * What is kept of domains: one JSON value, saved whole (store.ts), so that whatever changes together is
 * there together or not at all. It is saved before a command is sent that it is about, and before an
 * event is told.
 *
 *     driver ── domains ──┬─ definition                what create() starts
 *                         ├─ disks ── layers           the chains as they are now, while it runs
 *                         ├─ jobs                      block jobs, by name
 *                         ├─ backup, completed         the domain's job, and how the last one ended
 *                         └─ checkpoints
 *
 * A domain whose record cannot be understood is put aside whole (`broken`); of one that can, each job that
 * cannot is put aside alone: no job costs a disk.
 */

import * as v from "valibot";
import { serverSchema } from "./backup-definition.ts";
import { definitionSchema, formatSchema, nameSchema } from "./definition.ts";
import { JOB_KINDS, JOB_STATES, type JobKind, type JobState } from "./enums.ts";
import { sourceSchema } from "./source.ts";

const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));

/** An image that is open: two nodes with names made of its number, which no other image gets again. */
const layerSchema = v.strictObject({
  n: count,
  format: formatSchema,
  source: sourceSchema,
  dataStore: v.optional(sourceSchema),
});
export type Layer = v.InferOutput<typeof layerSchema>;

export const formatNode = ({ n }: Pick<Layer, "n">) => `libvirt-${n}-format`;
/** Closed with the format's. */
export const dataNode = ({ n }: Pick<Layer, "n">) => `libvirt-${n}-data`;
export const storageNode = ({ n }: Pick<Layer, "n">) => `libvirt-${n}-storage`;

const diskSchema = v.strictObject({
  target: v.string(),
  readonly: v.boolean(),
  /** The top first. */
  layers: v.pipe(v.array(layerSchema), v.minLength(1)),
  /** On its way to become the top: see overlay.ts. */
  overlay: v.optional(layerSchema),
  /** Bitmaps that may lack what was written: nothing incremental is made from them. */
  badBitmaps: v.array(v.string()),
});
export type DiskRecord = v.InferOutput<typeof diskSchema>;

const jobSchema = v.strictObject({
  /** Its id in the engine: kind-target-node. */
  name: v.string(),
  /** No other job gets it again: a client tells by it what it has been told already. */
  serial: count,
  kind: v.picklist(Object.keys(JOB_KINDS) as JobKind[]),
  state: v.picklist(Object.keys(JOB_STATES) as JobState[]),
  disk: v.string(),
  /** Of the call that started it. */
  flags: count,
  /** When that was, in ms of wall time: an end in the engine's history that is older is another run's. */
  began: v.number(),
  /** It has been ready: a copy's destination was whole. */
  wasReady: v.boolean(),
  error: v.optional(v.string()),
  /** Numbers of layers: where a pull or commit ends, */
  base: v.optional(v.nullable(count)),
  /** and where a commit begins. */
  top: v.optional(count),
  /** The layers of a copy's destination, the top first; those of a shallow one go on with the disk's. */
  mirror: v.optional(v.array(layerSchema)),
  /** Files that are ours to take away: of a commit when it has succeeded, of a copy when it has not. */
  unlink: v.optional(v.array(sourceSchema)),
  /** Of a backup: what it is written to, and the bitmap that was made for it. */
  store: v.optional(layerSchema),
  bitmap: v.optional(v.string()),
});
export type JobRecord = v.InferOutput<typeof jobSchema>;

const backupDiskSchema = v.strictObject({
  name: v.string(),
  state: v.picklist(["running", "complete", "failed", "cancelling", "cancelled"]),
  job: v.string(),
  store: layerSchema,
  /** The checkpoint since which it is. */
  incremental: v.optional(v.string()),
  bitmap: v.optional(v.string()),
  /** Of a pull: the export's id, and what its clients see it as. */
  export: v.optional(v.string()),
  exportName: v.optional(v.string()),
  /** Why the driver could not show it again. */
  unserved: v.optional(v.string()),
  /** Its figures when it ended. */
  done: v.optional(count),
  total: v.optional(count),
});
const backupSchema = v.strictObject({
  /** As a job's: its end is told once. 0: from before there were any. */
  serial: v.optional(count, 0),
  mode: v.picklist(["push", "pull"]),
  flags: count,
  /** ms of wall time. */
  started: v.number(),
  incremental: v.optional(v.string()),
  /** As it was asked for; */
  server: v.optional(serverSchema),
  /** it is up, on the backup's behalf. */
  serving: v.boolean(),
  /** In records from before those checkpoints were `pending`: what was made with it, if it began. */
  checkpoint: v.optional(v.string()),
  error: v.optional(v.string()),
  disks: v.array(backupDiskSchema),
});
export type BackupRecord = v.InferOutput<typeof backupSchema>;
export type BackupDiskRecord = v.InferOutput<typeof backupDiskSchema>;

/** Of a domain's job, under the names of libvirt's typed parameters. */
const statsSchema = v.strictObject({
  /** One of JOB_TYPE. */
  type: count,
  /** One of JOB_OPERATION. */
  operation: v.optional(count),
  /** ms */
  time_elapsed: v.optional(v.number()),
  /** Bytes, summed up over the disks. */
  disk_total: v.optional(count),
  disk_processed: v.optional(count),
  disk_remaining: v.optional(count),
  /** Of a pull: how much of the scratch files is in use. */
  disk_temp_used: v.optional(count),
  disk_temp_total: v.optional(count),
  /** Once it is over. */
  success: v.optional(v.boolean()),
  /** The first error. */
  errmsg: v.optional(v.string()),
  /** Ours, of one that runs: what its clients do not see, and why. */
  warning: v.optional(v.string()),
});
export type JobStats = v.InferOutput<typeof statsSchema>;

const checkpointSchema = v.strictObject({
  name: nameSchema,
  description: v.optional(v.string()),
  parent: v.optional(v.string()),
  /** Seconds of wall time. */
  creationTime: count,
  /** Nobody knows yet whether its bitmaps have been made. */
  pending: v.optional(v.literal(true)),
  /** It is being deleted: some of its bitmaps may be gone. */
  going: v.optional(v.literal(true)),
  disks: v.array(
    v.strictObject({
      name: v.string(),
      checkpoint: v.picklist(["no", "bitmap"]),
      bitmap: v.optional(v.string()),
    }),
  ),
});
export type CheckpointRecord = v.InferOutput<typeof checkpointSchema>;

const domainEntries = {
  definition: definitionSchema,
  /** null: not running. */
  id: v.nullable(count),
  /** starting, stopping: what was begun is taken back, or ended, when nobody is at it any more. */
  state: v.picklist(["shutoff", "starting", "running", "stopping"]),
  disks: v.array(diskSchema),
  backup: v.nullable(backupSchema),
  completed: v.nullable(statsSchema),
  checkpoints: v.array(checkpointSchema),
  /** Nodes that nobody needs, to be closed. */
  leftovers: v.array(v.string()),
  /** Images that are being made, and are nobody's yet: there was no such file before. */
  making: v.optional(v.array(layerSchema), []),
};
const domainSchema = v.strictObject({ ...domainEntries, jobs: v.array(v.unknown()) });

export interface DomainRecord
  extends v.InferOutput<v.StrictObjectSchema<typeof domainEntries, undefined>> {
  jobs: JobRecord[];
}

export const VERSION = 1;

const driverEntries = {
  version: v.literal(VERSION),
  /** Goes up with each driver: what one before has still to save is refused. */
  epoch: count,
  /** The numbers that come next. */
  nextId: count,
  nextLayer: count,
  nextSerial: count,
  /** Records that nobody understands, as they were. */
  broken: v.array(v.unknown()),
};
const driverSchema = v.strictObject({ ...driverEntries, domains: v.array(v.unknown()) });

/** The device through which a disk's bytes are reached: an export's id. */
export function deviceId(
  { id }: Pick<DomainRecord, "id">,
  disk: Pick<DiskRecord, "target">,
): string {
  return `domain-${id}-${disk.target}`;
}

export interface DriverRecord
  extends v.InferOutput<v.StrictObjectSchema<typeof driverEntries, undefined>> {
  domains: DomainRecord[];
}

export function emptyRecord(): DriverRecord {
  return {
    version: VERSION,
    epoch: 0,
    nextId: 1,
    nextLayer: 1,
    nextSerial: 1,
    broken: [],
    domains: [],
  };
}

/** @param stored what load() of a store gave; undefined: nothing is there yet */
export function readRecord(stored: unknown): DriverRecord {
  if (stored === undefined || stored === null) return emptyRecord();
  const outer = v.safeParse(driverSchema, stored);
  if (!outer.success) return { ...emptyRecord(), ...numbersOf(stored), broken: [stored] };
  const broken = [...outer.output.broken];
  const domains = outer.output.domains.flatMap((item) => {
    const domain = v.safeParse(domainSchema, item);
    if (domain.success) return [{ ...domain.output, jobs: domain.output.jobs.map(readJob) }];
    broken.push(item);
    return [];
  });
  return { ...outer.output, broken, domains };
}

/** Even of what is not understood: names must not be given out twice. */
function numbersOf(
  stored: unknown,
): Pick<DriverRecord, "epoch" | "nextId" | "nextLayer" | "nextSerial"> {
  // A number that nobody has come to by counting.
  const next = v.fallback(count, 1e6);
  const numbers = v.object({
    epoch: v.fallback(count, 0),
    nextId: next,
    nextLayer: next,
    nextSerial: next,
  });
  const known = typeof stored === "object" ? stored : {};
  const all = { epoch: 0, nextId: -1, nextLayer: -1, nextSerial: -1, ...known };
  return v.parse(numbers, all);
}

/** What can be told of a job that cannot be understood: its name, so that it can be ended. */
function readJob(item: unknown, at: number): JobRecord {
  const job = v.safeParse(jobSchema, item);
  if (job.success) return job.output;
  const lenient = v.object({
    name: v.fallback(v.string(), `broken-${at}`),
    serial: v.fallback(count, 0),
    disk: v.fallback(v.string(), ""),
  });
  const known = v.safeParse(lenient, item);
  const { name, serial, disk } = known.success
    ? known.output
    : { name: `broken-${at}`, serial: 0, disk: "" };
  const error = "Its record cannot be understood";
  return {
    name,
    serial,
    kind: "broken",
    state: "running",
    disk,
    flags: 0,
    began: 0,
    wasReady: false,
    error,
  };
}
