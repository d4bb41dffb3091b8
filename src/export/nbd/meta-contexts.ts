/**
 * Metadata contexts: what a client may ask of a range besides its bytes. It selects some of an
 * export's by queries, and knows them by number from then on:
 *
 *     0      base:allocation          holes and zeroes
 *     1      qemu:allocation-depth    which layer of the chain
 *     2 + i  qemu:dirty-bitmap:NAME   the export's bitmap i
 */

import type { NbdExport } from "./export.ts";

export const ALLOCATION_ID = 0;
export const DEPTH_ID = 1;
export const FIRST_BITMAP_ID = 2;

export interface MetaContext {
  readonly id: number;
  readonly name: string;
}

/** All that an export has, in the order of their numbers. */
export function contextsOf(exported: NbdExport): MetaContext[] {
  return [
    { id: ALLOCATION_ID, name: "base:allocation" },
    ...(exported.hasAllocationDepth ? [{ id: DEPTH_ID, name: "qemu:allocation-depth" }] : []),
    ...exported.bitmaps.map(({ name }, index) => ({
      id: FIRST_BITMAP_ID + index,
      name: `qemu:dirty-bitmap:${name}`,
    })),
  ];
}

/** Queries that stand for all names that begin with them: only in a list. */
const WILDCARDS = ["base:", "qemu:", "qemu:dirty-bitmap:"];

/**
 * Whether a query means a context. Of two bitmaps with one name, those of different nodes, a query
 * means the first.
 *
 * @param mayBeWildcard the client only wants to see what there is
 */
export function matches(
  query: string,
  context: MetaContext,
  all: readonly MetaContext[],
  mayBeWildcard: boolean,
): boolean {
  if (WILDCARDS.includes(query)) return mayBeWildcard && context.name.startsWith(query);
  return all.find(({ name }) => name === query) === context;
}
