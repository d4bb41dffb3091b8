/**
 * A guest, and what it may rely on. For each sector it keeps all that was ever written there, and when:
 * so for any cut it is known what the last finished flush has promised, and what may be there besides.
 *
 *     write 3        write 7   FLUSH   write 9        ✂
 *     gone for good  certain           perhaps        → the sector must read as write 7 or as write 9
 */

import { BlockError } from "../../src/base/errors.ts";
import type { Random } from "../../src/base/random.ts";
import type { BlockBackend } from "../../src/block/backend.ts";
import { skipFilters } from "../../src/block/status.ts";
import { contentOf, idsOf, NOTHING, RUBBISH, SECTOR_BYTES } from "./content.ts";
import type { LogSource } from "./log.ts";
import type { Cut } from "./trial.ts";

export interface Version {
  readonly id: number;
  /** Length of the log when it began. */
  readonly from: number;
  /** In the guest's own count of moments; Infinity while it is under way. */
  done: number;
}

interface Promised {
  /** Length of the log when the flush was over. */
  readonly from: number;
  /** What was done before this moment is certain. */
  readonly before: number;
  /** The node that the guest was on: where to read from. */
  readonly root: string;
}

/** What a guest does, in parts of the whole; those left out it does not do. */
export interface Habits {
  readonly write?: number;
  readonly zeroes?: number;
  readonly unmap?: number;
  readonly discard?: number;
  readonly packed?: number;
  readonly flush?: number;
  readonly read?: number;
  /** Most bytes of one request. */
  readonly mostBytes?: number;
  /** One after another from the disk's start. */
  readonly sequential?: boolean;
  /** Only in this part of the disk. */
  readonly area?: { readonly offset: number; readonly bytes: number };
}

const ACTS = ["write", "zeroes", "unmap", "discard", "packed", "flush", "read"] as const;

export const USUAL: Habits = { write: 10, zeroes: 3, unmap: 2, discard: 2, flush: 3, read: 1 };

export class Guest {
  readonly #source: LogSource;
  readonly #random: Random;
  readonly #sectors: Version[][] = [];
  readonly #sizes: Version[] = [];
  readonly #promises: Promised[] = [];
  #disk: BlockBackend;
  #moment = 0;
  #nextId = 1;
  #next = 0;

  constructor(source: LogSource, random: Random, disk: BlockBackend) {
    this.#source = source;
    this.#random = random;
    this.#disk = disk;
    this.#setSize(disk.length);
  }

  /** Moves to another node, or to the same disk opened again. */
  moveTo(disk: BlockBackend): void {
    this.#disk = disk;
  }

  get disk(): BlockBackend {
    return this.#disk;
  }

  /** What is there now is certain, however it came there; nothing else counts any more. */
  async adopt(): Promise<void> {
    const ids = await this.#idsAt(0, this.#disk.length);
    for (const [sector, id] of ids.entries()) this.#sectors[sector] = [{ id, from: 0, done: 0 }];
    for (const id of ids) this.#nextId = Math.max(this.#nextId, id + 1);
  }

  async acts(count: number, habits: Habits = USUAL): Promise<void> {
    for (let i = 0; i < count; i++) await this.act(habits);
  }

