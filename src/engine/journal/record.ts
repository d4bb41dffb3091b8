/**
 * The journal's record: all that an engine is made of, as one JSON value that is replaced as a whole.
 *
 *   { version, epoch, seq,
 *     objects, nodes, exports    what blockdev-add and the like made, as it is now
 *     jobs                       each with what starts it again
 *     history                    jobs that have come to their end
 *     requests                   answers that a client may have to ask for again
 *     broken }                   what could not be understood when it was read
 *
 * One value, so that there is one moment at which a change counts: a link and the job that has changed it
 * are there together, or neither is. No passphrase is ever in it, nor any byte of a disk.
 *
 * What comes from a store is not trusted: each entry is checked for itself, and one that is wrong costs
 * nothing but itself.
 */

import * as v from "valibot";
import { check, size } from "../../base/check.ts";
import { BlockError } from "../../base/errors.ts";
import { nodeRecord } from "../../block/graph-record.ts";
import { STATUSES } from "../../job/status.ts";
import { type JobHistoryInfo, jobHistoryInfo, RECOVERY_KINDS } from "../../qmp/commands/journal.ts";
import { jobType } from "../../qmp/types.ts";

export const VERSION = 1;

const timestamp = v.strictObject({ seconds: v.number(), microseconds: v.number() });

const objectRecord = v.looseObject({ "qom-type": v.string(), id: v.string() });
export type ObjectRecord = v.InferOutput<typeof objectRecord>;

const exportRecord = v.looseObject({ type: v.string(), id: v.string(), "node-name": v.string() });
export type ExportRecord = v.InferOutput<typeof exportRecord>;

const failure = v.strictObject({ errno: v.string(), desc: v.string() });

const jobRecord = v.strictObject({
  id: v.string(),
  type: jobType,
  status: v.picklist(STATUSES),
  /** What it was to bring about is in the nodes of this record. */
  hasTakenEffect: v.boolean(),
  /** By its user. */
  paused: v.boolean(),
  autoFinalize: v.boolean(),
  autoDismiss: v.boolean(),
  /** Of jobs on nodes. */
  speed: v.optional(size),
  current: size,
  total: size,
  began: timestamp,
  error: v.nullable(failure),
  /** JobDriver.journal(); null: it cannot be started again. */
  again: v.nullable(v.looseObject({ kind: v.string() })),
});
export type JobRecord = v.InferOutput<typeof jobRecord>;

const clientRecord = v.strictObject({
  client: v.string(),
  /** Answers up to this number are forgotten. */
  forgotten: v.number(),
  /** reply null: accepted, not answered yet. */
  requests: v.array(v.strictObject({ n: v.number(), reply: v.nullable(v.looseObject({})) })),
});
export type ClientRecord = v.InferOutput<typeof clientRecord>;

const brokenEntry = v.strictObject({
  kind: v.picklist(RECOVERY_KINDS),
  name: v.string(),
  why: v.string(),
  entry: v.unknown(),
});
export type BrokenEntry = v.InferOutput<typeof brokenEntry>;

export interface JournalRecord {
  readonly version: typeof VERSION;
  /** Of the engine that has written it; the next one's is higher. */
  readonly epoch: number;
  readonly seq: number;
  readonly objects: readonly ObjectRecord[];
  readonly nodes: readonly v.InferOutput<typeof nodeRecord>[];
  readonly exports: readonly ExportRecord[];
  /** The oldest first, here and above. */
  readonly jobs: readonly JobRecord[];
  readonly history: readonly JobHistoryInfo[];
  readonly requests: readonly ClientRecord[];
  readonly broken: readonly BrokenEntry[];
}

export function emptyRecord(epoch = 0): JournalRecord {
  const none = { objects: [], nodes: [], exports: [], jobs: [], history: [], requests: [] };
  return { version: VERSION, epoch, seq: 0, ...none, broken: [] };
}

const outline = v.object({
  version: v.literal(VERSION),
  epoch: size,
  seq: size,
  objects: v.array(v.unknown()),
  nodes: v.array(v.unknown()),
  exports: v.array(v.unknown()),
  jobs: v.array(v.unknown()),
  history: v.array(v.unknown()),
  requests: v.array(v.unknown()),
  broken: v.array(brokenEntry),
});

/**
 * What has to be on record before anybody is told of it, for comparisons. Not how far a job has come: nobody goes on
 * from there, and one who asks every second would have it saved every second.
 */
export function essenceOf({ jobs, ...record }: JournalRecord): string {
  const lasting = jobs.map(({ current: _current, total: _total, ...job }) => job);
  return JSON.stringify({ ...record, seq: 0, jobs: lasting });
}

/** Whether it is one, whatever is wrong with its entries. */
export function isJournalRecord(stored: unknown): boolean {
  return v.is(outline, stored);
}

/** @param stored what a store had: undefined for nothing, else anything */
export function parseRecord(stored: unknown): JournalRecord {
  if (stored === undefined) return emptyRecord();
  let found: v.InferOutput<typeof outline>;
  try {
    found = check(outline, stored, "record");
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    const broken = { kind: "record", name: "", why: error.message, entry: stored } as const;
    return { ...emptyRecord(epochOf(stored)), broken: [broken] };
  }
  const broken = [...found.broken];
  const sound = <Schema extends v.GenericSchema>(
    kind: BrokenEntry["kind"],
    schema: Schema,
    entries: readonly unknown[],
  ): v.InferOutput<Schema>[] =>
    entries.flatMap((entry) => {
      try {
        return [check(schema, entry, kind)];
      } catch (error) {
        if (!(error instanceof BlockError)) throw error;
        broken.push({ kind, name: nameOf(entry), why: error.message, entry });
        return [];
      }
    });
  return {
    version: VERSION,
    epoch: found.epoch,
    seq: found.seq,
    objects: sound("object", objectRecord, found.objects),
    nodes: sound("node", nodeRecord, found.nodes),
    exports: sound("export", exportRecord, found.exports),
    jobs: sound("job", jobRecord, found.jobs),
    history: sound("history", jobHistoryInfo, found.history),
    requests: sound("request", clientRecord, found.requests),
    broken,
  };
}

/** Also of a record that makes no sense otherwise: nobody older may write over it. */
export function epochOf(stored: unknown): number {
  const { epoch } = (stored ?? {}) as { epoch?: unknown };
  return typeof epoch === "number" && Number.isSafeInteger(epoch) && epoch >= 0 ? epoch : 0;
}

function nameOf(entry: unknown): string {
  const { id, client, options } = (entry ?? {}) as Record<string, unknown>;
  const name = id ?? client ?? (options as Record<string, unknown> | undefined)?.["node-name"];
  return typeof name === "string" ? name : "";
}
