/**
 * Further images in this browser, beside the page's disk: targets of backups and mirrors. Each is a
 * file in OPFS; opened, it is a node of its own name.
 */

import type { Client } from "../src/engine/client.ts";
import { DISK } from "./catalogue.ts";
import { createImage, queryNodes } from "./disk.ts";
import { saveFile } from "./download.ts";

export interface StoredImage {
  readonly filename: string;
  /** Bytes of the file. */
  readonly size: number;
  /** The node's name if it is open. */
  readonly node: string | undefined;
  /** The name that its header gives to its backing file, if it is open and has one. */
  readonly label: string | undefined;
  /** Another node stands on it: it cannot be closed. */
  readonly isUsed: boolean;
}

/** "copy.qcow2" is node "copy"; what no node can be called gets a letter in front. */
export function nodeNameOf(filename: string): string {
  const bare = filename.replace(/\.[^.]*$/, "").replace(/[^A-Za-z0-9._-]/g, "-");
  return (/^[A-Za-z]/.test(bare) ? bare : `i${bare}`).slice(0, 26);
}

/** All images in OPFS but the page's disk, by name. */
export async function listImages(client: Client): Promise<StoredImage[]> {
  const files = await client.listFiles();
  const nodes = await queryNodes(client);
  const stores = new Map(
    nodes.filter((node) => node.drv === "opfs").map((node) => [node.file, node["node-name"]]),
  );
  return files
    .filter(({ filename }) => filename !== DISK)
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
        label: user?.image["backing-filename"],
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
 * @param backing what its header shall name as its backing file
 */
export async function makeImage(
  client: Client,
  filename: string,
  bytes: number,
  backing?: { readonly label: string; readonly format: string },
): Promise<void> {
  const store = `${nodeNameOf(filename)}-file`;
  await createImage(client, { driver: "opfs", filename, size: 0 });
  try {
    await client.execute("blockdev-add", { driver: "opfs", "node-name": store, filename });
    try {
      await createImage(client, {
        driver: "qcow2",
        file: store,
        size: bytes,
        ...(backing && { "backing-file": backing.label, "backing-fmt": backing.format }),
      });
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

/** An image becomes the overlay of the node, whose users are the overlay's from then on. */
export async function putOver(client: Client, overlay: string, node: string): Promise<void> {
  await client.execute("blockdev-snapshot", { overlay, node });
}

/** Opens it without a backing file, whatever its header names: that is a label. */
export async function openImage(client: Client, filename: string): Promise<void> {
  await client.execute("blockdev-add", {
    driver: "qcow2",
    "node-name": nodeNameOf(filename),
    file: { driver: "opfs", filename },
    backing: null,
  });
}

export async function closeImage(client: Client, node: string): Promise<void> {
  await client.execute("blockdev-del", { "node-name": node });
}

/** Hands the closed image to the browser's downloads. */
export async function downloadImage(client: Client, filename: string): Promise<void> {
  saveFile(await client.getFile(filename), filename);
}
