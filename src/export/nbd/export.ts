/** An NBD export: the name that clients ask for, what it can do, the bitmaps that go with it. */

import { alignDown } from "../../base/bytes.ts";
import { BlockError } from "../../base/errors.ts";
import type { BlockBackend } from "../../block/backend.ts";
import { type BitmapName, findBitmap } from "../../block/bitmap-changes.ts";
import type { DirtyBitmap } from "../../block/dirty-bitmap.ts";
import type { Graph } from "../../block/graph.ts";
import type { BlockNode } from "../../block/node.ts";
import { linkDown } from "../../block/status.ts";
import type { BlockExport } from "../driver.ts";
import { ExportFlag, STRING_BYTES_MAX } from "./protocol.ts";

/** QEMU counts disks in sectors; what is left over at a disk's end is not exported. */
const SECTOR_BYTES = 512;

/** Members of block-export-add that are NBD's own (QEMU: BlockExportOptionsNbd). */
export interface NbdExportOptions {
  /** Without it the node's name. */
  readonly name?: string | undefined;
  readonly description?: string | undefined;
  /** A name alone is that of a bitmap of the node, or of the nearest node below that has one. */
  readonly bitmaps?: readonly (string | BitmapName)[] | undefined;
  readonly "allocation-depth"?: boolean | undefined;
}

export class NbdExport {
  readonly name: string;
  readonly description: string | undefined;
  /** In bytes; it stays what it is as long as the export is there. */
  readonly size: number;
  /** Bits of ExportFlag. */
  readonly flags: number;
  readonly bitmaps: readonly DirtyBitmap[];
  readonly hasAllocationDepth: boolean;
  /** Counts those who have it open. */
  readonly exported: BlockExport;

  /**
   * @param canMultiConn more than one client may be connected at a time
   * @throws BlockError EINVAL (names, bitmaps), ENOENT (bitmaps), EBUSY (bitmaps)
   */
  constructor(
    exported: BlockExport,
    options: NbdExportOptions,
    graph: Graph,
    canMultiConn: boolean,
  ) {
    const { node, length } = exported.backend;
    this.exported = exported;
    this.name = options.name ?? node.name;
    this.description = options.description;
    this.size = alignDown(length, SECTOR_BYTES);
    this.flags = flagsOf(exported.writable, canMultiConn);
    this.hasAllocationDepth = options["allocation-depth"] ?? false;
    this.bitmaps = (options.bitmaps ?? []).map((wanted) => bitmapOf(exported, wanted, graph));
    // All of them, or none: a later one may have been refused.
    for (const bitmap of this.bitmaps) bitmap.setBusy(true);
  }

  get backend(): BlockBackend {
    return this.exported.backend;
  }

  get isWritable(): boolean {
    return this.exported.writable;
  }

  /** Granule of requests that costs nothing extra. */
  get alignment(): number {
    return this.backend.node.state.limits.requestAlignment;
  }

  /** Nobody has it open any more. */
  close(): void {
    for (const bitmap of this.bitmaps) bitmap.setBusy(false);
  }
}

/** @throws BlockError EINVAL */
export function checkStrings(name: string, description: string | undefined): void {
  if (utf8Bytes(name) > STRING_BYTES_MAX) {
    throw new BlockError("EINVAL", `The export name '${shortened(name)}' is too long`);
  }
  if (description !== undefined && utf8Bytes(description) > STRING_BYTES_MAX) {
    throw new BlockError("EINVAL", `The description '${shortened(description)}' is too long`);
  }
}

/** For error texts. */
export function shortened(text: string): string {
  return text.length < 80 ? text : `${text.slice(0, 80)}...`;
}

function utf8Bytes(text: string): number {
  return new TextEncoder().encode(text).length;
}

function flagsOf(isWritable: boolean, canMultiConn: boolean): number {
  const { hasFlags, sendFlush, sendFua, sendCache } = ExportFlag;
  const { readOnly, sendTrim, sendWriteZeroes, sendFastZero } = ExportFlag;
  const always = hasFlags | sendFlush | sendFua | sendCache;
  const multi = canMultiConn ? ExportFlag.canMultiConn : 0;
  return always | multi | (isWritable ? sendTrim | sendWriteZeroes | sendFastZero : readOnly);
}

function bitmapOf(
  { backend, writable }: BlockExport,
  wanted: string | BitmapName,
  graph: Graph,
): DirtyBitmap {
  if (typeof wanted !== "string") {
    const { bitmap } = findBitmap(graph, wanted);
    bitmap.checkUsable("export");
    return bitmap;
  }
  for (let node: BlockNode | undefined = backend.node; node; node = linkDown(node)?.node) {
    const bitmap = node.bitmaps.find(wanted);
    if (!bitmap) continue;
    // What a client reads would change under it, although nobody told it of writers.
    if (!writable && !node.readOnly && bitmap.enabled) {
      throw new BlockError(
        "EINVAL",
        `Bitmap '${wanted}' is enabled, which a read-only export does not go with`,
      );
    }
    bitmap.checkUsable("export");
    return bitmap;
  }
  throw new BlockError("ENOENT", `Bitmap '${wanted}' is not found`);
}
