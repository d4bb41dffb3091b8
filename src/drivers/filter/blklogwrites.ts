/**
 * blklogwrites: every change of a disk is also written to a log, in the order in which the disk can
 * be said to have taken them, so that the disk can be made again as it was at any point. The format is
 * that of Linux's dm-log-writes, little-endian, in sectors of the log's own size:
 *
 *   sector 0  superblock   0 magic u64   8 version u64   16 entries u64   24 sector bytes u32
 *   then, one after another:
 *             entry        0 sector u64  8 sectors u64   16 flags u64     24 data length u64 (0)
 *             its data     as many sectors; none for a discard
 *
 *   flags     1 flush   2 forced to the medium   4 discard   8 a mark, with text as data
 *
 * The superblock is brought up to date, and the log flushed, at each flush and now and then in
 * between: entries behind its count do not exist. Requests that fail are not in the log, and a zero
 * write is data like any other (QEMU: block/blklogwrites.c).
 */

import * as v from "valibot";
import { alignUp } from "../../base/bytes.ts";
import { size } from "../../base/check.ts";
import { assert, BlockError } from "../../base/errors.ts";
import { Mutex } from "../../base/mutex.ts";
import type { BlockChild } from "../../block/child.ts";
import type { BlockState } from "../../block/driver.ts";
import type { TypedDriver } from "../../block/option-types.ts";
import { defaultChildPermissions, Perm } from "../../block/permissions.ts";

const MAGIC = 0x6a_7366_7773_6872n;
const VERSION = 1;
const SUPERBLOCK_BYTES = 28;
const ENTRY_BYTES = 32;
const SECTOR_BYTES = 512;
const SECTOR_BYTES_MAX = 2 ** 23;
const SUPERBLOCK_ENTRIES = 4096;

const Flag = { flush: 1, discard: 4, all: 15 } as const;

const openOptions = {
  /** A power of two; also the granule of all requests. 512 unless given. */
  "log-sector-size": v.exactOptional(size),
  /** Go on behind the entries that the log has; its sector size stays. */
  "log-append": v.exactOptional(v.boolean()),
  /** So many entries at most from one update of the superblock to the next; 4096 unless given. */
  "log-super-update-interval": v.exactOptional(size),
};
type OpenOptions = v.InferOutput<v.ObjectSchema<typeof openOptions, undefined>>;

/** What types are made of: see src/block/option-types.ts. */
interface Types {
  readonly name: "blklogwrites";
  readonly kind: "filter";
  readonly roles: { readonly file: true; readonly log: true };
  readonly openOptions: typeof openOptions;
}

export const blklogwrites: TypedDriver<Types, OpenOptions> = {
  name: "blklogwrites",
  kind: "filter",
  roles: { file: true, log: true },
  openOptions,

  /** The log is a file that only this node writes, and that grows. */
  childPermissions(role, above, readOnly) {
    if (role !== "log") return defaultChildPermissions("filter", role, above, readOnly);
    return {
      take: Perm.consistentRead | (readOnly ? Perm.none : Perm.write | Perm.resize),
      share: Perm.consistentRead,
    };
  },

  async open({ options, children }) {
    const { file, log } = children;
    assert(file && log, "blockdev-add gives blklogwrites a file and a log");
    return stateOf(file, await openLog(log, options));
  },
};

function stateOf(file: BlockChild, log: WriteLog): BlockState {
  return {
    limits: { requestAlignment: log.sectorBytes, clusterSize: 0, growable: true },
    getLength: () => file.length,
    pread: (buf, offset, request) => file.read(buf, offset, request),
    async pwrite(buf, offset, request) {
      await file.write(buf, offset, request);
      await log.append(offset, buf.length, 0, buf);
    },
    async pwriteZeroes(offset, bytes, request) {
      await file.writeZeroes(offset, bytes, request);
      await log.append(offset, bytes, 0, "zeroes");
    },
    async pdiscard(offset, bytes, request) {
      await file.discard(offset, bytes, request);
      await log.append(offset, bytes, Flag.discard, null);
    },
    flush: () => log.flush(() => file.flush()),
  };
}

/** @throws BlockError EINVAL for options that cannot be, or a log that is none */
async function openLog(log: BlockChild, options: OpenOptions): Promise<WriteLog> {
  const interval = options["log-super-update-interval"] ?? SUPERBLOCK_ENTRIES;
  if (interval === 0) {
    throw new BlockError("EINVAL", "'log-super-update-interval' must be 1 or more");
  }
  const wanted = options["log-sector-size"];
  if (!options["log-append"]) return new WriteLog(log, checkSector(wanted), interval, 0, 1);
  if (wanted !== undefined) {
    throw new BlockError("EINVAL", "'log-append' and 'log-sector-size' cannot be used together");
  }
  if (log.length === 0) return new WriteLog(log, SECTOR_BYTES, interval, 0, 1);
  const { sectorBytes, entries } = await readSuperblock(log);
  const end = await findEnd(log, sectorBytes, entries);
  return new WriteLog(log, sectorBytes, interval, entries, end);
}

function checkSector(bytes = SECTOR_BYTES): number {
  const isPower = Number.isInteger(Math.log2(bytes));
  if (isPower && bytes >= ENTRY_BYTES && bytes <= SECTOR_BYTES_MAX) return bytes;
  throw new BlockError(
    "EINVAL",
    `The log's sector size is a power of two from ${ENTRY_BYTES} to ${SECTOR_BYTES_MAX}, not ${bytes}`,
  );
}

