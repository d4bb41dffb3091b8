/**
 * Further images in this browser, beside the page's disk: targets of backups and mirrors. Each is a
 * file in OPFS; opened, it is a node of its own name.
 */

import type { SharedApi } from "../src/domain/client.ts";
import { saveFile } from "./download.ts";
import { createImage, queryNodes } from "./store.ts";

export interface StoredImage {
  readonly filename: string;
  /** Bytes of the file. */
  readonly size: number;
  /** The node's name if it is open. */
  readonly node: string | undefined;
  /** Another node stands on it: it cannot be closed. */
  readonly isUsed: boolean;
  /** The driver of domains has opened it. */
  readonly isDomains: boolean;
}

/** "copy.qcow2" is node "copy"; what no node can be called gets a letter in front. */
export function nodeNameOf(filename: string): string {
  const bare = filename.replace(/\.[^.]*$/, "").replace(/[^A-Za-z0-9._-]/g, "-");
  return (/^[A-Za-z]/.test(bare) ? bare : `i${bare}`).slice(0, 26);
}

/** All images in OPFS, by name. */
export async function listImages(client: SharedApi): Promise<StoredImage[]> {
  const files = await client.listFiles();
  const nodes = await queryNodes(client);
  const stores = new Map(
    nodes.filter((node) => node.drv === "opfs").map((node) => [node.file, node["node-name"]]),
  );
  return files
    .map(({ filename, size }) => {
      const store = stores.get(filename);
      const user = nodes.find(({ children }) =>
        children.some((child) => child["node-name"] === store),
      );
      const node = user?.["node-name"] ?? store;
      return {
        filename,
        size,
        node,
        isDomains: node?.startsWith("libvirt-") ?? false,
        isUsed: nodes.some(({ children }) =>
          children.some((child) => node !== store && child["node-name"] === node),
        ),
      };
    })
    .sort((a, b) => (a.filename < b.filename ? -1 : 1));
}

/**
 * Makes an empty qcow2 and opens it. A file of that name would be emptied: look first.
 *
 * @param bytes of its disk
 */
export async function makeImage(client: SharedApi, filename: string, bytes: number): Promise<void> {
  const store = `${nodeNameOf(filename)}-file`;
  await createImage(client, { driver: "opfs", filename, size: 0 });
  try {
    await client.execute("blockdev-add", { driver: "opfs", "node-name": store, filename });
    try {
      await createImage(client, { driver: "qcow2", file: store, size: bytes });
    } finally {
      await client.execute("blockdev-del", { "node-name": store });
    }
    await openImage(client, filename);
  } catch (error) {
    // Why it could not be made counts, not that cleaning up did not work either.
    await client.removeFile(filename).catch((later: unknown) => console.error(later));
    throw error;
  }
}

/** Opens it without a backing file, whatever its header names: that is a label. */
export async function openImage(client: SharedApi, filename: string): Promise<void> {
  await client.execute("blockdev-add", {
    driver: "qcow2",
    "node-name": nodeNameOf(filename),
    file: { driver: "opfs", filename },
    backing: null,
  });
}

export async function closeImage(client: SharedApi, node: string): Promise<void> {
  await client.execute("blockdev-del", { "node-name": node });
}

/** Hands the closed image to the browser's downloads. */
export async function downloadImage(client: SharedApi, filename: string): Promise<void> {
  saveFile(await client.getFile(filename), filename);
}
