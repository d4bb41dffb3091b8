/** Images where they are kept: what the page does with them itself, by QMP. */

import type { SharedApi } from "../src/domain/client.ts";
import { QmpError } from "../src/engine/client.ts";
import { DISK, forgetEntry, type StoreDriver } from "./catalogue.ts";
import { CREATE_ID } from "./fold.ts";
import type { CreateOptions, NodeInfo } from "./wire.ts";

/** What the page could not do, in words for the user. */
export class DiskError extends Error {
  override readonly name = "DiskError";
}

/** Runs a blockdev-create job to its end, and forgets it. */
export async function createImage(client: SharedApi, options: CreateOptions): Promise<void> {
  const id = `${CREATE_ID}${crypto.randomUUID().slice(0, 8)}`;
  await client.execute("blockdev-create", { "job-id": id, options });
  const { error } = await client.waitForJob(id, "concluded");
  await client.execute("job-dismiss", { id });
  if (error !== undefined) throw new DiskError(error);
}

export function storeOf(store: StoreDriver, filename = DISK) {
  return store === "opfs" ? { driver: store, filename } : { driver: store, name: filename };
}

export async function queryNodes(client: SharedApi): Promise<readonly NodeInfo[]> {
  return client.execute("query-named-block-nodes", { flat: true });
}

/** Deletes images of this browser, and what is remembered of the disk. */
export async function forget(
  client: SharedApi,
  sources: readonly { readonly driver: string }[],
): Promise<void> {
  for (const source of sources) {
    const { filename, name } = source as { readonly filename?: string; readonly name?: string };
    if (source.driver === "opfs" && filename !== undefined) await removeFile(client, filename);
    // What is made anew is empty, and takes no room.
    else if (source.driver === "indexeddb" && name !== undefined) {
      await createImage(client, { driver: "indexeddb", name, size: 0 });
    }
  }
  await forgetEntry();
}

/** Gone is gone: that there was no such file is no error. */
async function removeFile(client: SharedApi, filename: string): Promise<void> {
  try {
    await client.removeFile(filename);
  } catch (error) {
    if (!(error instanceof QmpError && error.errno === "ENOENT")) throw error;
  }
}
