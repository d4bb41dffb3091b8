/** What page and test both know of the disk. */

export const DOMAIN = "shared";
/** Of the disk at first, the top last; it changes. */
export const IMAGES = ["base", "top"] as const;
/** Of jobs, in bytes/s: some are under way when their tab goes. */
export const SPEED = 512 * 1024;
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
  | { readonly what: "lost" }
  /** A call, and how it went. */
  | { readonly what: "asked"; readonly text: string };
