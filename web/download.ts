/** From the browser's storage into the user's downloads. */

import type { SharedApi } from "../src/domain/client.ts";
import { DISK } from "./catalogue.ts";
import { shortName } from "./chain.ts";

const NODE = "download";
/** One read out of a store that has no files. */
const READ_BYTES = 1024 * 1024;
/** How long the browser may take to start on the object URL; it keeps the file from then on. */
const URL_LIFE_MS = 60_000;

/** Where an image is kept. */
export interface Kept {
  readonly driver: string;
  readonly filename?: string;
  readonly name?: string;
  readonly url?: string;
}

export function nameOf({ filename, name, url }: Kept): string {
  return filename ?? name ?? shortName(url ?? DISK);
}

/**
 * Starts the download of a closed image. Nobody may write to it until the browser has saved it, and there is
 * no telling when that is.
 */
export async function saveDisk(client: SharedApi, image: Kept): Promise<void> {
  const name = nameOf(image);
  const { driver } = image;
  saveFile(driver === "opfs" ? await client.getFile(name) : await copyOut(client, name), name);
}

/** Starts a download. */
export function saveFile(file: Blob, filename: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(file);
  link.download = filename;
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), URL_LIFE_MS);
}

/** Reads the image's own bytes through an export of its store; browsers move large Blobs to disk. */
async function copyOut(client: SharedApi, name: string): Promise<Blob> {
  await client.execute("blockdev-add", {
    driver: "indexeddb",
    "node-name": NODE,
    "read-only": true,
    name,
  });
  try {
    const id = `${NODE}0`;
    await client.execute("block-export-add", { type: "message-port", id, "node-name": NODE });
    try {
      const device = await client.openDevice(id);
      const parts: BlobPart[] = [];
      for (let offset = 0; offset < device.size; offset += READ_BYTES) {
        parts.push(await device.read(offset, Math.min(READ_BYTES, device.size - offset)));
      }
      return new Blob(parts, { type: "application/octet-stream" });
    } finally {
      await client.execute("block-export-del", { id, mode: "hard" });
    }
  } finally {
    await client.execute("blockdev-del", { "node-name": NODE });
  }
}
