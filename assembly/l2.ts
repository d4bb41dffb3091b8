/**
 * qcow2 L2 tables: how far does one answer reach?
 *
 * A standard entry is a big-endian u64 (QEMU: docs/interop/qcow2.txt, "L2 table entry"):
 *
 *    63       62           61 .. 56   55 .. 9        8 .. 1     0
 *   ┌────────┬────────────┬──────────┬──────────────┬──────────┬──────┐
 *   │ COPIED │ COMPRESSED │ reserved │ host offset  │ reserved │ ZERO │
 *   └────────┴────────────┴──────────┴──────────────┴──────────┴──────┘
 *    COMPRESSED = 1: bits 61 .. 0 are offset and length of packed data, none is reserved
 *
 * An extended entry has the same u64 with ZERO reserved, then two bits for each of 32 subclusters;
 * subcluster n has bit n of both halves:
 *
 *    63 .. 32                32 bits: reads as zeroes
 *    31 .. 0                 32 bits: allocated
 *
 * The kinds, here and in src/kernel/kernel.ts:
 *
 *   0 unallocated         no host cluster          read from the backing file
 *   1 zero-plain          no host cluster, ZERO    zeroes, no cluster behind them
 *   2 zero-alloc          host cluster, ZERO       zeroes, a cluster is kept in reserve
 *   3 normal              host cluster             data at the offset
 *   4 compressed          COMPRESSED               data, packed
 *   5 unallocated-alloc   extended only: this subcluster is unallocated in a cluster that is there
 *   6 invalid             nothing that may be trusted; see kindOf() and l2RunExtended()
 *
 * With the exact bits of its first entry, a run's n-th entry is known: the same flags, an offset n
 * clusters on. So a run is counted by comparing with expected words, eight at a time.
 */

const UNALLOCATED: u32 = 0;
const ZERO_PLAIN: u32 = 1;
const ZERO_ALLOC: u32 = 2;
const NORMAL: u32 = 3;
const COMPRESSED: u32 = 4;
const UNALLOCATED_ALLOC: u32 = 5;
const INVALID: u32 = 6;

const COPIED_BIT: u64 = 1 << 63;
const COMPRESSED_BIT: u64 = 1 << 62;
const ZERO_BIT: u64 = 1;
const OFFSET_MASK: u64 = 0x00ff_ffff_ffff_fe00;
const OFFSET_END: u64 = 1 << 56;
const RESERVED_MASK: u64 = 0x3f00_0000_0000_01fe;
const SUBCLUSTERS: u32 = 32;

/**
 * Counts the entries from `index` on that one request can serve together: all of one kind and,
 * where there are clusters behind them, those side by side and alike in COPIED.
 *
 * @param table address of entry 0; entries are 8 bytes, no alignment needed
 * @param index first entry of the run
 * @param limit most entries to look at, > 0; index + limit is within the table
 * @param clusterBits log2 of the cluster size in bytes, 9 .. 21
 * @param externalData the image has an external data file: host offset 0 is a cluster when COPIED
 *   is set, and compressed clusters cannot be
 * @returns count << 4 | copied << 3 | kind, 1 <= count <= limit; compressed and invalid runs are of
 *   one entry; copied is 0 where there is no host cluster
 */
export function l2Run(
  table: usize,
  index: u32,
  limit: u32,
  clusterBits: u32,
  externalData: bool,
): u32 {
  const start = table + (index << 3);
  const first = wordAt(start);
  const kind = kindOf(first, clusterBits, externalData);
  if (kind == COMPRESSED || kind == INVALID) return pack(1, false, kind);

  const offset = first & OFFSET_MASK;
  if (kind == NORMAL || kind == ZERO_ALLOC) {
    const most = u32(min<u64>(limit, (OFFSET_END - offset) >> clusterBits));
    const count = countExpected(start, most, first, u64(1) << clusterBits, ~0);
    return pack(count, (first & COPIED_BIT) != 0, kind);
  }
  // COPIED says nothing about a cluster that is not there, except where it makes one be there.
  const mask = externalData && kind == UNALLOCATED ? ~0 : ~COPIED_BIT;
  return pack(countExpected(start, limit, first & mask, 0, mask), false, kind);
}

/**
 * l2Run() over extended entries, in subclusters. In addition invalid: an entry with ZERO set; one
 * that has a subcluster both allocated and zero, or allocated without a host cluster; a compressed
 * one with any subcluster bit. What is wrong in one subcluster condemns its whole entry.
 *
 * @param table address of entry 0; entries are 16 bytes, no alignment needed
 * @param index entry of the first subcluster
 * @param subcluster first subcluster of the run, in that entry, 0 .. 31
 * @param limit most subclusters to look at, > 0, all within the table
 * @returns as l2Run(), count in subclusters; compressed and invalid runs end with their entry
 */
