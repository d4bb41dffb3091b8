/**
 * Reads a dm-log-writes log and makes the disk again as it was at any entry. It shares nothing with
 * the driver that writes logs, so that both must have read the same specification.
 */

const MAGIC = 0x6a736677736872n;
const SUPERBLOCK_BYTES = 28;
const FLUSH = 1;
const DISCARD = 4;

export interface LogEntry {
  /** In bytes of the disk. */
  readonly offset: number;
  readonly bytes: number;
  readonly isFlush: boolean;
  readonly isDiscard: boolean;
  /** Null for flushes and discards. */
  readonly data: Uint8Array | null;
}

export interface WriteLog {
  readonly sectorBytes: number;
  readonly entries: readonly LogEntry[];
}

/** How many entries there are; 0 in a file that has not become a log yet. */
export function countOf(log: Uint8Array): number {
  const view = new DataView(log.buffer, log.byteOffset, log.byteLength);
  // The superblock comes after the first entries.
  if (log.length < SUPERBLOCK_BYTES || view.getBigUint64(0, true) === 0n) return 0;
  if (view.getBigUint64(0, true) !== MAGIC || view.getBigUint64(8, true) !== 1n) {
    throw new Error("not a write log");
  }
  return Number(view.getBigUint64(16, true));
}

export function readLog(log: Uint8Array): WriteLog {
  const count = countOf(log);
  if (count === 0) return { sectorBytes: 0, entries: [] };
  const view = new DataView(log.buffer, log.byteOffset, log.byteLength);
  const u64 = (at: number) => Number(view.getBigUint64(at, true));
  const sectorBytes = view.getUint32(24, true);
  const entries: LogEntry[] = [];
  let at = sectorBytes;
  for (let i = 0; i < count; i++) {
    const [sector, sectors, flags] = [u64(at), u64(at + 8), u64(at + 16)];
    if (flags & ~(FLUSH | DISCARD)) throw new Error(`log entry ${i} has flags ${flags}`);
    at += sectorBytes;
    const isDiscard = (flags & DISCARD) !== 0;
    const bytes = sectors * sectorBytes;
    const data = isDiscard || bytes === 0 ? null : log.slice(at, at + bytes);
    if (data && data.length < bytes) throw new Error(`log entry ${i} is cut off`);
    entries.push({
      offset: sector * sectorBytes,
      bytes,
      isFlush: (flags & FLUSH) !== 0,
      isDiscard,
      data,
    });
    if (!isDiscard) at += bytes;
  }
  return { sectorBytes, entries };
}

/**
 * The disk after the first `count` entries.
 *
 * @param before what it was when the log began
 * @returns its bytes, and a mark for each that was discarded: those may be anything
 */
export function replay(
  { entries }: WriteLog,
  count: number,
  before: Uint8Array,
): { disk: Uint8Array; anything: Uint8Array } {
  const disk = before.slice();
  const anything = new Uint8Array(before.length);
  for (const { offset, bytes, isDiscard, data } of entries.slice(0, count)) {
    anything.fill(isDiscard ? 1 : 0, offset, offset + bytes);
    // The disk may end within the last sector.
    if (data) disk.set(data.subarray(0, disk.length - offset), offset);
  }
  return { disk, anything };
}

/** Offset of the first byte that differs and was not discarded, or -1. */
export function differs(replayed: ReturnType<typeof replay>, disk: Uint8Array): number {
  return disk.findIndex((byte, at) => byte !== replayed.disk[at] && replayed.anything[at] === 0);
}
