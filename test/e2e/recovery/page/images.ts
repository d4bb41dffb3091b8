/** Images in OPFS, and how disks stand on them. */

import type { CreateOptions } from "../../../../src/engine/client.ts";
import type { SharedApi } from "../../../../src/engine/tabs/connect.ts";
import { CLUSTER_BYTES, DISK_BYTES, IMAGES, KINDS, type Kind } from "../plan.ts";

const fileOf = (filename: string) => ({ driver: "opfs", filename }) as const;

/** Empties the file, if there is one. */
export async function makeImage(client: SharedApi, name: string, below?: string): Promise<void> {
  await create(client, name, { ...fileOf(name), size: 0 });
  await create(client, name, {
    driver: "qcow2",
    file: fileOf(name),
    size: DISK_BYTES,
    "cluster-size": CLUSTER_BYTES,
    ...(below !== undefined && { "backing-file": below, "backing-fmt": "qcow2" }),
  });
}

async function create(client: SharedApi, name: string, options: CreateOptions): Promise<void> {
  const id = `make-${name}`;
  const jobs = await client.execute("query-jobs");
  // One that a kill has ended.
  if (jobs.some((job) => job.id === id)) await client.execute("job-dismiss", { id });
  await client.execute("blockdev-create", { "job-id": id, options });
  const { error } = await client.waitForJob(id, "concluded");
  if (error !== undefined) throw new Error(error);
  await client.execute("job-dismiss", { id });
}

export async function openImage(client: SharedApi, name: string, backing: string | null = null) {
  const nodes = await client.execute("query-named-block-nodes", { flat: true });
  if (nodes.some((node) => node["node-name"] === name)) return;
  const options = { driver: "qcow2", "node-name": name, file: fileOf(name), backing } as const;
  await client.execute("blockdev-add", options);
}

export async function exportDisk(client: SharedApi, kind: Kind, node: string): Promise<void> {
  const options = { type: "message-port", id: kind, "node-name": node, writable: true } as const;
  await client.execute("block-export-add", options);
}

/** A new overlay on top of a disk. @param name of an image that the disk does not stand on */
export async function putOverlay(client: SharedApi, top: string, name: string): Promise<void> {
  const nodes = await client.execute("query-named-block-nodes", { flat: true });
  if (nodes.some((node) => node["node-name"] === name)) {
    await client.execute("blockdev-del", { "node-name": name });
  }
  await makeImage(client, name, top);
  await openImage(client, name);
  await client.execute("blockdev-snapshot", { node: top, overlay: name });
}

/** The images of each disk, the top first; filters of jobs are passed over. */
export async function chains(client: SharedApi): Promise<Record<Kind, string[]>> {
  const exports = await client.execute("query-block-exports");
  const nodes = await client.execute("query-named-block-nodes");
  const found = {} as Record<Kind, string[]>;
  for (const kind of KINDS) {
    const name = exports.find(({ id }) => id === kind)?.["node-name"];
    const node = nodes.find((one) => one["node-name"] === name);
    found[kind] = [];
    for (let image = node?.image; image; image = image["backing-image"]) {
      const here = IMAGES[kind].find((one) => image?.filename.endsWith(one));
      if (here !== undefined && !found[kind].includes(here)) found[kind].push(here);
    }
  }
  return found;
}