export function l2RunExtended(
  table: usize,
  index: u32,
  subcluster: u32,
  limit: u32,
  clusterBits: u32,
  externalData: bool,
): u32 {
  let at = table + (index << 4);
  let bitmap = wordAt(at + 8);
  const first = wordAt(at);
  const restOfEntry = min(SUBCLUSTERS - subcluster, limit);
  const entryKind = first & COMPRESSED_BIT ? COMPRESSED : kindOf(first, clusterBits, externalData);
  if (entryKind == COMPRESSED) {
    return pack(restOfEntry, false, bitmap || externalData ? INVALID : COMPRESSED);
  }
  const hasCluster = entryKind == NORMAL;
  if (!hasCluster && entryKind != UNALLOCATED) return pack(restOfEntry, false, INVALID);
  if (!mayBe(bitmap, hasCluster)) return pack(restOfEntry, false, INVALID);

  const kind = subclusterKind(bitmap, subcluster, hasCluster);
  const copied = hasCluster && (first & COPIED_BIT) != 0;
  const step: u64 = hasCluster ? u64(1) << clusterBits : 0;
  const mask = hasCluster || externalData ? ~0 : ~COPIED_BIT;
  let expected = first & mask;
  let count: u32 = 0;
  for (;;) {
    const same = alike(bitmap, kind) >> subcluster;
    const here = min(ctz(~same), SUBCLUSTERS - subcluster);
    count += here;
    if (count >= limit) return pack(limit, copied, kind);
    if (subcluster + here < SUBCLUSTERS) break;

    at += 16;
    subcluster = 0;
    expected += step;
    // Past the last offset that fits, what is expected would have a reserved bit.
    if (expected & RESERVED_MASK) break;
    if ((wordAt(at) & mask) != expected) break;
    bitmap = wordAt(at + 8);
    if (!mayBe(bitmap, hasCluster)) break;
  }
  return pack(count, copied, kind);
}

/**
 * The kind of a standard entry. Invalid are: reserved bits set, a host offset that is not a multiple
 * of the cluster size, a compressed cluster beside an external data file. COPIED on host offset 0
 * without an external data file is passed over, as QEMU does (block/qcow2.h,
 * qcow2_get_cluster_type).
 */
function kindOf(entry: u64, clusterBits: u32, externalData: bool): u32 {
  if (entry & COMPRESSED_BIT) return externalData ? INVALID : COMPRESSED;
  const offset = entry & OFFSET_MASK;
  if (entry & RESERVED_MASK || offset & ((u64(1) << clusterBits) - 1)) return INVALID;
  if (entry & ZERO_BIT) return offset ? ZERO_ALLOC : ZERO_PLAIN;
  if (offset || (externalData && entry & COPIED_BIT)) return NORMAL;
  return UNALLOCATED;
}

/** How many words from `start` on are expected, expected + step, … under the mask, big-endian. */
function countExpected(start: usize, limit: u32, expected: u64, step: u64, mask: u64): u32 {
  let count: u32 = 0;
  const masks = i64x2.splat(mask);
  const hop = i64x2.splat(step << 1);
  const stride = i64x2.splat(step << 3);
  let want0 = i64x2.replace_lane(i64x2.splat(expected), 1, expected + step);
  let want1 = i64x2.add(want0, hop);
  let want2 = i64x2.add(want1, hop);
  let want3 = i64x2.add(want2, hop);
  for (; count + 8 <= limit; count += 8) {
    const at = start + (count << 3);
    const low = v128.or(differs(at, masks, want0), differs(at + 16, masks, want1));
    const high = v128.or(differs(at + 32, masks, want2), differs(at + 48, masks, want3));
    if (v128.any_true(v128.or(low, high))) break;
    want0 = i64x2.add(want0, stride);
    want1 = i64x2.add(want1, stride);
    want2 = i64x2.add(want2, stride);
    want3 = i64x2.add(want3, stride);
  }
  expected += u64(count) * step;
  for (; count < limit; ++count) {
    if ((wordAt(start + (count << 3)) & mask) != expected) break;
    expected += step;
  }
  return count;
}

/** The bits in which two big-endian words differ from what is wanted. */
function differs(at: usize, masks: v128, wanted: v128): v128 {
  const raw = v128.load(at);
  const words = v128.shuffle<u8>(raw, raw, 7, 6, 5, 4, 3, 2, 1, 0, 15, 14, 13, 12, 11, 10, 9, 8);
  return v128.xor(v128.and(words, masks), wanted);
}

/** Whether a subcluster bitmap makes sense for an entry with or without a host cluster. */
function mayBe(bitmap: u64, hasCluster: bool): bool {
  const allocated = u32(bitmap);
  return hasCluster ? (allocated & u32(bitmap >> 32)) == 0 : allocated == 0;
}

function subclusterKind(bitmap: u64, subcluster: u32, hasCluster: bool): u32 {
  if ((bitmap >> (32 + subcluster)) & 1) return hasCluster ? ZERO_ALLOC : ZERO_PLAIN;
  if ((bitmap >> subcluster) & 1) return NORMAL;
  return hasCluster ? UNALLOCATED_ALLOC : UNALLOCATED;
}

/** One bit for each subcluster of the kind, in an entry that agrees in having a host cluster. */
function alike(bitmap: u64, kind: u32): u32 {
  const allocated = u32(bitmap);
  const zero = u32(bitmap >> 32);
  if (kind == ZERO_ALLOC || kind == ZERO_PLAIN) return zero;
  return kind == NORMAL ? allocated : ~(zero | allocated);
}

function wordAt(address: usize): u64 {
  return bswap(load<u64>(address));
}

function pack(count: u32, copied: bool, kind: u32): u32 {
  return (count << 4) | (u32(copied) << 3) | kind;
}
