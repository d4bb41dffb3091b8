/**
 * Moving clusters about in memory: one area as it is, or many clusters picked by a list.
 *
 *     list      2     0     5
 *     source  [ A ][ B ][ C ][ D ][ E ][ F ]
 *     gather ─▶ [ C ][ A ][ F ]                 scatter goes the other way
 *
 * A list is u32 little-endian, one cluster index each, no order needed.
 */

/** Copies bytes. The areas may overlap; the target ends up with what the source was. */
export function copy(target: usize, source: usize, bytes: u32): void {
  memory.copy(target, source, bytes);
}

/**
 * Copies the listed clusters of the source, in the list's order, to the front of the target.
 *
 * @param list address of `count` indexes, aligned to 4
 */
export function gather(
  target: usize,
  source: usize,
  list: usize,
  count: u32,
  clusterBytes: u32,
): void {
  for (let i: u32 = 0; i < count; ++i) {
    memory.copy(target + i * clusterBytes, source + indexAt(list, i) * clusterBytes, clusterBytes);
  }
}

/** Copies the source's first clusters to the listed ones of the target; the last of equals wins. */
export function scatter(
  target: usize,
  source: usize,
  list: usize,
  count: u32,
  clusterBytes: u32,
): void {
  for (let i: u32 = 0; i < count; ++i) {
    memory.copy(target + indexAt(list, i) * clusterBytes, source + i * clusterBytes, clusterBytes);
  }
}

function indexAt(list: usize, i: u32): u32 {
  return load<u32>(list + (i << 2));
}
