/** The page's door to domains: what it needs of this floor, without what checks and does it. */

export { BANDWIDTH_BYTES_MAX } from "./bandwidth.ts";
export type { BlockJobAnswer, BlockJobEntry } from "./block-info.ts";
export type {
  BlockCopyParams,
  DiskInfo,
  DomainInfo,
} from "./calls.ts";
export { type ConnectTabOptions, connectTab, type Tab } from "./connect-tab.ts";
export type { DiskDefinition, DomainDefinition, ImageDefinition } from "./definition.ts";
export { type Caller, Connection, Domain } from "./domain.ts";
export { DomainClient } from "./domain-client.ts";
export * from "./enums.ts";
export { DOMAIN_ERRORS, DomainError, type DomainErrorName } from "./errors.ts";
export type { DomainEvent } from "./events.ts";
export * as flags from "./flags.ts";
export type { BlockJobInfo } from "./info.ts";
export type { CheckpointRecord, JobStats } from "./record.ts";
export { parseBandwidth, percentage } from "./virsh.ts";