async function readSuperblock(log: BlockChild): Promise<{ sectorBytes: number; entries: number }> {
  const { view, bytes } = fields(SUPERBLOCK_BYTES);
  await log.read(bytes, 0);
  if (view.getBigUint64(0, true) !== MAGIC) {
    throw new BlockError("EINVAL", "The log to append to is no log: its magic number is missing");
  }
  const version = view.getBigUint64(8, true);
  if (version !== BigInt(VERSION)) {
    throw new BlockError("EINVAL", `Logs of version ${version} are not supported, only ${VERSION}`);
  }
  const sectorBytes = checkSector(view.getUint32(24, true));
  return { sectorBytes, entries: numberAt(view, 16, "The log's count of entries") };
}

/** The sector behind the last entry. */
async function findEnd(log: BlockChild, sectorBytes: number, entries: number): Promise<number> {
  const { view, bytes } = fields(ENTRY_BYTES);
  let sector = 1;
  for (let i = 0; i < entries; i++) {
    if (sector * sectorBytes >= log.length) {
      throw new BlockError("EINVAL", `The log ends before its entry ${i} of ${entries}`);
    }
    await log.read(bytes, sector * sectorBytes);
    const flags = numberAt(view, 16, `The flags of log entry ${i}`);
    if (flags > Flag.all) {
      throw new BlockError("EINVAL", `Log entry ${i} has flags that nobody knows: ${flags}`);
    }
    const hasData = Math.floor(flags / Flag.discard) % 2 === 0;
    sector += 1 + (hasData ? numberAt(view, 8, `The length of log entry ${i}`) : 0);
  }
  return sector;
}

function fields(length: number): { view: DataView; bytes: Uint8Array } {
  const bytes = new Uint8Array(length);
  return { bytes, view: new DataView(bytes.buffer) };
}

function numberAt(view: DataView, at: number, what: string): number {
  const value = view.getBigUint64(at, true);
  if (value <= BigInt(Number.MAX_SAFE_INTEGER)) return Number(value);
  throw new BlockError("EINVAL", `${what} is ${value}; at most 2^53 - 1 is supported`);
}

class WriteLog {
  readonly sectorBytes: number;
  readonly #log: BlockChild;
  readonly #interval: number;
  /** Entries are written one after another: what is counted is there. */
  readonly #mutex = new Mutex();
  #entries: number;
  #nextSector: number;
  /** Something was logged since the last flush. */
  #hasNews = false;

  constructor(
    log: BlockChild,
    sectorBytes: number,
    interval: number,
    entries: number,
    nextSector: number,
  ) {
    this.#log = log;
    this.sectorBytes = sectorBytes;
    this.#interval = interval;
    this.#entries = entries;
    this.#nextSector = nextSector;
  }

  /**
   * Logs a change that the disk has taken.
   *
   * @param offset a sector's first byte
   * @param bytes whole sectors, or up to the disk's end: zeroes fill the last one
   * @throws BlockError of the log; the entry is not in it then
   */
  append(
    offset: number,
    bytes: number,
    flags: number,
    data: Uint8Array | "zeroes" | null,
  ): Promise<void> {
    return this.#mutex.run(async () => {
      this.#hasNews = true;
      await this.#write(offset, bytes, flags, data);
      if (this.#entries % this.#interval === 0) await this.#writeSuperblock();
    });
  }

  /**
   * Flushes the disk, then logs that. What is logged before the entry was done before the flush
   * began. Without news there is no entry, as in QEMU.
   */
  flush(flushDisk: () => Promise<void>): Promise<void> {
    return this.#mutex.run(async () => {
      await flushDisk();
      if (!this.#hasNews) return;
      await this.#write(0, 0, Flag.flush, null);
      await this.#writeSuperblock();
      this.#hasNews = false;
    });
  }

  async #write(
    offset: number,
    bytes: number,
    flags: number,
    data: Uint8Array | "zeroes" | null,
  ): Promise<void> {
    const { sectorBytes } = this;
    const sectors = Math.ceil(bytes / sectorBytes);
    const dataSectors = data === null ? 0 : sectors;
    const entry = new Uint8Array(
      sectorBytes + (data instanceof Uint8Array ? sectors * sectorBytes : 0),
    );
    const view = new DataView(entry.buffer);
    view.setBigUint64(0, BigInt(offset / sectorBytes), true);
    view.setBigUint64(8, BigInt(sectors), true);
    view.setBigUint64(16, BigInt(flags), true);
    if (data instanceof Uint8Array) entry.set(data, sectorBytes);

    const at = this.#nextSector * sectorBytes;
    const end = at + (1 + dataSectors) * sectorBytes;
    const grows = this.#log.node.state.limits.growable;
    if (!grows && end > this.#log.length) await this.#log.truncate(end);
    await this.#log.write(entry, at);
    if (data === "zeroes") {
      await this.#log.writeZeroes(at + sectorBytes, alignUp(bytes, sectorBytes));
    }
    this.#nextSector += 1 + dataSectors;
    this.#entries++;
  }

  async #writeSuperblock(): Promise<void> {
    const { bytes, view } = fields(this.sectorBytes);
    view.setBigUint64(0, MAGIC, true);
    view.setBigUint64(8, BigInt(VERSION), true);
    view.setBigUint64(16, BigInt(this.#entries), true);
    view.setUint32(24, this.sectorBytes, true);
    // What it counts must be there before it: a log that was cut off would tell of garbage.
    await this.#log.flush();
    await this.#log.write(bytes, 0);
    await this.#log.flush();
  }
}
