/** Where the fields of a whole image lie, so that a mutation can mean something. */

import { readU16, readU32 } from "../../../src/base/bytes.ts";

export interface Field {
  readonly name: string;
  readonly at: number;
  /** Bytes: 1, 2, 4 or 8; of a text as many as it has. */
  readonly bytes: number;
  readonly kind: "number" | "pointer" | "text";
}

/** By what they belong to, so that the few of a header are met as often as the many of a table. */
export type Fields = ReadonlyMap<string, readonly Field[]>;

/** Of each table. */
const ENTRIES_MAX = 64;

const HEADER: readonly (readonly [string, number, number, Field["kind"]])[] = [
  ["magic", 0, 4, "number"],
  ["version", 4, 4, "number"],
  ["backing_file_offset", 8, 8, "pointer"],
  ["backing_file_size", 16, 4, "number"],
  ["cluster_bits", 20, 4, "number"],
  ["size", 24, 8, "number"],
  ["crypt_method", 32, 4, "number"],
  ["l1_size", 36, 4, "number"],
  ["l1_table_offset", 40, 8, "pointer"],
  ["refcount_table_offset", 48, 8, "pointer"],
  ["refcount_table_clusters", 56, 4, "number"],
  ["nb_snapshots", 60, 4, "number"],
  ["snapshots_offset", 64, 8, "pointer"],
];
const HEADER_V3: typeof HEADER = [
  ["incompatible_features", 72, 8, "number"],
  ["compatible_features", 80, 8, "number"],
  ["autoclear_features", 88, 8, "number"],
  ["refcount_order", 96, 4, "number"],
  ["header_length", 100, 4, "number"],
  ["compression_type", 104, 1, "number"],
];

