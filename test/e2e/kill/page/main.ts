/**
 * A page with the engine and a guest, for a browser that is killed: an overlay over an image, both in
 * OPFS, with a stream under way. The test calls it through window.victim.
 */

import { type Client, type CreateOptions, connect } from "../../../../src/engine/client.ts";
import { contentOf } from "../../../crash/content.ts";
import { DISK_BYTES, stepsOf } from "../plan.ts";

declare global {
  interface Window {
    victim: typeof victim;
    /** Of the test. Told before a step begins, and resolves before it does; and when it is over. */
    begun(step: number): Promise<void>;
    done(step: number): Promise<void>;
  }
}

const BASE = "base";
const TOP = "top";
/** Slow enough to be under way when the end comes. */
const SPEED = 1024 * 1024;

const victim = {
  /** Makes both images anew; base is full of write 1. */
  async make(): Promise<void> {
    const client = await connect();
    const { listFiles, removeFile } = client;
    for (const { filename } of await listFiles.call(client))
      await removeFile.call(client, filename);
    await makeImage(client, BASE, {});
    await makeImage(client, TOP, { "backing-file": BASE, "backing-fmt": "qcow2" });
    await client.execute("blockdev-add", nodeOf(BASE, null));
    await exportNode(client, BASE);
    const disk = await client.openDevice("d");
    await disk.write(0, contentOf(1, 0, DISK_BYTES));
    await client.close();
  },

  /** Never comes back. */
  async run(seed: number, firstId: number): Promise<void> {
    const client = await connect();
    await open(client);
    const disk = await client.openDevice("d");
    await client.execute("block-stream", { "job-id": "s", device: TOP, speed: SPEED });
    let number = 0;
    for (const { kind, offset, bytes, id } of stepsOf(seed, firstId)) {
      await window.begun(number);
      if (kind === "flush") await disk.flush();
      else if (kind === "zeroes") await disk.writeZeroes(offset, bytes, { mayUnmap: true });
      else await disk.write(offset, contentOf(id, offset, bytes));
      await window.done(number++);
    }
  },

  /** Sends the files to the server as they are, and the disk as the engine reads it. */
  async show(): Promise<void> {
    const client = await connect();
    for (const name of [BASE, TOP]) await send(name, await client.getFile(name));
    await open(client);
    const disk = await client.openDevice("d");
    await send("disk", await disk.read(0, DISK_BYTES));
    await client.close();
  },
};

window.victim = victim;

async function send(name: string, body: Blob | Uint8Array<ArrayBuffer>): Promise<void> {
  const { ok } = await fetch(`/put/${name}`, { method: "POST", body });
  if (!ok) throw new Error(`'${name}' could not be sent`);
}

/** The overlay as its header says: over base, or alone when a stream has been done. */
async function open(client: Client): Promise<void> {
  await client.execute("blockdev-add", { ...nodeOf(TOP, null), "read-only": true });
  const nodes = await client.execute("query-named-block-nodes", { flat: true });
  const info = nodes.find((node) => node["node-name"] === TOP)?.image;
  await client.execute("blockdev-del", { "node-name": TOP });
  const below = info?.["backing-filename"];
  if (below !== undefined) await client.execute("blockdev-add", nodeOf(below, null));
  await client.execute("blockdev-add", nodeOf(TOP, below ?? null));
  await exportNode(client, TOP);
}

function nodeOf(name: string, backing: string | null) {
  const file = { driver: "opfs", filename: name } as const;
  return { driver: "qcow2", "node-name": name, file, backing } as const;
}

async function makeImage(client: Client, name: string, more: object): Promise<void> {
  await create(client, { driver: "opfs", filename: name, size: 0 });
  await client.execute("blockdev-add", { driver: "opfs", "node-name": "new", filename: name });
  await create(client, { driver: "qcow2", file: "new", size: DISK_BYTES, ...more });
  await client.execute("blockdev-del", { "node-name": "new" });
}

async function create(client: Client, options: CreateOptions): Promise<void> {
  await client.execute("blockdev-create", { "job-id": "c", options });
  const { error } = await client.waitForJob("c", "concluded");
  if (error !== undefined) throw new Error(error);
  await client.execute("job-dismiss", { id: "c" });
}

function exportNode(client: Client, node: string) {
  const options = { type: "message-port", id: "d", "node-name": node, writable: true } as const;
  return client.execute("block-export-add", options);
}
