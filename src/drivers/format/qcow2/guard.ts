/**
 * Where the image's own structures lie, so that nothing is ever written over them.
 *
 *     header │ refcount table │ refcount blocks │ L1 │ L2 tables │ snapshot table │ snapshots' L1s
 *
 * Pointers come from a file that anything may have happened to. Before guest data goes to a cluster,
 * before a new one is handed out, and before a table is changed, the place is looked up here: all
 * fixed areas, and those L2 tables and refcount blocks that are known. All are known where the
 * tables that point to them are small (SCAN_BYTES, as of a disk of 16 TiB with 64 KiB clusters);
 * else those that were met. (QEMU: block/qcow2-refcount.c, qcow2_check_metadata_overlap().)
 */

import { BlockError } from "../../../base/errors.ts";

/** Tables up to this size are read whole when an image is opened for writing. */
export const SCAN_BYTES = 256 * 1024;
/** Inactive: a snapshot's. The disk may have the same one. */
export type GuardedTable = "L2 table" | "inactive L2 table" | "refcount block";
const KINDS: readonly GuardedTable[] = ["L2 table", "inactive L2 table", "refcount block"];

/** Bounds the memory for tables met later on: 16 bytes or so each. */
const TABLES_MAX = 128 * 1024;

interface Area {
  readonly name: string;
  readonly offset: number;
  readonly end: number;
}

export class Guard {
  readonly #areas = new Map<string, Area>();
  /** Offsets of tables that have one cluster each. */
  readonly #tables: Readonly<Record<GuardedTable, Set<number>>> = {
    "L2 table": new Set(),
    "inactive L2 table": new Set(),
    "refcount block": new Set(),
  };
  readonly #clusterBytes: number;

  constructor(clusterBytes: number) {
    this.#clusterBytes = clusterBytes;
  }

  /** Says where an area is, or is now. @param bytes rounded up to whole clusters; 0: nowhere */
  setArea(name: string, offset: number, bytes: number): void {
    const clusters = Math.ceil(bytes / this.#clusterBytes);
    this.#areas.set(name, { name, offset, end: offset + clusters * this.#clusterBytes });
  }

  /** The first two areas that share a cluster; null if none do. */
  sharedAreas(): readonly [string, string] | null {
    const areas = [...this.#areas.values()].filter(({ offset, end }) => offset < end);
    areas.sort((a, b) => a.offset - b.offset);
    for (const [i, area] of areas.entries()) {
      const before = areas[i - 1];
      if (before && area.offset < before.end) return [before.name, area.name];
    }
    return null;
  }

  addTable(offset: number, kind: GuardedTable): void {
    const tables = this.#tables[kind];
    if (offset > 0 && tables.size < TABLES_MAX) tables.add(offset);
  }

  hasTable(offset: number, kind: GuardedTable): boolean {
    return this.#tables[kind].has(offset);
  }

  /** The cluster may be handed out again. */
  removeTable(offset: number, kind: GuardedTable): void {
    this.#tables[kind].delete(offset);
  }

  /**
   * What of the image lies in a range of whole clusters; null if nothing known does.
   *
   * @param except what is about to be written there, as what it is
   */
  find(offset: number, bytes: number, except?: GuardedTable | "L1 table"): string | null {
    const end = offset + bytes;
    for (const area of this.#areas.values()) {
      // A snapshot and the disk may have the same one.
      if (except === "L1 table" && area.name.endsWith(except)) continue;
      if (area.offset < end && offset < area.end) return area.name;
    }
    for (const kind of KINDS) {
      const tables = this.#tables[kind];
      if (tables.size === 0 || kind === except) continue;
      if (kind === "inactive L2 table" && except === "L2 table") continue;
      if (this.#isTableWithin(tables, offset, end)) return kind;
    }
    return null;
  }

  /** Looks up each cluster or goes through the tables, whichever are fewer: a range may end at 2^56. */
  #isTableWithin(tables: ReadonlySet<number>, offset: number, end: number): boolean {
    if ((end - offset) / this.#clusterBytes > tables.size) {
      for (const at of tables) if (at >= offset && at < end) return true;
      return false;
    }
    for (let at = offset; at < end; at += this.#clusterBytes) if (tables.has(at)) return true;
    return false;
  }
}

export function overlapError(what: string, offset: number, area: string): BlockError {
  return new BlockError("EIO", `The image is corrupt: ${what} at ${offset} lies on its ${area}`);
}
