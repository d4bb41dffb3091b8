/**
 * Everything that can be asked of a driver, as data: what is checked of what comes over a port, and the types
 * of both ends. The first argument of most is the domain's name. Names, arguments and their order are libvirt's,
 * without the prefix: virDomainBlockPull(dom, disk, bandwidth, flags) is blockPull.
 */

import * as v from "valibot";
import { size } from "../base/check.ts";
import type { BackupDefinition } from "./backup-definition.ts";
import type { BlockJobAnswer, BlockJobEntry } from "./block-info.ts";
import type { CheckpointDefinition } from "./checkpoint-definition.ts";
import type { CheckpointInfo } from "./checkpoint-size.ts";
import type { DomainDefinition, Format, ImageDefinition } from "./definition.ts";
import type { CheckpointRecord, JobStats } from "./record.ts";
import type { SnapshotDefinition } from "./snapshot.ts";
import type { Source } from "./source.ts";

export interface DiskInfo {
  readonly target: string;
  readonly readonly: boolean;
  /** The export through which its bytes are reached; null if the domain does not run. */
  readonly device: string | null;
  /** The top first. `node`: its name in the engine while it runs. */
  readonly chain: readonly {
    readonly format: Format;
    readonly source: Source;
    readonly path: string | null;
    readonly node: string | null;
  }[];
}

export interface DomainInfo {
  readonly name: string;
  /** null: it does not run. */
  readonly id: number | null;
  /** One of DOMAIN_STATE. */
  readonly state: number;
  readonly disks: readonly DiskInfo[];
}

/** Typed parameters of blockCopy(), under libvirt's names. */
export interface BlockCopyParams {
  /** bytes/s, always. */
  readonly bandwidth?: number;
  /** Bytes, a power of two. */
  readonly granularity?: number;
  readonly "buf-size"?: number;
}

export interface Calls {
  listAllDomains(): DomainInfo[];
  lookupByName(name: string): DomainInfo;
  define(definition: DomainDefinition, flags: number): DomainInfo;
  undefine(domain: string, flags: number): void;
  create(domain: string, flags: number): void;
  destroy(domain: string, flags: number): void;
  shutdown(domain: string, flags: number): void;
  getDesc(domain: string, flags: number): DomainDefinition;
  blockPull(domain: string, disk: string, bandwidth: number, flags: number): void;
  blockRebase(
    domain: string,
    disk: string,
    base: string | null,
    bandwidth: number,
    flags: number,
  ): void;
  blockCopy(
    domain: string,
    disk: string,
    destination: ImageDefinition,
    params: BlockCopyParams,
    flags: number,
  ): void;
  blockCommit(
    domain: string,
    disk: string,
    base: string | null,
    top: string | null,
    bandwidth: number,
    flags: number,
  ): void;
  blockJobAbort(domain: string, disk: string, flags: number): void;
  getBlockJobInfo(domain: string, disk: string, flags: number): BlockJobAnswer;
  blockJobSetSpeed(domain: string, disk: string, bandwidth: number, flags: number): void;
  listBlockJobs(domain: string): BlockJobEntry[];
  backupBegin(
    domain: string,
    backup: BackupDefinition,
    checkpoint: CheckpointDefinition | null,
    flags: number,
  ): void;
  backupGetDesc(domain: string, flags: number): BackupDefinition;
  abortJob(domain: string): void;
  getJobStats(domain: string, flags: number): JobStats;
  checkpointCreate(domain: string, definition: CheckpointDefinition, flags: number): string;
  checkpointDelete(domain: string, name: string, flags: number): void;
  checkpointGetDesc(domain: string, name: string, flags: number): CheckpointInfo;
  checkpointGetParent(domain: string, name: string, flags: number): CheckpointRecord;
  listAllCheckpoints(domain: string, flags: number): CheckpointRecord[];
  checkpointListAllChildren(domain: string, name: string, flags: number): CheckpointRecord[];
  snapshotCreate(domain: string, definition: SnapshotDefinition, flags: number): void;
}

export type CallName = keyof Calls;
export type ArgumentsOf<Name extends CallName> = Parameters<Calls[Name]>;
export type ResultOf<Name extends CallName> = ReturnType<Calls[Name]>;

const name = v.pipe(v.string(), v.maxLength(4096));
const optionalName = v.nullable(name);
const flags = v.number();
const bandwidth = v.number();
/** A definition: the call itself checks it, and says what is wrong. */
const json = v.unknown();
const params = v.strictObject({
  bandwidth: v.exactOptional(v.number()),
  granularity: v.exactOptional(size),
  "buf-size": v.exactOptional(size),
});

/** Arguments, in order. Flags that are left out are 0. */
export const CALLS: Readonly<Record<CallName, readonly v.GenericSchema[]>> = {
  listAllDomains: [],
  lookupByName: [name],
  define: [json, flags],
  undefine: [name, flags],
  create: [name, flags],
  destroy: [name, flags],
  shutdown: [name, flags],
  getDesc: [name, flags],
  blockPull: [name, name, bandwidth, flags],
  blockRebase: [name, name, optionalName, bandwidth, flags],
  blockCopy: [name, name, json, params, flags],
  blockCommit: [name, name, optionalName, optionalName, bandwidth, flags],
  blockJobAbort: [name, name, flags],
  getBlockJobInfo: [name, name, flags],
  blockJobSetSpeed: [name, name, bandwidth, flags],
  listBlockJobs: [name],
  backupBegin: [name, json, json, flags],
  backupGetDesc: [name, flags],
  abortJob: [name],
  getJobStats: [name, flags],
  checkpointCreate: [name, json, flags],
  checkpointDelete: [name, name, flags],
  checkpointGetDesc: [name, name, flags],
  checkpointGetParent: [name, name, flags],
  listAllCheckpoints: [name, flags],
  checkpointListAllChildren: [name, name, flags],
  snapshotCreate: [name, json, flags],
};

/** They change nothing: whoever does not know whether he has been heard asks again. */
export const QUESTIONS: ReadonlySet<CallName> = new Set<CallName>([
  "listAllDomains",
  "lookupByName",
  "getDesc",
  "getBlockJobInfo",
  "listBlockJobs",
  "backupGetDesc",
  "checkpointGetDesc",
  "checkpointGetParent",
  "listAllCheckpoints",
  "checkpointListAllChildren",
]);

export interface CallOptions {
  /** Raised when the caller does not wait any more: a call that waits for its turn or for an end is over. */
  readonly signal?: AbortSignal | undefined;
}
