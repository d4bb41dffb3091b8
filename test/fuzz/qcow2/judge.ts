/**
 * Says of an image's bytes how clean it is, as `qemu-img check` would: references are counted from the
 * tables and set against the refcounts. Written for images of a few hundred KiB, from the format's
 * description and not from the code that is tested.
 */

import { alignUp, readU16, readU32 } from "../../../src/base/bytes.ts";

export interface Verdict {
  /** What makes the image corrupt; the first few. */
  readonly corruptions: readonly string[];
  /** What is wrong as well, but nothing that `qemu-img check` looks for. */
  readonly passedOver: readonly string[];
  readonly leaks: number;
}

/** Where the image is, however sparse. */
export interface Source {
  readonly length: number;
  /** Zeroes where there is nothing. */
  read(offset: number, bytes: number): Uint8Array;
}

/** More than this is not one of the small images. */
const BYTES_MAX = 64 * 2 ** 20;
/** Of one bitmap. */
const BITMAP_BYTES_MAX = 512 * 2 ** 20;
const TOLD_MAX = 5;

interface Layout {
  readonly version: number;
  readonly clusterBytes: number;
  readonly clusterBits: number;
  readonly order: number;
  readonly extended: boolean;
  readonly external: boolean;
}

export function judge(source: Source): Verdict {
  const judge = new Judge(source);
  try {
    judge.run();
  } catch (error) {
    if (!(error instanceof TooWrong)) throw error;
    judge.corruptions.push(error.message);
  }
  const { corruptions, passedOver, leaks } = judge;
  return { corruptions, passedOver, leaks };
}

const SHARED = ["L2 table", "data", "packed data"] as const;
type Kind =
  | (typeof SHARED)[number]
  | "header"
  | "L1 table"
  | "snapshot table"
  | "bitmaps"
  | "keys"
  | "refcount table"
  | "refcount block";

class TooWrong extends Error {}

class Judge {
  readonly corruptions: string[] = [];
  readonly passedOver: string[] = [];
  leaks = 0;
  readonly #source: Source;
  readonly #counts = new Map<number, number>();
  readonly #kinds = new Map<number, Kind>();
  /** L2 tables. */
  readonly #visited = new Set<number>();
  #layout!: Layout;

  constructor(source: Source) {
    this.#source = source;
  }

