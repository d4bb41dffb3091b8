/**
 * What the queries answer, in QEMU's words and shapes (qapi/block-core.json, qapi/job.json). Each is
 * a schema; the TypeScript types are made from them.
 */

import * as v from "valibot";
import { size } from "../base/check.ts";
import { STATUSES } from "../job/status.ts";
import { qcow2EncryptInfo } from "./encrypt-info.ts";
import { int } from "./schema.ts";
import { union } from "./union.ts";

export const versionInfo = v.strictObject({
  qemu: v.strictObject({ major: int, minor: int, micro: int }),
  package: v.string(),
});

export const jobStatus = v.picklist(STATUSES);

/** JobType. */
const JOB_TYPES = [
  "commit",
  "stream",
  "mirror",
  "backup",
  "create",
  "amend",
  "snapshot-load",
  "snapshot-save",
  "snapshot-delete",
] as const;

export const jobType = v.picklist(JOB_TYPES) as v.GenericSchema<string>;

/** JobInfo: an entry of query-jobs. */
export const jobInfo = v.strictObject({
  id: v.string(),
  type: jobType,
  status: jobStatus,
  "current-progress": int,
  "total-progress": int,
  error: v.exactOptional(v.string()),
});

export const ioStatus = v.picklist(["ok", "failed", "nospace"]);

const blockJobBase = {
  /** The job's id. */
  device: v.string(),
  len: int,
  offset: int,
  busy: v.boolean(),
  paused: v.boolean(),
  /** Bytes per second; 0 is unlimited. */
  speed: int,
  "io-status": ioStatus,
  ready: v.boolean(),
  status: jobStatus,
  "auto-finalize": v.boolean(),
  "auto-dismiss": v.boolean(),
  error: v.exactOptional(v.string()),
};
const mirrorInfo = {
  /** Both disks are the same, and each write goes to both before it is done. */
  "actively-synced": v.boolean(),
};
type BlockJobInfo = { type: string; "actively-synced"?: boolean } & v.InferOutput<
  v.StrictObjectSchema<typeof blockJobBase, undefined>
>;

/** BlockJobInfo: an entry of query-block-jobs. `len` and `offset` have no unit: see the job. */
export const blockJobInfo = union("type", blockJobBase, {
  ...Object.fromEntries(JOB_TYPES.map((type) => [type, {}])),
  mirror: mirrorInfo,
}) as v.GenericSchema<unknown> as v.GenericSchema<BlockJobInfo>;

/** SnapshotInfo: a state of the disk kept inside an image. */
export const snapshotInfo = v.strictObject({
  id: v.string(),
  name: v.string(),
  "vm-state-size": size,
  /** When it was taken. */
  "date-sec": size,
  "date-nsec": size,
  /** How long the machine had been running. */
  "vm-clock-sec": size,
  "vm-clock-nsec": size,
  icount: v.exactOptional(size),
});
export type SnapshotJson = v.InferOutput<typeof snapshotInfo>;

/** ImageInfo: an image, and the images behind it. Sizes in bytes. */
export interface ImageInfo {
  filename: string;
  /** Driver name. */
  format: string;
  "virtual-size": number;
  /** What it takes up in its store. */
  "actual-size"?: number;
  "dirty-flag"?: boolean;
  "cluster-size"?: number;
  encrypted?: boolean;
  compressed?: boolean;
  /** As written in the image: a label. */
  "backing-filename"?: string;
  "backing-filename-format"?: string;
  /** Only there if there are any. */
  snapshots?: SnapshotJson[];
  "format-specific"?: { type: string; data: object };
  "backing-image"?: ImageInfo;
}

/** Qcow2BitmapInfo: a dirty bitmap as the image keeps it. */
const qcow2BitmapInfo = v.strictObject({
  name: v.string(),
  granularity: int,
  flags: v.array(v.picklist(["in-use", "auto"])),
});

