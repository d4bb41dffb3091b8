/**
 * What the page remembers of its disk: where it is kept, and what it was made from.
 *
 * The name of the backing file inside the overlay is a label; this entry is what maps it to URLs
 * again after a reload, with the identity that the images had. Written before the overlay is made,
 * so a disk never exists without it.
 */

import { del, get, set } from "idb-keyval";
import type { Template } from "./template.ts";

/** The page has one disk. */
export const DISK = "disk.qcow2";
const KEY = `disk:${DISK}`;

export type StoreDriver = "opfs" | "indexeddb";

export interface DiskEntry {
  readonly store: StoreDriver;
  readonly template: Template;
}

export function readEntry(): Promise<DiskEntry | undefined> {
  return get<DiskEntry>(KEY);
}

export function writeEntry(entry: DiskEntry): Promise<void> {
  return set(KEY, entry);
}

export function forgetEntry(): Promise<void> {
  return del(KEY);
}