  #wrong(what: string): void {
    if (this.corruptions.length < TOLD_MAX) this.corruptions.push(what);
  }

  #odd(what: string): void {
    if (this.passedOver.length < TOLD_MAX) this.passedOver.push(what);
  }

  /** A file may end before its last cluster does: what it lacks is zeroes. */
  #isInside(offset: number, bytes: number): boolean {
    const { clusterBytes } = this.#layout;
    return offset + bytes - alignUp(this.#source.length, 512) < clusterBytes;
  }

  #read(offset: number, bytes: number, what: string): Uint8Array {
    if (bytes > BYTES_MAX) throw new TooWrong(`${what} has ${bytes} bytes`);
    if (!this.#isInside(offset, bytes)) throw new TooWrong(`${what} lies past the end`);
    return this.#source.read(offset, bytes);
  }

  run(): void {
    const head = this.#source.read(0, Math.min(112, this.#source.length));
    if (head.length < 72 || readU32(head, 0) !== 0x514649fb) throw new TooWrong("no header");
    const version = readU32(head, 4);
    // What is not qcow2 to anybody is a raw disk, and may be cut off anywhere.
    if (version !== 2 && version !== 3) throw new TooWrong("version");
    const isV3 = version === 3 && head.length >= 104;
    const incompatible = isV3 ? readU32(head, 76) : 0;
    if (incompatible & 3) this.#odd("marked dirty or corrupt");
    const clusterBits = readU32(head, 20);
    if (clusterBits < 9 || clusterBits > 21) throw new TooWrong("cluster_bits");
    const order = isV3 ? readU32(head, 96) : 4;
    if (order > 6) throw new TooWrong("refcount_order");
    this.#layout = {
      version,
      clusterBits,
      clusterBytes: 2 ** clusterBits,
      order,
      extended: (incompatible & 16) !== 0,
      external: (incompatible & 4) !== 0,
    };
    this.#refer(0, 1, "header");
    const size = u64(head, 24);
    const l1Entries = readU32(head, 36);
    this.#walkL1(u64(head, 40), l1Entries, "active", true, size);
    this.#walkSnapshots(u64(head, 64), readU32(head, 60), isV3);
    this.#walkKeys(head, isV3);
    this.#walkBitmaps(head, isV3 && (readU32(head, 92) & 1) !== 0);
    this.#checkRefcounts(u64(head, 48), readU32(head, 56));
    this.#checkFlags(u64(head, 40), l1Entries);
  }

  /**
   * Counts all clusters that a range touches. One cluster is one thing: only tables and data of several
   * states are shared, each with its like.
   */
  #refer(offset: number, bytes: number, kind: Kind): void {
    const { clusterBytes } = this.#layout;
    if (bytes === 0) return;
    const first = Math.floor(offset / clusterBytes);
    const last = Math.floor((offset + bytes - 1) / clusterBytes);
    if (last - first > BYTES_MAX / 512) throw new TooWrong(`${kind} is too long`);
    for (let i = first; i <= last; i++) {
      this.#counts.set(i, (this.#counts.get(i) ?? 0) + 1);
      const other = this.#kinds.get(i);
      const isShared = other === kind && (SHARED as readonly string[]).includes(kind);
      if (other && !isShared) {
        const text = `cluster ${i} is ${kind} and ${other}`;
        if (kind === "refcount block") this.#wrong(text);
        else this.#odd(text);
      }
      this.#kinds.set(i, kind);
    }
  }

  #aligned(offset: number, what: string): boolean {
    if (offset % this.#layout.clusterBytes === 0) return true;
    this.#wrong(`${what} is at ${offset}, which is not aligned`);
    return false;
  }

  #walkL1(offset: number, entries: number, what: string, isActive: boolean, size: number): void {
    if (entries === 0) return;
    if (!this.#aligned(offset, `${what} L1`)) return;
    const table = this.#read(offset, entries * 8, `${what} L1`);
    this.#refer(offset, entries * 8, "L1 table");
    if (isActive && entries < Math.ceil(size / this.#coverBytes)) throw new TooWrong("l1_size");
    for (let i = 0; i < entries; i++) {
      const hi = readU32(table, i * 8);
      const lo = readU32(table, i * 8 + 4);
      if (hi === 0 && lo === 0) continue;
      if (hi & 0x7f000000 || lo & 0x1ff) this.#wrong(`${what} L1 entry ${i} has reserved bits`);
      const l2 = hostOf(hi, lo);
      if (l2 === 0) this.#wrong(`${what} L1 entry ${i} has flags and leads nowhere`);
      if (l2 === 0 || !this.#aligned(l2, `${what} L2 table ${i}`)) continue;
      this.#refer(l2, this.#layout.clusterBytes, "L2 table");
      this.#walkL2(l2, `${what} L2 table ${i}`, isActive ? i * this.#coverBytes : -1);
      this.#visited.add(l2);
    }
  }

  get #coverBytes(): number {
    const { clusterBytes, extended } = this.#layout;
    return (clusterBytes / (extended ? 16 : 8)) * clusterBytes;
  }

  #walkL2(offset: number, what: string, guestStart: number): void {
    const { clusterBytes, clusterBits, extended, external, version } = this.#layout;
    const table = this.#read(offset, clusterBytes, what);
    const step = extended ? 16 : 8;
    for (let at = 0; at < clusterBytes; at += step) {
      const hi = readU32(table, at);
      const lo = readU32(table, at + 4);
      const bitmapHi = extended ? readU32(table, at + 8) : 0;
      const bitmapLo = extended ? readU32(table, at + 12) : 0;
      const told = `${what}, entry ${at / step}`;
      if (hi & 0x40000000) {
        if (external) this.#wrong(`${told} is packed, with a data file`);
        if (hi & 0x80000000) this.#wrong(`${told} is packed and COPIED`);
        if (bitmapHi || bitmapLo) this.#wrong(`${told} is packed and has a bitmap`);
        const hiBits = 62 - (clusterBits - 8) - 32;
        const place = (hi & (2 ** hiBits - 1)) * 2 ** 32 + lo;
        const sectors = ((hi & 0x3fffffff) >>> hiBits) + 1;
        const start = place - (place % 512);
        if (!this.#isInside(start, sectors * 512)) {
          this.#wrong(`${told} is packed past the end`);
        } else this.#refer(start, sectors * 512, "packed data");
        continue;
      }
      if (hi & 0x3f000000 || lo & 0x1fe) this.#wrong(`${told} has reserved bits`);
      if (lo & 1 && (extended || version === 2)) this.#odd(`${told} has the zero bit`);
      if ((bitmapHi & bitmapLo) !== 0) this.#wrong(`${told} has a subcluster that is both`);
      const host = hostOf(hi, lo);
      if (external) {
        const guest = guestStart + (at / step) * clusterBytes;
        // Here 0 is a place like any other: COPIED says that it is one.
        const isThere = host > 0 || (hi & 0x80000000 && (extended || (lo & 1) === 0));
        if (!isThere && bitmapLo) this.#wrong(`${told} has data nowhere`);
        if (!isThere || guestStart < 0 || host === guest) continue;
        // A table that two entries lead to is looked at for the first of them.
        if (this.#visited.has(offset)) this.#odd(`${told} is elsewhere`);
        else this.#wrong(`${told} is elsewhere`);
        continue;
      }
      if (host === 0) {
        if (bitmapLo) this.#wrong(`${told} has data nowhere`);
        continue;
      }
      if (!this.#aligned(host, told)) continue;
      if (!this.#isInside(host, clusterBytes)) this.#wrong(`${told} is past the end`);
      else this.#refer(host, clusterBytes, "data");
    }
  }

  #walkSnapshots(offset: number, count: number, isV3: boolean): void {
    if (count === 0) return;
    if (count > 65536) throw new TooWrong("nb_snapshots");
    if (!this.#aligned(offset, "snapshot table")) return;
    let at = offset;
    for (let i = 0; i < count; i++) {
      const fixed = this.#read(at, 40, `snapshot ${i}`);
      const extra = readU32(fixed, 36);
      if (extra > 1024 || (isV3 && extra < 16)) throw new TooWrong(`snapshot ${i}: extra data`);
      const bytes = 40 + extra + readU16(fixed, 12) + readU16(fixed, 14);
      // qemu-img fills up with zeroes here, and then takes what the snapshot had for leaks.
      if (at + bytes > this.#source.length) throw new TooWrong(`snapshot ${i} is cut off`);
      const entries = readU32(fixed, 8);
      // By its last digits, which no number here has; also of a table without entries.
      const isCrooked = readU32(fixed, 4) % this.#layout.clusterBytes !== 0;
      if (isCrooked) this.#wrong(`snapshot ${i}'s L1 is not aligned`);
      if (entries * 8 > 2 ** 25) this.#wrong(`snapshot ${i}: l1_size`);
      else if (!isCrooked) this.#walkL1(u64(fixed, 0), entries, `snapshot ${i}'s`, false, 0);
      at += Math.ceil(bytes / 8) * 8;
    }
    this.#refer(offset, at - offset, "snapshot table");
  }

  /** Where the keys of an encrypted image are kept: whole clusters. */
  #walkKeys(head: Uint8Array, isV3: boolean): void {
    if (readU32(head, 32) === 0) return;
    const extension = isV3 ? this.#findExtension(head, 0x0537be77) : null;
    if (extension?.length !== 16) throw new TooWrong("encrypted, without keys");
    const [offset, bytes] = [u64(extension, 0), u64(extension, 8)];
    if (!this.#aligned(offset, "keys")) return;
    if (this.#isInside(offset, bytes)) this.#refer(offset, bytes, "keys");
    else this.#wrong("keys past the end");
  }

  #walkBitmaps(head: Uint8Array, isOn: boolean): void {
    if (!isOn) return;
    const extension = this.#findExtension(head, 0x23852875);
    if (!extension) return;
    if (extension.length !== 24) throw new TooWrong("bitmaps extension");
    if (readU32(extension, 0) === 0) throw new TooWrong("no bitmaps");
    const bytes = u64(extension, 8);
    const offset = u64(extension, 16);
    if (!this.#aligned(offset, "bitmap directory")) return;
    const directory = this.#read(offset, bytes, "bitmap directory");
    this.#refer(offset, bytes, "bitmaps");
    let at = 0;
    for (let i = readU32(extension, 0); i > 0; i--) {
      if (at + 24 > bytes) throw new TooWrong("bitmap directory is too short");
      const table = u64(directory, at);
      const entries = readU32(directory, at + 8);
      this.#judgeBitmap(directory.subarray(at), i, u64(head, 24));
      if (this.#aligned(table, "bitmap table")) this.#walkBitmapTable(table, entries);
      const rest = readU16(directory, at + 18) + readU32(directory, at + 20);
      if (at + alignUp(24 + rest, 8) > bytes) throw new TooWrong("bitmap directory is too short");
      at += alignUp(24 + rest, 8);
    }
    if (at !== bytes) throw new TooWrong("more bitmaps than are counted");
  }

  /** Who does not know what a bitmap is about can only lose it. */
  #judgeBitmap(entry: Uint8Array, i: number, diskBytes: number): void {
    const wrong = (what: string) => this.#wrong(`bitmap ${i}: ${what}`);
    const { clusterBytes } = this.#layout;
    if (u64(entry, 0) === 0) wrong("a table nowhere");
    const flags = readU32(entry, 12);
    if (flags & ~7) wrong("flags");
    const bytes = readU32(entry, 8) * clusterBytes;
    if (bytes === 0 || bytes > BITMAP_BYTES_MAX) wrong("length of the table");
    // One that was in use is not read, and the disk may have grown.
    const covered = bytes * 8 * 2 ** entry[17]!;
    if ((flags & 1) === 0 && diskBytes > covered) wrong("a table that is too short");
    if (entry[16] !== 1) wrong("type");
    if (entry[17]! < 9 || entry[17]! > 31) wrong("granularity");
    const name = entry.subarray(24 + readU32(entry, 20)).subarray(0, readU16(entry, 18));
    if (name.length === 0 || name.length > 1023) wrong("length of the name");
    try {
      new TextDecoder("utf-8", { fatal: true }).decode(name);
    } catch {
      wrong("a name that is not UTF-8");
    }
  }

  #walkBitmapTable(offset: number, entries: number): void {
    const table = this.#read(offset, entries * 8, "bitmap table");
    this.#refer(offset, entries * 8, "bitmaps");
    for (let at = 0; at < table.length; at += 8) {
      const place = hostOf(readU32(table, at), readU32(table, at + 4));
      // "All ones" is for entries without a place.
      const mask = place === 0 ? 0x1fe : 0x1ff;
      const reserved = readU32(table, at) & 0xff000000 || readU32(table, at + 4) & mask;
      if (reserved) this.#wrong("a bitmap's entry has reserved bits");
      if (place === 0) continue;
      if (this.#aligned(place, "bits")) this.#refer(place, this.#layout.clusterBytes, "bitmaps");
    }
  }

  #findExtension(head: Uint8Array, wanted: number): Uint8Array | null {
    const cluster = this.#read(0, Math.min(this.#layout.clusterBytes, this.#source.length), "head");
    const end = u64(head, 8) || cluster.length;
    for (let at = readU32(head, 100); at + 8 <= Math.min(end, cluster.length); ) {
      const type = readU32(cluster, at);
      const bytes = readU32(cluster, at + 4);
      if (type === 0) return null;
      if (type === wanted) return cluster.subarray(at + 8, at + 8 + bytes);
      at += 8 + Math.ceil(bytes / 8) * 8;
    }
    return null;
  }

  #checkRefcounts(offset: number, clusters: number): void {
    const { clusterBytes, order } = this.#layout;
    if (clusters === 0 || clusters * clusterBytes > 2 ** 23) throw new TooWrong("refcount table");
    if (!this.#aligned(offset, "refcount table")) return;
    const table = this.#read(offset, clusters * clusterBytes, "refcount table");
    this.#refer(offset, table.length, "refcount table");
    const blocks = new Map<number, number>();
    for (let i = 0; i < table.length / 8; i++) {
      const block = hostOf(readU32(table, i * 8), readU32(table, i * 8 + 4));
      const reserved = readU32(table, i * 8) & 0xff000000 || readU32(table, i * 8 + 4) & 0x1ff;
      if (reserved) this.#wrong(`refcount table entry ${i}`);
      if (block === 0 || !this.#aligned(block, `refcount block ${i}`)) continue;
      if (!this.#isInside(block, clusterBytes)) {
        this.#wrong(`refcount block ${i} is past the end`);
        continue;
      }
      blocks.set(i, block);
      this.#refer(block, clusterBytes, "refcount block");
    }
    const perBlock = (clusterBytes * 8) / 2 ** order;
    const loaded = new Map<number, Uint8Array>();
    for (const [i, place] of blocks) loaded.set(i, this.#source.read(place, clusterBytes));
    this.#refcount = (index) => {
      const block = loaded.get(Math.floor(index / perBlock));
      return block ? refcountOf(block, order, index % perBlock) : 0;
    };
    for (const [index, references] of this.#counts) {
      const refcount = this.#refcount(index);
      if (refcount >= references) continue;
      this.#wrong(`cluster ${index}: refcount ${refcount}, references ${references}`);
    }
    for (const [i, block] of loaded) this.#countLeaks(block, i * perBlock);
  }

  /** @param first number of the cluster that the block's first refcount is about */
  #countLeaks(block: Uint8Array, first: number): void {
    const { order } = this.#layout;
    const perWord = 64 / 2 ** order;
    const words = new BigUint64Array(block.buffer, block.byteOffset, block.length / 8);
    for (const [word, value] of words.entries()) {
      if (value === 0n) continue;
      for (let i = word * perWord; i < (word + 1) * perWord; i++) {
        if (refcountOf(block, order, i) > (this.#counts.get(first + i) ?? 0)) this.leaks++;
      }
    }
  }
  #refcount: (index: number) => number = () => 0;

  /** COPIED says that the refcount is exactly one. */
  #checkFlags(offset: number, entries: number): void {
    if (entries === 0 || this.corruptions.length > 0) return;
    const { clusterBytes, extended, external } = this.#layout;
    const l1 = this.#read(offset, entries * 8, "L1");
    const check = (hi: number, lo: number, what: string) => {
      const isOne = this.#refcount(hostOf(hi, lo) / clusterBytes) === 1;
      if (isOne !== (hi & 0x80000000) < 0) this.#wrong(`${what}: COPIED is wrong`);
    };
    for (let i = 0; i < entries; i++) {
      const [hi, lo] = [readU32(l1, i * 8), readU32(l1, i * 8 + 4)];
      if (hostOf(hi, lo) === 0) continue;
      check(hi, lo, `L1 entry ${i}`);
      const table = this.#source.read(hostOf(hi, lo), clusterBytes);
      for (let at = 0; at < clusterBytes; at += extended ? 16 : 8) {
        const entry = [readU32(table, at), readU32(table, at + 4)] as const;
        if (entry[0] & 0x40000000 || hostOf(...entry) === 0) continue;
        const told = `L2 entry ${at} behind L1 entry ${i}`;
        // Clusters of a data file are nobody else's.
        if (!external) check(...entry, told);
        else if (!(entry[0] & 0x80000000)) this.#wrong(`${told}: COPIED is missing`);
      }
    }
  }
}

function hostOf(hi: number, lo: number): number {
  return (hi & 0x00ffffff) * 2 ** 32 + ((lo & 0xfffffe00) >>> 0);
}

/** Exact where it matters: what is larger than 2^53 lies in no file. */
function u64(bytes: Uint8Array, at: number): number {
  return readU32(bytes, at) * 2 ** 32 + readU32(bytes, at + 4);
}

export function refcountOf(block: Uint8Array, order: number, index: number): number {
  const bits = 2 ** order;
  if (bits < 8) {
    const at = Math.floor((index * bits) / 8);
    return (block[at]! >>> ((index * bits) % 8)) & (2 ** bits - 1);
  }
  let value = 0;
  for (let i = 0; i < bits / 8; i++) value = value * 256 + block[(index * bits) / 8 + i]!;
  return value;
}