/** ImageInfoSpecific: what only images of one format have. */
const imageInfoSpecific = union(
  "type",
  {},
  {
    file: { data: v.strictObject({}) },
    qcow2: {
      data: v.strictObject({
        compat: v.string(),
        "data-file": v.exactOptional(v.string()),
        "data-file-raw": v.exactOptional(v.boolean()),
        "extended-l2": v.exactOptional(v.boolean()),
        "lazy-refcounts": v.exactOptional(v.boolean()),
        corrupt: v.exactOptional(v.boolean()),
        "refcount-bits": int,
        "compression-type": v.picklist(["zlib", "zstd"]),
        encrypt: v.exactOptional(qcow2EncryptInfo),
        /** Only there if there are any. */
        bitmaps: v.exactOptional(v.array(qcow2BitmapInfo)),
      }),
    },
  },
) as v.GenericSchema<unknown> as v.GenericSchema<{ type: string; data: object }>;

export const imageInfo: v.GenericSchema<ImageInfo> = v.strictObject({
  filename: v.string(),
  format: v.string(),
  "virtual-size": size,
  "actual-size": v.exactOptional(size),
  "dirty-flag": v.exactOptional(v.boolean()),
  "cluster-size": v.exactOptional(size),
  encrypted: v.exactOptional(v.boolean()),
  compressed: v.exactOptional(v.boolean()),
  "backing-filename": v.exactOptional(v.string()),
  "backing-filename-format": v.exactOptional(v.string()),
  snapshots: v.exactOptional(v.array(snapshotInfo)),
  "format-specific": v.exactOptional(imageInfoSpecific),
  "backing-image": v.exactOptional(v.lazy(() => imageInfo)),
});

/** BlockDirtyInfo: a dirty bitmap. */
export const blockDirtyInfo = v.strictObject({
  /** A job's own has none. */
  name: v.exactOptional(v.string()),
  /** Dirty bytes, in whole granules. */
  count: int,
  granularity: int,
  recording: v.boolean(),
  busy: v.boolean(),
  persistent: v.boolean(),
  /** Only there if it is true. */
  inconsistent: v.exactOptional(v.boolean()),
});
export type BlockDirtyInfo = v.InferOutput<typeof blockDirtyInfo>;

/** BlockDeviceInfo: an entry of query-named-block-nodes. */
export const blockDeviceInfo = v.strictObject({
  file: v.string(),
  "node-name": v.string(),
  ro: v.boolean(),
  drv: v.string(),
  backing_file: v.exactOptional(v.string()),
  backing_file_depth: int,
  children: v.array(v.strictObject({ child: v.string(), "node-name": v.string() })),
  active: v.boolean(),
  encrypted: v.boolean(),
  detect_zeroes: v.picklist(["off", "on", "unmap"]),
  bps: int,
  bps_rd: int,
  bps_wr: int,
  iops: int,
  iops_rd: int,
  iops_wr: int,
  image: imageInfo,
  cache: v.strictObject({
    writeback: v.boolean(),
    direct: v.boolean(),
    "no-flush": v.boolean(),
  }),
  write_threshold: int,
  /** Only there if the node has any; the newest first. */
  "dirty-bitmaps": v.exactOptional(v.array(blockDirtyInfo)),
});
export type BlockDeviceInfo = v.InferOutput<typeof blockDeviceInfo>;

/** BlockDeviceStats: figures since the node or device is there. Bytes, numbers, nanoseconds. */
export const blockDeviceStats = v.strictObject({
  rd_bytes: size,
  wr_bytes: size,
  zone_append_bytes: size,
  unmap_bytes: size,
  rd_operations: size,
  wr_operations: size,
  zone_append_operations: size,
  flush_operations: size,
  unmap_operations: size,
  rd_total_time_ns: size,
  wr_total_time_ns: size,
  zone_append_total_time_ns: size,
  flush_total_time_ns: size,
  unmap_total_time_ns: size,
  /** The furthest end of a write to the node. */
  wr_highest_offset: size,
  rd_merged: size,
  wr_merged: size,
  zone_append_merged: size,
  unmap_merged: size,
  /** Since the last request ended; only there if there was one. */
  idle_time_ns: v.exactOptional(size),
  failed_rd_operations: size,
  failed_wr_operations: size,
  failed_zone_append_operations: size,
  failed_flush_operations: size,
  failed_unmap_operations: size,
  invalid_rd_operations: size,
  invalid_wr_operations: size,
  invalid_zone_append_operations: size,
  invalid_flush_operations: size,
  invalid_unmap_operations: size,
  account_invalid: v.boolean(),
  account_failed: v.boolean(),
  /** There are no intervals that one could ask for. */
  timed_stats: v.array(v.strictObject({})),
});
export type BlockDeviceStats = v.InferOutput<typeof blockDeviceStats>;

