/** What page and test both know of the disk. */

export const DISK = "shared.qcow2";
export const DISK_BYTES = 1024 * 1024;
export const SECTOR_BYTES = 512;
/** Few, so that guests get into each other's way. */
export const SECTORS = 48;
/** Sectors stand in different clusters. */
export const STRIDE = 20 * 1024;

/** A guest's word to the test, which answers `begin` of a write with its id, else with the moment. */
export type Word =
  | { readonly what: "begin" }
  | { readonly what: "begin-write"; readonly sector: number }
  | { readonly what: "wrote"; readonly id: number; readonly epoch: number }
  | { readonly what: "read"; readonly sector: number; readonly id: number; readonly began: number }
  | { readonly what: "flushed"; readonly began: number; readonly epoch: number }
  | { readonly what: "lost" };
