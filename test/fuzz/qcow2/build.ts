/**
 * Small qcow2 images, built field by field from dice, over all that the format has. What comes out is
 * clean: refcounts and COPIED flags are counted from what was built.
 *
 *     header cluster │ snapshot table, L1s, L2s, data, packed data, bitmaps … │ refcount blocks │ table
 *
 * Nothing of the code that is tested is used but for the bytes of a number, so that what both get wrong
 * shows.
 */

import { deflateRawSync } from "node:zlib";
import { alignUp, readU32, writeU16, writeU32, writeU64 } from "../../../src/base/bytes.ts";
import type { Dice } from "../../model/dice.ts";
import { luksArea } from "./luks.ts";

export interface BuiltImage {
  readonly bytes: Uint8Array;
  /** The data file's, if the image has one. */
  readonly dataFile: Uint8Array | null;
  /** It takes the passphrase of luks.ts. */
  readonly encrypted: boolean;
  /** What it has, for the story of a failure. */
  readonly features: readonly string[];
}

/** Names that somebody might follow, print with a format, or cut in the wrong place. */
export const EVIL_NAMES: readonly string[] = [
  "/etc/passwd",
  "../../../../etc/shadow",
  'json:{"driver":"file","filename":"/etc/passwd"}',
  "nbd:127.0.0.1:10809",
  "http://127.0.0.1/base.raw",
  "file:/etc/passwd",
  "fat:rw:/",
  "%s%s%s%n%n%d%x",
  "a\0b",
  "\u202egnp.exe",
  "x".repeat(1023),
  "base.qcow2",
];

interface Tables {
  readonly l1: number[];
}

/** Host clusters as they are handed out: contents, and how often each is referred to. */
class Clusters {
  readonly bytes: number;
  readonly list: Uint8Array[] = [];
  readonly counts: number[] = [];

  constructor(bytes: number) {
    this.bytes = bytes;
  }

  /** @returns offset of the first; all count 1 unless said otherwise */
  take(count: number, references = 1): number {
    const offset = this.list.length * this.bytes;
    for (let i = 0; i < count; i++) {
      this.list.push(new Uint8Array(this.bytes));
      this.counts.push(references);
    }
    return offset;
  }

  at(offset: number): Uint8Array {
    return this.list[offset / this.bytes]!;
  }

  refer(offset: number): void {
    this.counts[Math.floor(offset / this.bytes)]!++;
  }

  write(offset: number, data: Uint8Array): void {
    for (let done = 0; done < data.length; ) {
      const inCluster = (offset + done) % this.bytes;
      const piece = data.subarray(done, done + this.bytes - inCluster);
      this.list[Math.floor((offset + done) / this.bytes)]!.set(piece, inCluster);
      done += piece.length;
    }
  }
}

export function buildImage(dice: Dice): BuiltImage {
  const builder = new Builder(dice);
  return builder.build();
}

class Builder {
  readonly #dice: Dice;
  readonly #features: string[] = [];
  readonly #clusters: Clusters;
  readonly #version: 2 | 3;
  readonly #clusterBits: number;
  readonly #order: number;
  readonly #extendedL2: boolean;
  readonly #external: boolean;
  readonly #zstd: boolean;
  /** Such an image is a hundred times the work of another, for its keys alone. */
  readonly #encrypted: boolean;
  readonly #l2Entries: number;
  readonly #size: number;
  readonly #hasPacked: boolean;
  /** Room in a cluster for more packed data. */
  #packedTail = { offset: 0, left: 0 };

