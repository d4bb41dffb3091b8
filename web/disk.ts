/**
 * The page's disk, as sequences of QMP commands: make, open, stream, close, delete.
 *
 *   opening    [http template] <── [opfs disk.qcow2]  ◀── export 'disk0'  ◀── page
 *               nodes template…      node 'disk'
 *
 * All images are nested in one blockdev-add, so that closing 'disk' closes everything, and block
 * nodes that a finished stream has dropped from the chain go away with it.
 */

import { type Client, type Device, QmpError } from "../src/engine/client.ts";
import {
  DISK,
  type DiskEntry,
  forgetEntry,
  readEntry,
  type StoreDriver,
  writeEntry,
} from "./catalogue.ts";
import { CREATE_ID, STREAM_ID } from "./fold.ts";
import { hasOpfs } from "./platform.ts";
import {
  checkComplete,
  type Template,
  templateNode,
  templateOptions,
  withIdentities,
} from "./template.ts";
import type { CreateOptions, NodeInfo } from "./wire.ts";

export const NODE = "disk";
const FILE_NODE = "disk-file";
const EXPORT = "disk0";

/** What the page could not do, in words for the user. */
export class DiskError extends Error {
  override readonly name = "DiskError";
}

/** Whether there is a disk. A file of no bytes is the trace of a page that was closed too early. */
export async function exists(client: Client, entry: DiskEntry | undefined): Promise<boolean> {
  if (entry !== undefined && entry.store !== "opfs") return true;
  if (!(await hasOpfs())) return false;
  const file = (await client.listFiles()).find(({ filename }) => filename === DISK);
  return file !== undefined && file.size > 0;
}

/**
 * Makes an empty overlay over the template. What was made so far is removed again if it fails.
 *
 * Another tab may have made a disk since this page looked: it is neither emptied nor given another
 * template.
 *
 * @throws QmpError of the step that failed, DiskError if there is a disk
 */
export function makeDisk(
  client: Client,
  template: Template,
  store: StoreDriver,
): Promise<DiskEntry> {
  return whileNobodyMakes(async () => {
    if (await exists(client, await readEntry())) {
      throw new DiskError(
        "There is a disk already: another tab has made it. Reload this page to open it.",
      );
    }
    return makeOverlay(client, template, store);
  });
}

/** Looking whether there is a disk and making one is one step, whichever tab does it. */
function whileNobodyMakes<T>(make: () => Promise<T>): Promise<T> {
  if (navigator.locks === undefined) return make();
  return navigator.locks.request(`blocktab:make:${DISK}`, { ifAvailable: true }, async (lock) => {
    if (lock === null) {
      throw new DiskError("Another tab is making the disk. Reload this page when it has.");
    }
    return make();
  }) as Promise<T>;
}

async function makeOverlay(
  client: Client,
  template: Template,
  store: StoreDriver,
): Promise<DiskEntry> {
  const found = await inspectTemplate(client, template);
  const entry: DiskEntry = { store, template: found.template };
  await writeEntry(entry);
  try {
    await createImage(client, { ...storeFile(store), size: 0 });
    await client.execute("blockdev-add", fileOptions(store, false));
    try {
      const [top] = found.template.chain;
      await createImage(client, {
        driver: "qcow2",
        file: FILE_NODE,
        size: found.size,
        "backing-file": labelOf(found.template),
        "backing-fmt": top!.format,
      });
    } finally {
      await client.execute("blockdev-del", { "node-name": FILE_NODE });
    }
  } catch (error) {
    // Why it could not be made counts, not that cleaning up did not work either.
    await removeDisk(client, store).catch((later: unknown) => console.error(later));
    throw error;
  }
  return entry;
}

/**
 * Opens the disk, with its template unless it no longer needs one, and exports it.
 *
 * @param entry what the page remembers; without it only a disk without backing file can be opened
 * @throws QmpError of the step that failed, DiskError if it is not known what the disk needs
 */
export async function openDisk(
  client: Client,
  entry: DiskEntry | undefined,
  readOnly: boolean,
): Promise<Device> {
  const store = entry?.store ?? "opfs";
  const label = await backingLabel(client, store);
  if (label !== undefined && entry === undefined) {
    throw new DiskError(
      `This browser holds a disk over '${label}', but no record of what that is. ` +
        "Download it to keep what is in it, or delete it and start over.",
    );
  }
  if (label !== undefined && entry !== undefined && label !== labelOf(entry.template)) {
    throw new DiskError(
      `This browser's disk stands over '${label}', but the record of it names ` +
        `'${labelOf(entry.template)}': over another template it would read as garbage. ` +
        "Download it to keep what is in it, or delete it and start over.",
    );
  }
  const chain = entry?.template.chain;
  await client.execute("blockdev-add", {
    driver: "qcow2",
    "node-name": NODE,
    "read-only": readOnly,
    file: fileOptions(store, readOnly),
    backing: label === undefined || chain === undefined ? null : templateOptions(chain),
  });
  try {
    await client.execute("block-export-add", {
      type: "message-port",
      id: EXPORT,
      "node-name": NODE,
      writable: !readOnly,
    });
    return await client.openDevice(EXPORT);
  } catch (error) {
    await closeDisk(client);
    throw error;
  }
}

/** Closes everything that openDisk() has opened; the image is whole on its own afterwards. */
export async function closeDisk(client: Client): Promise<void> {
  await dismissStream(client);
  const exports = await client.execute("query-block-exports");
  if (exports.some(({ id }) => id === EXPORT)) {
    await client.execute("block-export-del", { id: EXPORT, mode: "hard" });
  }
  const nodes = await queryNodes(client);
  // Overlays over it go first.
  for (const name of [...nodesOver(nodes, NODE), NODE]) {
    if (nodes.some((node) => node["node-name"] === name)) {
      await client.execute("blockdev-del", { "node-name": name });
    }
  }
}

