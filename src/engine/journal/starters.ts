/**
 * How a job is started again, by the `kind` that its driver wrote into the record (JobDriver.journal).
 *
 *   stream                  goes on: what the overlay has by now is passed over
 *   commit                  from the beginning: what is copied twice is the same
 *   backup                  goes on if its intent has kept its moment; else that is lost, and told
 *   active-commit, mirror   with what their intent has on record; from the beginning if that is nothing
 */

import * as v from "valibot";
import { check } from "../../base/check.ts";
import { BlockError } from "../../base/errors.ts";
import { startActiveCommit } from "../../blockjob/active-commit.ts";
import { BACKUP_SYNCS, BITMAP_MODES, startBackup } from "../../blockjob/backup.ts";
import type { BlockJobServices } from "../../blockjob/block-job.ts";
import { startCommit } from "../../blockjob/commit.ts";
import { startMirror } from "../../blockjob/mirror.ts";
import { COPY_MODES, MIRROR_SYNCS } from "../../blockjob/mirror-options.ts";
import { ON_ERROR_POLICIES } from "../../blockjob/on-error.ts";
import { startStream } from "../../blockjob/stream.ts";
import { ON_CBW_ERROR } from "../../drivers/filter/copy-before-write.ts";
import type { Job } from "../../job/job.ts";
import type { JobRecord } from "./record.ts";

const name = v.optional(v.string());
const policy = v.optional(v.picklist(ON_ERROR_POLICIES));
const flag = v.optional(v.boolean());
const count = v.optional(v.number());

interface Manners {
  readonly jobId: string;
  readonly speed: number | undefined;
  readonly autoFinalize: boolean;
  readonly autoDismiss: boolean;
}

interface Starter {
  readonly schema: v.GenericSchema;
  start(services: BlockJobServices, again: never, manners: Manners): Promise<Job>;
}

/** Only there so that start() gets the type of its own schema. */
function starter<const Entries extends v.ObjectEntries>(
  entries: Entries,
  start: (
    services: BlockJobServices,
    again: v.InferOutput<v.StrictObjectSchema<Entries, undefined>>,
    manners: Manners,
  ) => Promise<Job>,
): Starter {
  return { schema: v.strictObject(entries), start };
}

const STARTERS: Readonly<Record<string, Starter>> = {
  stream: starter(
    {
      device: v.string(),
      baseNode: name,
      bottom: name,
      backingFile: name,
      maskProtocol: flag,
      onError: policy,
      filterNodeName: name,
    },
    (services, again, manners) => startStream(services, { ...again, ...manners }),
  ),
  commit: starter(
    {
      device: v.string(),
      topNode: v.string(),
      baseNode: v.string(),
      backingFile: name,
      maskProtocol: flag,
      onError: policy,
      filterNodeName: name,
    },
    (services, again, manners) => startCommit(services, { ...again, ...manners }),
  ),
  "active-commit": starter(
    { top: v.string(), base: v.string(), onError: policy, filterNodeName: name, intent: name },
    async (services, { top, base, ...others }, manners) =>
      startActiveCommit(services, {
        ...others,
        ...manners,
        top: services.graph.get(top),
        base: services.graph.get(base),
      }),
  ),
  mirror: starter(
    {
      device: v.string(),
      target: v.string(),
      replaces: v.string(),
      sync: v.picklist(MIRROR_SYNCS),
      copyMode: v.optional(v.picklist(COPY_MODES)),
      targetIsZero: flag,
      unmap: flag,
      backingMode: v.optional(v.picklist(["leave", "source"])),
      granularity: count,
      bufSize: count,
      onSourceError: policy,
      onTargetError: policy,
      filterNodeName: name,
      intent: name,
    },
    async (services, again, manners) => {
      // Whatever the id, it is of no record that can be found.
      const { intent = "" } = again;
      return startMirror(services, { ...again, ...manners, intent });
    },
  ),
  backup: starter(
    {
      device: v.string(),
      target: v.string(),
      sync: v.picklist(BACKUP_SYNCS),
      bitmap: name,
      bitmapMode: v.optional(v.picklist(BITMAP_MODES)),
      compress: flag,
      discardSource: flag,
      onSourceError: policy,
      onTargetError: policy,
      onCbwError: v.optional(v.picklist(ON_CBW_ERROR)),
      filterNodeName: name,
      maxWorkers: count,
      maxChunk: count,
      minClusterSize: count,
      intent: name,
    },
    async (services, again, manners) => {
      checkBitmap(services, again);
      // Whatever the id, it is of no record that can be found.
      const { intent = "" } = again;
      return startBackup(services, { ...again, ...manners, intent });
    },
  ),
};

/** @throws BlockError EIO: in place of a sentence about a name, where what went by it has gone with its engine */
function checkBitmap(
  { graph }: BlockJobServices,
  { device, bitmap }: { readonly device: string; readonly bitmap?: string | undefined },
): void {
  const node = graph.find(device);
  if (!node || bitmap === undefined || node.bitmaps.find(bitmap)) return;
  throw new BlockError(
    "EIO",
    `What the backup was to copy is not known any more: bitmap '${bitmap}' is lost. ` +
      "The target is not complete: make the backup again",
  );
}

export function canStart({ again }: JobRecord): boolean {
  return again !== null && Object.hasOwn(STARTERS, again.kind);
}

/** @throws BlockError EINVAL if what the record says is not what the job takes */
export function checkStart({ again }: JobRecord): unknown {
  const { kind, ...options } = again!;
  return check(STARTERS[kind]!.schema, options, "again");
}

/**
 * Starts it under its id, with its speed.
 *
 * @throws BlockError as checkStart(); why it cannot be started: nothing has changed then
 */
export function startAgain(services: BlockJobServices, record: JobRecord): Promise<Job> {
  const options = checkStart(record);
  const { id, speed, autoFinalize, autoDismiss } = record;
  const manners = { jobId: id, speed, autoFinalize, autoDismiss };
  return STARTERS[record.again!.kind]!.start(services, options as never, manners);
}