/** @param bytes a whole image, that nobody has changed yet */
export function fieldsOf(bytes: Uint8Array): Fields {
  const all = new Map<string, Field[]>();
  const add = (group: string, name: string, at: number, size: number, kind: Field["kind"]) => {
    if (at + size > bytes.length || size === 0) return;
    const list = all.get(group) ?? [];
    all.set(group, list);
    list.push({ name, at, bytes: size, kind });
  };
  const isV3 = readU32(bytes, 4) === 3;
  for (const [name, at, size, kind] of isV3 ? [...HEADER, ...HEADER_V3] : HEADER) {
    add("header", name, at, size, kind);
  }
  const clusterBytes = 2 ** readU32(bytes, 20);
  const extended = isV3 && (readU32(bytes, 76) & 16) !== 0;
  const entryBytes = extended ? 16 : 8;

  const nameAt = u64(bytes, 8);
  if (nameAt > 0) add("header", "backing file name", nameAt, readU32(bytes, 16), "text");
  const end = nameAt || clusterBytes;
  for (let at = isV3 ? readU32(bytes, 100) : 72; at + 8 <= end; ) {
    const [type, length] = [readU32(bytes, at), readU32(bytes, at + 4)];
    add("extensions", "type", at, 4, "number");
    add("extensions", "length", at + 4, 4, "number");
    if (type === 0) break;
    add("extensions", "data", at + 8, length, "text");
    if (type === 0x23852875) {
      add("extensions", "nb_bitmaps", at + 8, 4, "number");
      add("extensions", "bitmap_directory_size", at + 16, 8, "number");
      add("extensions", "bitmap_directory_offset", at + 24, 8, "pointer");
      addBitmaps(u64(bytes, at + 24), readU32(bytes, at + 8));
    }
    if (type === 0x0537be77) {
      add("extensions", "crypto header offset", at + 8, 8, "pointer");
      add("extensions", "crypto header length", at + 16, 8, "number");
      addLuks(u64(bytes, at + 8));
    }
    at += 8 + Math.ceil(length / 8) * 8;
  }

  addL1("L1", u64(bytes, 40), readU32(bytes, 36));
  const tableAt = u64(bytes, 48);
  const tableEntries = Math.min((readU32(bytes, 56) * clusterBytes) / 8, ENTRIES_MAX);
  for (let i = 0; i < tableEntries; i++) {
    add("refcount table", `entry ${i}`, tableAt + i * 8, 8, "pointer");
    const block = u64(bytes, tableAt + i * 8);
    if (block === 0) continue;
    for (let j = 0; j < ENTRIES_MAX; j++) {
      add("refcount block", `word ${j} of block ${i}`, block + j * 8, 8, "number");
    }
  }
  let snapshot = u64(bytes, 64);
  for (let i = 0; i < readU32(bytes, 60); i++) {
    const name = (what: string) => `${what} of snapshot ${i}`;
    add("snapshots", name("L1 offset"), snapshot, 8, "pointer");
    add("snapshots", name("L1 size"), snapshot + 8, 4, "number");
    add("snapshots", name("id length"), snapshot + 12, 2, "number");
    add("snapshots", name("name length"), snapshot + 14, 2, "number");
    add("snapshots", name("extra length"), snapshot + 36, 4, "number");
    add("snapshots", name("state size"), snapshot + 40, 8, "number");
    add("snapshots", name("disk size"), snapshot + 48, 8, "number");
    const extra = readU32(bytes, snapshot + 36);
    const names = readU16(bytes, snapshot + 12) + readU16(bytes, snapshot + 14);
    add("snapshots", name("names"), snapshot + 40 + extra, names, "text");
    addL1("snapshots' L1s", u64(bytes, snapshot), readU32(bytes, snapshot + 8));
    snapshot += Math.ceil((40 + extra + names) / 8) * 8;
  }
  return all;

  function addL1(group: string, offset: number, entries: number): void {
    for (let i = 0; i < Math.min(entries, ENTRIES_MAX); i++) {
      add(group, `L1 entry ${i}`, offset + i * 8, 8, "pointer");
      const l2 = offsetOf(bytes, offset + i * 8);
      if (l2 === 0 || l2 + clusterBytes > bytes.length) continue;
      for (let j = 0; j < Math.min(clusterBytes / entryBytes, ENTRIES_MAX); j++) {
        const at = l2 + j * entryBytes;
        const isUsed = readU32(bytes, at) !== 0 || readU32(bytes, at + 4) !== 0;
        if (!isUsed && j > 2) continue;
        add("L2", `L2 entry ${j} of table ${i}`, at, 8, "pointer");
        if (extended) add("L2", `bitmap of L2 entry ${j} of table ${i}`, at + 8, 8, "number");
      }
    }
  }

  function addBitmaps(directory: number, count: number): void {
    let at = directory;
    for (let i = 0; i < count; i++) {
      const name = (what: string) => `${what} of bitmap ${i}`;
      add("bitmaps", name("table offset"), at, 8, "pointer");
      add("bitmaps", name("table size"), at + 8, 4, "number");
      add("bitmaps", name("flags"), at + 12, 4, "number");
      add("bitmaps", name("type"), at + 16, 1, "number");
      add("bitmaps", name("granularity"), at + 17, 1, "number");
      add("bitmaps", name("name length"), at + 18, 2, "number");
      add("bitmaps", name("extra length"), at + 20, 4, "number");
      add("bitmaps", name("name"), at + 24, readU16(bytes, at + 18), "text");
      const table = u64(bytes, at);
      const entries = Math.min(readU32(bytes, at + 8), ENTRIES_MAX);
      for (let j = 0; j < entries; j++)
        add("bitmaps", name(`entry ${j}`), table + j * 8, 8, "pointer");
      at += Math.ceil((24 + readU16(bytes, at + 18) + readU32(bytes, at + 20)) / 8) * 8;
    }
  }

  /** LUKS1: names, sizes, and eight key slots of 48 bytes. */
  function addLuks(at: number): void {
    add("luks", "magic", at, 4, "number");
    add("luks", "version", at + 6, 2, "number");
    add("luks", "cipher", at + 8, 32, "text");
    add("luks", "mode", at + 40, 32, "text");
    add("luks", "hash", at + 72, 32, "text");
    add("luks", "payload offset", at + 104, 4, "number");
    add("luks", "key bytes", at + 108, 4, "number");
    add("luks", "digest", at + 112, 8, "number");
    add("luks", "digest salt", at + 132, 8, "number");
    add("luks", "digest iterations", at + 164, 4, "number");
    for (let i = 0; i < 8; i++) {
      const slot = at + 208 + i * 48;
      add("luks", `slot ${i}: active`, slot, 4, "number");
      add("luks", `slot ${i}: iterations`, slot + 4, 4, "number");
      add("luks", `slot ${i}: salt`, slot + 8, 8, "number");
      add("luks", `slot ${i}: key material offset`, slot + 40, 4, "number");
      add("luks", `slot ${i}: stripes`, slot + 44, 4, "number");
      if (i === 0) add("luks", "key material", at + readU32(bytes, slot + 40) * 512, 8, "number");
    }
  }
}

function u64(bytes: Uint8Array, at: number): number {
  return readU32(bytes, at) * 2 ** 32 + readU32(bytes, at + 4);
}

function offsetOf(bytes: Uint8Array, at: number): number {
  return (
    (readU32(bytes, at) & 0x00ffffff) * 2 ** 32 + ((readU32(bytes, at + 4) & 0xfffffe00) >>> 0)
  );
}