/** Names of the nodes that stand on another, however far above it, the topmost first. */
function nodesOver(nodes: readonly NodeInfo[], name: string): string[] {
  const users = nodes.filter(({ children }) =>
    children.some((child) => child["node-name"] === name),
  );
  return users.flatMap((user) => {
    const own = user["node-name"];
    return [...nodesOver(nodes, own), own];
  });
}

/** Deletes the closed disk and what is remembered of it. */
export async function removeDisk(client: Client, store: StoreDriver): Promise<void> {
  if (store === "opfs") await removeFile(client);
  // What is made anew is empty, and takes no room.
  else await createImage(client, { ...storeFile(store), size: 0 });
  await forgetEntry();
}

/** Gone is gone: that there was no such file is no error. */
async function removeFile(client: Client): Promise<void> {
  try {
    await client.removeFile(DISK);
  } catch (error) {
    if (!(error instanceof QmpError && error.errno === "ENOENT")) throw error;
  }
}

/** @param speed bytes per second, 0 is unlimited */
export async function startStream(client: Client, speed: number): Promise<void> {
  await dismissStream(client);
  await client.execute("block-stream", {
    "job-id": STREAM_ID,
    device: NODE,
    speed,
    // A server that goes away pauses the job; it tries the same bytes again when it is resumed.
    "on-error": "stop",
    "auto-dismiss": false,
  });
}

/** Cancels the stream and waits until it has let go of the disk. */
export function cancelStream(client: Client): Promise<void> {
  return cancelJob(client, STREAM_ID);
}

/** Cancels all jobs, those of the console included, waits until they have let go, and forgets them. */
export async function endAllJobs(client: Client): Promise<void> {
  const jobs = await client.execute("query-jobs");
  const running = jobs.filter(({ status }) => status !== "concluded");
  await Promise.all(running.map(({ id }) => cancelJob(client, id)));
  for (const { id, status } of await client.execute("query-jobs")) {
    if (status === "concluded") await client.execute("job-dismiss", { id });
  }
}

async function cancelJob(client: Client, id: string): Promise<void> {
  // A job that has just ended, and perhaps dismissed itself, needs no cancel any more.
  const ignoreRefusal = (error: unknown) => {
    if (!(error instanceof QmpError)) throw error;
  };
  const ended = client.waitForJob(id, "concluded").catch(ignoreRefusal);
  const cancelled = client.execute("job-cancel", { id }).catch(ignoreRefusal);
  await Promise.all([ended, cancelled]);
}

export async function queryNodes(client: Client): Promise<readonly NodeInfo[]> {
  return client.execute("query-named-block-nodes", { flat: true });
}

export function isDiskNode(node: NodeInfo): boolean {
  return node["node-name"] === NODE;
}

/** The node that the page's export stands on: the disk, or what a mirror has moved it over to. */
export async function queryDiskNode(client: Client): Promise<string> {
  const exports = await client.execute("query-block-exports");
  return exports.find(({ id }) => id === EXPORT)?.["node-name"] ?? NODE;
}

/** A stream that has ended keeps its name until it is dismissed. */
async function dismissStream(client: Client): Promise<void> {
  const jobs = await client.execute("query-jobs");
  const ended = jobs.some((job) => job.id === STREAM_ID && job.status === "concluded");
  if (ended) await client.execute("job-dismiss", { id: STREAM_ID });
}

/** Opens the template once, for its size and for who its images are. */
async function inspectTemplate(
  client: Client,
  template: Template,
): Promise<{ template: Template; size: number }> {
  await client.execute("blockdev-add", templateOptions(template.chain));
  try {
    const nodes = await queryNodes(client);
    checkComplete(template.chain, nodes);
    const top = nodes.find((node) => node["node-name"] === templateNode(0))!;
    return {
      template: { ...template, chain: withIdentities(template.chain, nodes) },
      size: top.image["virtual-size"],
    };
  } finally {
    await client.execute("blockdev-del", { "node-name": templateNode(0) });
  }
}

/** The name that the overlay's header gives to its backing file; undefined if it has none. */
async function backingLabel(client: Client, store: StoreDriver): Promise<string | undefined> {
  await client.execute("blockdev-add", {
    driver: "qcow2",
    "node-name": NODE,
    "read-only": true,
    file: fileOptions(store, true),
    backing: null,
  });
  try {
    const nodes = await queryNodes(client);
    return nodes.find(isDiskNode)?.image["backing-filename"];
  } finally {
    await client.execute("blockdev-del", { "node-name": NODE });
  }
}

/** Runs a blockdev-create job to its end, and forgets it. */
export async function createImage(client: Client, options: CreateOptions): Promise<void> {
  const id = CREATE_ID;
  await client.execute("blockdev-create", { "job-id": id, options });
  const { error } = await client.waitForJob(id, "concluded");
  await client.execute("job-dismiss", { id });
  if (error !== undefined) throw new DiskError(error);
}

function fileOptions(store: StoreDriver, readOnly: boolean) {
  return { ...storeFile(store), "node-name": FILE_NODE, "read-only": readOnly };
}

function storeFile(store: StoreDriver) {
  return store === "opfs" ? { driver: store, filename: DISK } : { driver: store, name: DISK };
}

function labelOf(template: Template): string {
  const { source } = template.chain[0]!;
  return source.driver === "http" ? source.url : source.name;
}
