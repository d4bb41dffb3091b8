/** What this browser, in this window, has. */

import type { SharedApi } from "../src/domain/client.ts";
import { QmpError } from "../src/engine/client.ts";
import type { StoreDriver } from "./catalogue.ts";
import type { Problem } from "./hints.ts";
import { DiskError } from "./store.ts";

/** Why the page can do nothing in this window, as far as it knows before it has tried. */
export function obstacle(): Problem | undefined {
  if (!isSecureContext) {
    return {
      text:
        "This page has come from another machine by plain http. Browsers give such a page neither OPFS nor " +
        "Web Locks, so there is nowhere to keep a disk.",
      hint: "Open it by https, or on the machine that serves it, as localhost.",
    };
  }
  if (typeof indexedDB === "undefined") {
    return {
      text: "This window has no IndexedDB, in which the page remembers what its disk is made of.",
      hint: "If it is a private window, open the page in a normal one.",
    };
  }
  return undefined;
}

/** Where new disks go. @throws DiskError if there is no such place */
export async function chooseStore(client: SharedApi): Promise<StoreDriver> {
  if (await hasOpfs(client)) return "opfs";
  if ("locks" in navigator) return "indexeddb";
  throw new DiskError(
    "this browser has no OPFS that images could be in, and without Web Locks IndexedDB is not safe from a " +
      "second tab",
  );
}

/**
 * Asked of the worker that has the disks, which sees more than the page. Private windows of some browsers
 * refuse OPFS, and in some browsers there are no files in it that can be written in place.
 */
export async function hasOpfs(client: SharedApi): Promise<boolean> {
  try {
    await client.listFiles();
    return true;
  } catch (error) {
    if (!(error instanceof QmpError)) throw error;
    if (error.errno === "ENOTSUP" || error.errno === "EACCES") return false;
    throw error;
  }
}
