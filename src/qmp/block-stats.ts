/**
 * Figures of nodes and devices, in QEMU's shape (block/qapi.c, bdrv_query_bds_stats()). QEMU counts
 * requests of devices only and shows zeroes for a node; here a node's own requests are counted, too.
 */

import type { BlockBackend } from "../block/backend.ts";
import type { ChildRole } from "../block/driver.ts";
import type { IoFigures, IoStats } from "../block/io-stats.ts";
import type { BlockNode } from "../block/node.ts";
import { linkDown } from "../block/status.ts";
import { skipImplicit } from "./block-info.ts";
import type { BlockDeviceStats, BlockStats } from "./types.ts";

/** Of a node, with those that it keeps its bytes in nested in it. */
export function nodeStats(node: BlockNode): BlockStats {
  const below = dataOf(node);
  return {
    "node-name": node.name,
    stats: figuresOf(node.stats, node.stats.highestWrite, false),
    ...specificOf(node),
    ...(below && { parent: nodeStats(below) }),
  };
}

/** Of a device: its requests, and the nodes below it as its user knows them. */
export function deviceStats(backend: BlockBackend, nowMs: number): BlockStats {
  const { name, stats } = backend;
  const node = skipImplicit(backend.node);
  return {
    device: name,
    ...chainStats(node),
    stats: {
      ...figuresOf(stats, node.stats.highestWrite, true),
      ...(stats.lastMs !== null && { idle_time_ns: nanoseconds(nowMs - stats.lastMs) }),
    },
  };
}

function chainStats(top: BlockNode): BlockStats {
  const node = skipImplicit(top);
  const data = dataOf(node);
  const below = linkDown(node)?.node;
  return {
    "node-name": node.name,
    stats: figuresOf(node.stats, node.stats.highestWrite, false),
    ...specificOf(node),
    ...(data && { parent: chainStats(data) }),
    ...(below && { backing: chainStats(below) }),
  };
}

/** Where the node's data is: an image's in its data file, if it has one. */
function dataOf(node: BlockNode): BlockNode | undefined {
  const roles: readonly ChildRole[] = ["data-file", "file"];
  return roles.map((role) => node.children.get(role)?.node).find((child) => child !== undefined);
}

/** Of stores whose driver is QEMU's, too. */
function specificOf({ driver, stats }: BlockNode): Partial<BlockStats> {
  if (driver.name !== "file") return {};
  const { operations, failed, bytes } = stats.unmap;
  return {
    "driver-specific": {
      driver: "file",
      "discard-nb-ok": operations,
      "discard-nb-failed": failed,
      "discard-bytes-ok": bytes,
    },
  };
}

/** @param counted whether what failed and what was out of range is in the figures, as QEMU says it */
function figuresOf(
  { rd, wr, flush, unmap }: IoStats,
  highestWrite: number,
  counted: boolean,
): BlockDeviceStats {
  return {
    rd_bytes: rd.bytes,
    wr_bytes: wr.bytes,
    zone_append_bytes: 0,
    unmap_bytes: unmap.bytes,
    rd_operations: rd.operations,
    wr_operations: wr.operations,
    zone_append_operations: 0,
    flush_operations: flush.operations,
    unmap_operations: unmap.operations,
    rd_total_time_ns: total(rd),
    wr_total_time_ns: total(wr),
    zone_append_total_time_ns: 0,
    flush_total_time_ns: total(flush),
    unmap_total_time_ns: total(unmap),
    wr_highest_offset: highestWrite,
    rd_merged: 0,
    wr_merged: 0,
    zone_append_merged: 0,
    unmap_merged: 0,
    failed_rd_operations: rd.failed,
    failed_wr_operations: wr.failed,
    failed_zone_append_operations: 0,
    failed_flush_operations: flush.failed,
    failed_unmap_operations: unmap.failed,
    invalid_rd_operations: rd.invalid,
    invalid_wr_operations: wr.invalid,
    invalid_zone_append_operations: 0,
    invalid_flush_operations: flush.invalid,
    invalid_unmap_operations: unmap.invalid,
    account_invalid: counted,
    account_failed: counted,
    timed_stats: [],
  };
}

function total({ totalMs }: IoFigures): number {
  return nanoseconds(totalMs);
}

function nanoseconds(ms: number): number {
  return Math.round(ms * 1e6);
}