/** BlockStats: an entry of query-blockstats. */
export interface BlockStats {
  device?: string;
  "node-name"?: string;
  stats: BlockDeviceStats;
  "driver-specific"?: {
    driver: "file";
    "discard-nb-ok": number;
    "discard-nb-failed": number;
    "discard-bytes-ok": number;
  };
  /** Where it keeps its data. */
  parent?: BlockStats;
  /** Of a device: what is filtered, or the backing file. */
  backing?: BlockStats;
}

/** BlockStatsSpecific: what only nodes of one driver count. */
const blockStatsSpecific = union(
  "driver",
  {},
  { file: { "discard-nb-ok": size, "discard-nb-failed": size, "discard-bytes-ok": size } },
) as v.GenericSchema<unknown> as v.GenericSchema<NonNullable<BlockStats["driver-specific"]>>;

export const blockStats: v.GenericSchema<BlockStats> = v.strictObject({
  device: v.exactOptional(v.string()),
  "node-name": v.exactOptional(v.string()),
  stats: blockDeviceStats,
  "driver-specific": v.exactOptional(blockStatsSpecific),
  parent: v.exactOptional(v.lazy(() => blockStats)),
  backing: v.exactOptional(v.lazy(() => blockStats)),
});

/** BlockInfo: an entry of query-block. */
export const blockInfo = v.strictObject({
  device: v.string(),
  type: v.string(),
  removable: v.boolean(),
  locked: v.boolean(),
  inserted: blockDeviceInfo,
});

/** BlockExportInfo: an entry of query-block-exports. */
export const blockExportInfo = v.strictObject({
  id: v.string(),
  type: v.string(),
  "node-name": v.string(),
  "shutting-down": v.boolean(),
});

const features = v.exactOptional(v.array(v.string()));
const schemaInfoMember = v.strictObject({
  name: v.string(),
  type: v.string(),
  /** Only there if the member may be left out; what it is then, nobody promises. */
  default: v.exactOptional(v.unknown()),
  features,
});
const schemaInfoCases = {
  builtin: {
    "json-type": v.picklist([
      "string",
      "number",
      "int",
      "boolean",
      "null",
      "object",
      "array",
      "value",
    ]),
  },
  enum: {
    members: v.array(v.strictObject({ name: v.string(), features })),
    /** As it was told before there were `members`. */
    values: v.array(v.string()),
  },
  array: { "element-type": v.string() },
  object: {
    members: v.array(schemaInfoMember),
    tag: v.exactOptional(v.string()),
    variants: v.exactOptional(v.array(v.strictObject({ case: v.string(), type: v.string() }))),
  },
  alternate: { members: v.array(v.strictObject({ type: v.string() })) },
  command: {
    "arg-type": v.string(),
    "ret-type": v.string(),
    /** Only there where it is true, which it is of no command here. */
    "allow-oob": v.exactOptional(v.boolean()),
  },
  event: { "arg-type": v.string() },
};
type SchemaInfoCases = typeof schemaInfoCases;

type MembersOf<Entries> = Entries extends v.ObjectEntries
  ? v.InferOutput<v.StrictObjectSchema<Entries, undefined>>
  : never;
type SchemaInfoOf<Meta extends keyof SchemaInfoCases> = {
  name: string;
  "meta-type": Meta;
  features?: string[];
} & MembersOf<SchemaInfoCases[Meta]>;

export type SchemaInfoObject = SchemaInfoOf<"object">;
/** SchemaInfo: an entry of query-qmp-schema. */
export type SchemaInfo = {
  [Meta in keyof SchemaInfoCases]: SchemaInfoOf<Meta>;
}[keyof SchemaInfoCases];

export const schemaInfo = union(
  "meta-type",
  { name: v.string(), features },
  schemaInfoCases,
) as v.GenericSchema<unknown> as v.GenericSchema<SchemaInfo>;