  async act(habits: Habits): Promise<void> {
    const all = ACTS.flatMap((act) => new Array<(typeof ACTS)[number]>(habits[act] ?? 0).fill(act));
    const kind = all[this.#random.below(all.length)]!;
    if (kind === "flush") return this.flush();
    const { offset, bytes } = this.#place(habits, kind === "packed");
    if (kind === "write") return this.write(offset, bytes);
    if (kind === "packed") return this.writePacked(offset, bytes);
    if (kind === "discard") return this.discard(offset, bytes);
    if (kind === "read") return this.read(offset, bytes);
    return this.zeroes(offset, bytes, kind === "unmap");
  }

  #place(habits: Habits, packed: boolean): { offset: number; bytes: number } {
    const random = this.#random;
    const area = habits.area ?? { offset: 0, bytes: this.#disk.length };
    if (packed) {
      const { clusterSize } = this.#disk.node.state.limits;
      const offset = random.below(Math.ceil(this.#disk.length / clusterSize)) * clusterSize;
      return { offset, bytes: Math.min(clusterSize, this.#disk.length - offset) };
    }
    const most = Math.min(habits.mostBytes ?? 64 * 1024, area.bytes) / SECTOR_BYTES;
    // Small ones are more common, and whole stretches happen.
    const count = 1 + random.below(random.below(3) === 0 ? most : Math.min(most, 9));
    const room = area.bytes / SECTOR_BYTES - count + 1;
    let sector = random.below(room);
    if (habits.sequential) {
      if (this.#next >= room) this.#next = 0;
      sector = this.#next;
      this.#next += count;
    }
    return { offset: area.offset + sector * SECTOR_BYTES, bytes: count * SECTOR_BYTES };
  }

  async write(offset: number, bytes: number): Promise<void> {
    const id = this.#nextId++;
    const done = this.#begin(offset, bytes, id);
    await this.#disk.write(contentOf(id, offset, bytes), offset);
    done();
  }

  /** One cluster, packed where the image can. */
  async writePacked(offset: number, bytes: number): Promise<void> {
    const id = this.#nextId++;
    const done = this.#begin(offset, bytes, id);
    const data = contentOf(id, offset, bytes);
    try {
      await this.#disk.writeCompressed(data, offset);
    } catch (error) {
      if (!(error instanceof BlockError) || error.errno !== "ENOTSUP") throw error;
      await this.#disk.write(data, offset);
    }
    done();
  }

  async zeroes(offset: number, bytes: number, mayUnmap = false): Promise<void> {
    const done = this.#begin(offset, bytes, NOTHING);
    await this.#disk.writeZeroes(offset, bytes, { mayUnmap });
    done();
  }

  /** Whole clusters read otherwise afterwards, what is left of others does not. */
  async discard(offset: number, bytes: number): Promise<void> {
    const from = this.#source.log.length;
    await this.#disk.discard(offset, bytes);
    const ids = await this.#idsAt(offset, bytes);
    for (const [i, id] of ids.entries()) {
      const sector = offset / SECTOR_BYTES + i;
      if (id !== this.#sectors[sector]!.at(-1)!.id) this.#note(sector, id, from);
    }
    this.#moment++;
  }

  /** What the guest reads is what it wrote last. */
  async read(offset: number, bytes: number): Promise<void> {
    const ids = await this.#idsAt(offset, bytes);
    for (const [i, id] of ids.entries()) {
      const sector = offset / SECTOR_BYTES + i;
      const { id: wanted } = this.#sectors[sector]!.at(-1)!;
      if (id === wanted) continue;
      throw new Error(`while it runs: sector ${sector} reads as write ${id}, not ${wanted}`);
    }
  }

  async flush(): Promise<void> {
    const before = ++this.#moment;
    const root = skipFilters(this.#disk.node).name;
    await this.#disk.flush();
    this.#promises.push({ from: this.#source.log.length, before, root });
  }

  /** All or nothing: as long as the disk is as long as it was, it is what it was. */
  async resize(length: number): Promise<void> {
    const from = this.#source.log.length;
    const size = { id: length, from, done: Number.POSITIVE_INFINITY };
    const old = this.#disk.length;
    this.#sizes.push(size);
    for (let at = this.#sectors.length; at < length / SECTOR_BYTES; at++) this.#sectors.push([]);
    for (let at = old; at < length; at += SECTOR_BYTES)
      this.#note(at / SECTOR_BYTES, NOTHING, from);
    await this.#disk.truncate(length);
    size.done = this.#moment++;
  }

  /** Something else changes the whole disk: to these ids, when `change` is over. */
  async replaced(ids: Int32Array, change: () => Promise<unknown>): Promise<void> {
    const from = this.#source.log.length;
    for (const [sector, id] of ids.entries()) {
      if (id !== this.#sectors[sector]!.at(-1)!.id) this.#note(sector, id, from);
    }
    await change();
    this.#moment++;
  }

  /** What each sector of the disk is now. */
  ids(): Int32Array {
    return Int32Array.from(this.#sectors, (versions) => versions.at(-1)!.id);
  }

  #setSize(length: number): void {
    this.#sizes.push({ id: length, from: 0, done: this.#moment++ });
    while (this.#sectors.length < length / SECTOR_BYTES) {
      this.#sectors.push([{ id: NOTHING, from: 0, done: 0 }]);
    }
  }

  #begin(offset: number, bytes: number, id: number): () => void {
    const from = this.#source.log.length;
    const versions: Version[] = [];
    for (let at = offset; at < offset + bytes; at += SECTOR_BYTES) {
      const version = { id, from, done: Number.POSITIVE_INFINITY };
      versions.push(version);
      this.#sectors[at / SECTOR_BYTES]!.push(version);
    }
    return () => {
      const done = this.#moment++;
      for (const version of versions) version.done = done;
    };
  }

  #note(sector: number, id: number, from = this.#source.log.length): void {
    this.#sectors[sector]!.push({ id, from, done: this.#moment });
  }

  async #idsAt(offset: number, bytes: number): Promise<Int32Array> {
    const disk = new Uint8Array(bytes);
    await this.#disk.read(disk, offset);
    const first = offset / SECTOR_BYTES;
    return idsOf(disk, first);
  }

  /** Everything that the guest may find after a crash at this cut. */
  after({ done, begun }: Cut): Expected {
    const promised = this.#promises.findLast(({ from }) => from <= done);
    return new Expected(this.#sectors, this.#sizes, promised ?? null, begun);
  }
}

/** What the disk may read as after a crash at one cut. */
export class Expected {
  /** Where to read from; null: no flush has been over, the guest was where it began. */
  readonly root: string | null;
  readonly #sectors: readonly (readonly Version[])[];
  readonly #sizes: readonly Version[];
  readonly #before: number;
  readonly #begun: number;

  constructor(
    sectors: readonly (readonly Version[])[],
    sizes: readonly Version[],
    promised: Promised | null,
    begun: number,
  ) {
    this.#sectors = sectors;
    this.#sizes = sizes;
    this.#before = promised?.before ?? 0;
    this.#begun = begun;
    this.root = promised?.root ?? null;
  }

  /** What is wrong with a disk, or "". */
  wrong(ids: Int32Array, bytes: number): string {
    const sizes = this.#possible(this.#sizes);
    if (!sizes.includes(bytes)) return `the disk has ${bytes} bytes, not ${sizes.join(" or ")}`;
    for (const [sector, id] of ids.entries()) {
      const versions = this.#sectors[sector];
      if (versions?.at(-1)?.id === id && versions.length === 1) continue;
      if (versions && this.#isPossible(versions, id)) continue;
      const possible = this.#possible(versions ?? []);
      const read = id === RUBBISH ? "rubbish" : `write ${id}`;
      return `sector ${sector} reads as ${read}, not as write ${possible.join(" or ")}`;
    }
    return "";
  }

  /** The last one that is certain, and all later ones that had begun. */
  #possible(versions: readonly Version[]): number[] {
    const certain = this.#certain(versions);
    const isPossible = ({ from }: Version, i: number) =>
      i === certain || (i > certain && from < this.#begun);
    return versions.filter(isPossible).map(({ id }) => id);
  }

  /** The same, asked for each sector of each state. */
  #isPossible(versions: readonly Version[], id: number): boolean {
    for (let i = this.#certain(versions); i < versions.length; i++) {
      if (versions[i]!.id === id) return true;
      if (versions[i + 1] && versions[i + 1]!.from >= this.#begun) return false;
    }
    return false;
  }

  #certain(versions: readonly Version[]): number {
    let certain = versions.length - 1;
    while (certain > 0 && versions[certain]!.done >= this.#before) certain--;
    return certain;
  }
}