  constructor(dice: Dice) {
    this.#dice = dice;
    this.#version = dice.oneIn(4) ? 2 : 3;
    const isV3 = this.#version === 3;
    this.#encrypted = isV3 && dice.oneIn(24);
    this.#extendedL2 = isV3 && dice.oneIn(5);
    this.#clusterBits = this.#extendedL2
      ? dice.pick([14, 14, 14, 14, 16])
      : this.#encrypted
        ? dice.pick([12, 14, 16])
        : dice.pick([9, 9, 9, 9, 10, 10, 12, 12, 12, 14, 16]);
    this.#order = isV3 ? dice.pick([4, 4, 4, 0, 1, 2, 3, 5, 6]) : 4;
    this.#external = isV3 && !this.#encrypted && dice.oneIn(8);
    this.#zstd = isV3 && !this.#external && dice.oneIn(5);
    this.#hasPacked = !this.#external && !this.#encrypted && this.#order > 2 && dice.oneIn(2);
    const clusterBytes = 2 ** this.#clusterBits;
    this.#clusters = new Clusters(clusterBytes);
    this.#l2Entries = clusterBytes / (this.#extendedL2 ? 16 : 8);
    const cover = this.#l2Entries * clusterBytes;
    const sectors = (bytes: number) => Math.max(1, Math.ceil(bytes / 512)) * 512;
    // A handful of clusters, or a few tables of them, the last one cut anywhere.
    this.#size = dice.oneIn(3)
      ? sectors(clusterBytes * (1 + dice.below(40)) - dice.below(clusterBytes))
      : sectors(cover * (1 + dice.below(3)) - dice.below(Math.min(cover, 2 ** 31)));
    const { length } = this.#features;
    if (length === 0) this.#tell(`v${this.#version}, 2^${this.#clusterBits}, order ${this.#order}`);
    if (this.#extendedL2) this.#tell("extended L2");
    if (this.#external) this.#tell("data file");
    if (this.#zstd) this.#tell("zstd");
    if (this.#encrypted) this.#tell("LUKS");
    if (this.#hasPacked) this.#tell("packed");
  }

  #tell(feature: string): void {
    this.#features.push(feature);
  }

  build(): BuiltImage {
    const dice = this.#dice;
    this.#clusters.take(1);
    const active = this.#makeTables(null);
    const snapshots: Tables[] = [];
    if (!this.#external && this.#order > 2 && dice.oneIn(3)) {
      for (let i = 1 + dice.below(3); i > 0; i--) snapshots.push(this.#makeTables(active));
      this.#tell(`${snapshots.length} snapshots`);
    }
    const stateEntries = snapshots.length > 0 && dice.oneIn(3) ? 1 : 0;
    const l1 = this.#writeL1(active.l1, stateEntries);
    const table = this.#writeSnapshots(snapshots);
    const extensions = this.#makeExtensions();
    this.#setCopied(active);
    const refcounts = this.#writeRefcounts();
    const entries = active.l1.length + stateEntries;
    this.#writeHeader({ l1, entries, table, snapshots: snapshots.length, refcounts, extensions });
    return {
      bytes: this.#joined(),
      dataFile: this.#external ? this.#makeDataFile() : null,
      encrypted: this.#encrypted,
      features: this.#features,
    };
  }

  #makeDataFile(): Uint8Array {
    const bytes = new Uint8Array(Math.min(this.#size, 2 ** 18));
    this.#dice.random.fill(bytes.subarray(0, 4096));
    return bytes;
  }

  /** L2 tables for one state of the disk; those of a snapshot share some with the disk. */
  #makeTables(shared: Tables | null): Tables {
    const dice = this.#dice;
    const count = Math.ceil(this.#size / (this.#l2Entries * this.#clusters.bytes));
    const l1: number[] = [];
    for (let i = 0; i < count; i++) {
      const theirs = shared?.l1[i] ?? 0;
      if (theirs > 0 && dice.oneIn(2)) {
        this.#referAll(theirs);
        l1.push(theirs);
      } else l1.push(dice.oneIn(4) && i > 0 ? 0 : this.#makeL2(i));
    }
    return { l1 };
  }

  /** One more L1 entry leads to a table: to it, and to all behind it. */
  #referAll(l2: number): void {
    this.#clusters.refer(l2);
    const table = this.#clusters.at(l2);
    for (const host of this.#hostsOf(table)) this.#clusters.refer(host);
  }

  /** Host clusters behind a table, one for each reference. */
  *#hostsOf(table: Uint8Array): Generator<number> {
    const bytes = this.#clusters.bytes;
    for (let i = 0; i < this.#l2Entries; i++) {
      const at = i * (this.#extendedL2 ? 16 : 8);
      const [hi, lo] = [readU32(table, at), readU32(table, at + 4)];
      if (hi & 0x40000000) {
        // These images are small: the offset is all in the lower word.
        const more = (hi & 0x3fffffff) >>> (62 - (this.#clusterBits - 8) - 32);
        const end = lo - (lo % 512) + (more + 1) * 512;
        for (let host = lo - (lo % bytes); host < end; host += bytes) yield host;
      } else if (!this.#external && (lo & 0xfffffe00) >>> 0 > 0) yield (lo & 0xfffffe00) >>> 0;
    }
  }

  #makeL2(index: number): number {
    const dice = this.#dice;
    const offset = this.#clusters.take(1);
    const table = this.#clusters.at(offset);
    const cover = this.#l2Entries * this.#clusters.bytes;
    const last = Math.ceil(Math.min(cover, this.#size - index * cover) / this.#clusters.bytes);
    // The large ones cost most, and have nothing that the small ones lack.
    const used = Math.min(last, this.#clusterBits < 14 ? 24 : 8);
    for (let i = 0; i < used; i++) {
      // A few at the table's end, too.
      const entry = dice.oneIn(10) ? last - 1 - dice.below(Math.min(last, 4)) : i;
      const at = entry * (this.#extendedL2 ? 16 : 8);
      if (readU32(table, at) !== 0 || readU32(table, at + 4) !== 0) continue;
      this.#fillEntry(table, at, index * cover + entry * this.#clusters.bytes);
    }
    return offset;
  }

  #fillEntry(table: Uint8Array, at: number, guest: number): void {
    const dice = this.#dice;
    const kind = dice.below(5);
    if (kind === 0) return;
    if (kind === 1 && this.#version === 3 && !this.#extendedL2) {
      // Zero, with a cluster kept for it or without.
      if (dice.oneIn(2)) this.#point(table, at, guest);
      table[at + 7]! |= 1;
      return;
    }
    if (kind === 2 && this.#hasPacked) return this.#pack(table, at);
    this.#point(table, at, guest);
    if (!this.#extendedL2) return;
    const allocated = dice.below(2 ** 32);
    writeU32(table, at + 12, allocated);
    writeU32(table, at + 8, (dice.below(2 ** 32) & ~allocated) >>> 0);
  }

  #point(table: Uint8Array, at: number, guest: number): void {
    if (this.#external) {
      writeU64(table, at, guest);
      table[at]! |= 0x80;
      return;
    }
    const host = this.#clusters.take(1);
    const cluster = this.#clusters.at(host);
    const piece = cluster.subarray(0, Math.min(cluster.length, 2048));
    if (this.#dice.oneIn(2)) this.#dice.random.fill(piece);
    else cluster.fill(1 + this.#dice.below(255));
    writeU64(table, at, host);
  }

  #pack(table: Uint8Array, at: number): void {
    const plain = new Uint8Array(this.#clusters.bytes);
    plain.fill(this.#dice.below(256));
    this.#dice.random.fill(plain.subarray(0, this.#dice.below(64)));
    const packed = this.#zstd ? zstdFrame(plain) : deflate(plain);
    if (packed.length > this.#clusters.bytes) return;
    const tail = this.#packedTail;
    if (tail.left < packed.length || this.#dice.oneIn(4)) {
      this.#packedTail = { offset: this.#clusters.take(1, 0), left: this.#clusters.bytes };
    }
    const { offset, left } = this.#packedTail;
    this.#clusters.write(offset, packed);
    this.#clusters.refer(offset);
    this.#packedTail = { offset: offset + packed.length, left: left - packed.length };
    const more = Math.floor((offset + packed.length - 1) / 512) - Math.floor(offset / 512);
    const shift = 62 - (this.#clusterBits - 8) - 32;
    writeU32(table, at, (0x40000000 | (more << shift)) >>> 0);
    writeU32(table, at + 4, offset);
  }

  #writeL1(entries: readonly number[], more: number): number {
    const bytes = (entries.length + more) * 8;
    const offset = this.#clusters.take(Math.ceil(bytes / this.#clusters.bytes));
    const table = new Uint8Array(bytes);
    for (const [i, entry] of entries.entries()) writeU64(table, i * 8, entry);
    this.#clusters.write(offset, table);
    return offset;
  }

  #writeSnapshots(snapshots: readonly Tables[]): number {
    if (snapshots.length === 0) return 0;
    const parts: Uint8Array[] = [];
    for (const [i, { l1 }] of snapshots.entries()) {
      const at = this.#writeL1(l1, 0);
      const id = new TextEncoder().encode(String(i + 1));
      const name = new TextEncoder().encode(this.#dice.oneIn(4) ? EVIL_NAMES[7]! : `snap${i}`);
      const extra = this.#dice.pick([16, 24, 24, 32]);
      const entry = new Uint8Array(alignUp(40 + extra + id.length + name.length, 8));
      writeU64(entry, 0, at);
      writeU32(entry, 8, l1.length);
      writeU16(entry, 12, id.length);
      writeU16(entry, 14, name.length);
      writeU32(entry, 36, extra);
      writeU64(entry, 48, this.#size);
      if (extra >= 24) entry.fill(0xff, 56, 64);
      entry.set(id, 40 + extra);
      entry.set(name, 40 + extra + id.length);
      parts.push(entry);
    }
    return this.#store(parts);
  }

  /** Pieces one behind the other in clusters of their own. */
  #store(parts: readonly Uint8Array[]): number {
    const bytes = parts.reduce((sum, part) => sum + part.length, 0);
    const offset = this.#clusters.take(Math.ceil(bytes / this.#clusters.bytes));
    let at = offset;
    for (const part of parts) {
      this.#clusters.write(at, part);
      at += part.length;
    }
    return offset;
  }

  #makeExtensions(): { readonly bytes: Uint8Array; readonly name: Uint8Array | null } {
    const dice = this.#dice;
    const room = this.#clusters.bytes - 112 - 8;
    const parts: Uint8Array[] = [];
    let used = 0;
    const add = (type: number, data: Uint8Array) => {
      const bytes = 8 + alignUp(data.length, 8);
      if (used + bytes > room) return false;
      const part = new Uint8Array(bytes);
      writeU32(part, 0, type);
      writeU32(part, 4, data.length);
      part.set(data, 8);
      parts.push(part);
      used += bytes;
      return true;
    };
    const text = (value: string) => new TextEncoder().encode(value);
    if (this.#external) {
      const name = text(dice.pick(EVIL_NAMES));
      if (!add(0x44415441, name)) add(0x44415441, text("d"));
    }
    if (this.#encrypted) add(0x0537be77, this.#makeKeys());
    const hasBitmaps = this.#version === 3 && dice.oneIn(4) && used + 32 <= room;
    if (hasBitmaps && add(0x23852875, this.#makeBitmaps())) this.#tell("bitmaps");
    if (dice.oneIn(3) && add(0x12345678, text("what nobody knows")))
      this.#tell("unknown extension");
    if (dice.oneIn(3)) add(0x6803f857, featureNames());
    let name: Uint8Array | null = null;
    if (!this.#isRaw && dice.oneIn(4)) {
      add(0xe2792aca, text(dice.pick(["raw", "qcow2", "foo", "%n"])));
      name = text(dice.pick(EVIL_NAMES)).subarray(0, Math.max(1, room - used));
      if (used + name.length > room) name = null;
      else this.#tell("backing name");
    }
    parts.push(new Uint8Array(8));
    const bytes = new Uint8Array(used + 8);
    let at = 0;
    for (const part of parts) {
      bytes.set(part, at);
      at += part.length;
    }
    return { bytes, name };
  }

  /** @returns the extension's data */
  #makeKeys(): Uint8Array {
    const area = luksArea();
    const data = new Uint8Array(16);
    writeU64(data, 0, this.#store([area]));
    writeU64(data, 8, area.length);
    return data;
  }

  /** The data file is a raw image as well. Decided by the size, so that it is the same each time. */
  get #isRaw(): boolean {
    return this.#external && this.#size % 1024 === 0;
  }

  /** @returns the extension's data */
  #makeBitmaps(): Uint8Array {
    const dice = this.#dice;
    const parts: Uint8Array[] = [];
    const count = 1 + dice.below(3);
    for (let i = 0; i < count; i++) {
      const bits = dice.pick([9, 12, 16, 16, 20]);
      const clusters = Math.max(
        1,
        Math.ceil(Math.ceil(this.#size / 2 ** bits) / (this.#clusters.bytes * 8)),
      );
      const table = new Uint8Array(clusters * 8);
      for (let j = 0; j < clusters; j++) {
        const kind = dice.below(3);
        if (kind === 2) {
          const at = this.#clusters.take(1);
          dice.random.fill(this.#clusters.at(at).subarray(0, 64));
          writeU64(table, j * 8, at);
        } else writeU64(table, j * 8, kind);
      }
      const name = new TextEncoder().encode(`bitmap${i}`);
      const entry = new Uint8Array(alignUp(24 + name.length, 8));
      writeU64(entry, 0, this.#store([table]));
      writeU32(entry, 8, clusters);
      writeU32(entry, 12, dice.pick([0, 2, 2, 1]));
      entry[16] = 1;
      entry[17] = bits;
      writeU16(entry, 18, name.length);
      entry.set(name, 24);
      parts.push(entry);
    }
    const data = new Uint8Array(24);
    writeU32(data, 0, count);
    writeU64(
      data,
      8,
      parts.reduce((sum, part) => sum + part.length, 0),
    );
    writeU64(data, 16, this.#store(parts));
    return data;
  }

  /** Bit 63 of what the disk alone refers to, now that all is counted. */
  #setCopied({ l1 }: Tables): void {
    if (this.#external) {
      for (const l2 of l1) if (l2 > 0) this.#flagL1(l2);
      return;
    }
    for (const l2 of l1) {
      if (l2 === 0 || this.#count(l2) !== 1) continue;
      this.#flagL1(l2);
      const table = this.#clusters.at(l2);
      for (let i = 0; i < this.#l2Entries; i++) {
        const at = i * (this.#extendedL2 ? 16 : 8);
        const host = (readU32(table, at + 4) & 0xfffffe00) >>> 0;
        if (table[at]! & 0x40 || host === 0 || this.#count(host) !== 1) continue;
        table[at]! |= 0x80;
      }
    }
  }

  #count(offset: number): number {
    return this.#clusters.counts[offset / this.#clusters.bytes]!;
  }

  /** In the active L1 table, which was written last of those with this entry and first of all. */
  #flagL1(l2: number): void {
    this.#copiedL2.add(l2);
  }
  readonly #copiedL2 = new Set<number>();

  #writeRefcounts(): { readonly offset: number; readonly clusters: number } {
    const { bytes } = this.#clusters;
    const perBlock = (bytes * 8) / 2 ** this.#order;
    const used = this.#clusters.list.length;
    let blocks = 1;
    let table = 1;
    for (;;) {
      const needed = Math.ceil((used + blocks + table) / perBlock);
      const neededTable = Math.ceil((needed * 8) / bytes);
      if (needed <= blocks && neededTable <= table) break;
      blocks = Math.max(blocks, needed);
      table = Math.max(table, neededTable);
    }
    const first = this.#clusters.take(blocks);
    const offset = this.#clusters.take(table);
    const entries = new Uint8Array(table * bytes);
    for (let i = 0; i < blocks; i++) writeU64(entries, i * 8, first + i * bytes);
    this.#clusters.write(offset, entries);
    for (const [i, count] of this.#clusters.counts.entries()) {
      const block = this.#clusters.at(first + Math.floor(i / perBlock) * bytes);
      setRefcount(block, this.#order, i % perBlock, count);
    }
    return { offset, clusters: table };
  }

  #writeHeader(parts: {
    l1: number;
    entries: number;
    table: number;
    snapshots: number;
    refcounts: { readonly offset: number; readonly clusters: number };
    extensions: { readonly bytes: Uint8Array; readonly name: Uint8Array | null };
  }): void {
    const { l1, entries, table, snapshots, refcounts, extensions } = parts;
    const head = this.#clusters.at(0);
    const isV3 = this.#version === 3;
    const headerBytes = isV3 ? 112 : 72;
    writeU32(head, 0, 0x514649fb);
    writeU32(head, 4, this.#version);
    writeU32(head, 20, this.#clusterBits);
    writeU64(head, 24, this.#size);
    writeU32(head, 32, this.#encrypted ? 2 : 0);
    writeU32(head, 36, entries);
    writeU64(head, 40, l1);
    writeU64(head, 48, refcounts.offset);
    writeU32(head, 56, refcounts.clusters);
    writeU32(head, 60, snapshots);
    writeU64(head, 64, table);
    head.set(extensions.bytes, headerBytes);
    if (extensions.name) {
      const at = headerBytes + extensions.bytes.length;
      writeU64(head, 8, at);
      writeU32(head, 16, extensions.name.length);
      head.set(extensions.name, at);
    }
    for (let i = 0; i < entries; i++) {
      const place = l1 + i * 8;
      const cluster = this.#clusters.list[Math.floor(place / this.#clusters.bytes)]!;
      const at = place % this.#clusters.bytes;
      if (this.#copiedL2.has(readU32(cluster, at + 4))) cluster[at]! |= 0x80;
    }
    if (!isV3) return;
    let incompatible = 0;
    if (this.#external) incompatible |= 4;
    if (this.#zstd) incompatible |= 8;
    if (this.#extendedL2) incompatible |= 16;
    writeU32(head, 76, incompatible);
    const hasBitmaps = this.#features.includes("bitmaps");
    writeU32(head, 92, (hasBitmaps ? 1 : 0) | (this.#isRaw ? 2 : 0));
    writeU32(head, 96, this.#order);
    writeU32(head, 100, headerBytes);
    head[104] = this.#zstd ? 1 : 0;
  }

  #joined(): Uint8Array {
    const { list, bytes } = this.#clusters;
    const all = new Uint8Array(list.length * bytes);
    for (const [i, cluster] of list.entries()) all.set(cluster, i * bytes);
    return all;
  }
}

export function setRefcount(block: Uint8Array, order: number, index: number, value: number): void {
  const bits = 2 ** order;
  if (bits >= 8) {
    const bytes = bits / 8;
    for (let i = 0; i < bytes; i++) {
      block[index * bytes + i] = Math.floor(value / 256 ** (bytes - 1 - i)) % 256;
    }
    return;
  }
  const at = Math.floor((index * bits) / 8);
  const shift = (index * bits) % 8;
  block[at] = (block[at]! & ~((2 ** bits - 1) << shift)) | (value << shift);
}

function deflate(plain: Uint8Array): Uint8Array {
  return deflateRawSync(plain, { windowBits: 12, level: 1 });
}

/** One run-length block after a raw one: all that a frame needs, made by hand (RFC 8878). */
function zstdFrame(plain: Uint8Array): Uint8Array {
  const head = Math.min(64, plain.length - 1);
  const block = (kind: number, last: number, size: number) => [
    (last | (kind << 1) | (size << 3)) & 255,
    (size >>> 5) & 255,
    (size >>> 13) & 255,
  ];
  const rest = plain.length - head;
  const size = [0, 8, 16, 24].map((shift) => (plain.length >>> shift) & 255);
  return Uint8Array.from([
    ...[0x28, 0xb5, 0x2f, 0xfd, 0xa0, ...size],
    ...block(0, 0, head),
    ...plain.subarray(0, head),
    ...block(1, 1, rest),
    plain[plain.length - 1]!,
  ]);
}

function featureNames(): Uint8Array {
  const data = new Uint8Array(2 * 48);
  data.set([0, 0, ...new TextEncoder().encode("dirty bit")], 0);
  data.set([0, 9, ...new TextEncoder().encode("%s%n")], 48);
  return data;
}
