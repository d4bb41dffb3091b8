/**
 * Image files by name, for the commands that take one where blockdev-add takes options:
 *
 *     opfs:disk2.qcow2     memory:x     file:/path/to/disk.qcow2     the store, and its name for it
 *     disk2.qcow2                                                    in the store of a node's own file
 */

import { alignUp } from "../base/bytes.ts";
import { BlockError } from "../base/errors.ts";
import type { BlockDriver } from "../block/driver.ts";
import type { Graph } from "../block/graph.ts";
import type { BlockNode } from "../block/node.ts";
import type { BlockdevOptions } from "../block/options.ts";
import { Perm } from "../block/permissions.ts";
import { skipFilters } from "../block/status.ts";

const SECTOR_BYTES = 512;

/** An image file: where, and as what blockdev-add would open it. */
export interface StoreName {
  readonly driver: BlockDriver;
  /** The member of the driver's options that holds the name. */
  readonly member: "filename" | "name";
  readonly name: string;
  readonly options: BlockdevOptions;
}

/**
 * @param beside whose store is meant where the text does not say
 * @throws BlockError EINVAL that says what to write
 */
export function parseImageName(graph: Graph, text: string, beside: BlockNode): StoreName {
  const [, prefix, rest] = /^([a-z][a-z0-9-]*):(.*)$/s.exec(text) ?? [];
  const driver = prefix === undefined ? storeOf(beside).driver : graph.drivers.get(prefix);
  const member = driver && nameMember(driver);
  if (!driver || !member) {
    const known = [...graph.drivers.values()].filter(nameMember).map(({ name }) => `${name}:`);
    throw new BlockError(
      "EINVAL",
      `No image can be made as '${text}': begin its name with one of ${known.sort().join(" ")}`,
    );
  }
  const name = rest ?? text;
  return { driver, member, name, options: { driver: driver.name, [member]: name } };
}

/** What the bytes of an image are in at last. */
function storeOf(node: BlockNode): BlockNode {
  let store = skipFilters(node);
  for (let file = store.children.get("file"); file; file = store.children.get("file")) {
    store = file.node;
  }
  return store;
}

/** undefined for drivers that make no files by name. */
function nameMember(driver: BlockDriver): "filename" | "name" | undefined {
  const { kind, create, createOptions } = driver;
  if (kind !== "protocol" || !create || !createOptions) return undefined;
  if ("filename" in createOptions) return "filename";
  return "name" in createOptions ? "name" : undefined;
}

/**
 * Makes a file, or empties the one of that name, and a new image in it.
 *
 * @param options the format's members of blockdev-create
 * @throws BlockError EBUSY if a node has the file, EINVAL if the format does not take the options,
 *   and what the drivers throw; what was made so far stays where it is then
 */
export async function createImage(
  graph: Graph,
  store: StoreName,
  format: string,
  options: { readonly size: number; readonly [member: string]: unknown },
): Promise<void> {
  const driver = graph.driver(format);
  const { create, createOptions } = driver;
  if (driver.kind !== "format" || !create || !createOptions) {
    throw new BlockError("ENOTSUP", `Driver '${format}' does not make images`);
  }
  for (const member of Object.keys(options)) {
    if (member in createOptions) continue;
    throw new BlockError("EINVAL", `Format '${format}' has no '${member}'`);
  }
  const { world } = graph;
  const file = { [store.member]: store.name, size: 0 };
  checkFileUnused(graph, store.driver, file);
  await store.driver.create?.({ world, options: file as never });
  const node = await graph.addForUsers(store.options);
  const backend = graph.openBackend(node, {
    name: "",
    description: `the creation of '${store.name}'`,
    permissions: { take: Perm.all, share: Perm.consistentRead },
  });
  try {
    // Disks are whole sectors: the last one is filled up with zeroes.
    const whole = { ...options, size: alignUp(options.size, SECTOR_BYTES) };
    await create.call(driver, { world, options: whole as never, file: backend.edge });
  } finally {
    await graph.closeBackend(backend);
  }
}

/**
 * A file has been made, or emptied: what is on record of one that had its name before does not hold for it
 * (src/block/write-intents.ts).
 *
 * @param options as checkFileUnused() takes them
 * @throws BlockError what opening the file throws, and saving the record
 */
export async function forgetFormerFile(
  graph: Graph,
  driver: BlockDriver,
  options: Readonly<Record<string, unknown>>,
): Promise<void> {
  const member = nameMember(driver);
  if (!member || !graph.world.intents) return;
  const node = await graph.addForUsers({ driver: driver.name, [member]: options[member] });
  try {
    await node.gate?.announce();
  } finally {
    await graph.closeUnused(node);
  }
}

/**
 * Not every store knows by itself: to empty the file of a disk in use would be the end of it.
 *
 * @param options the store's members of blockdev-create
 * @throws BlockError EBUSY if a node has the file, also one that is being opened or closed
 */
export function checkFileUnused(
  graph: Graph,
  driver: BlockDriver,
  options: Readonly<Record<string, unknown>>,
): void {
  const member = nameMember(driver);
  if (!member) return;
  const name = options[member];
  const user = graph.nodesWithStores.find((node) => {
    const own = node.options as Readonly<Record<string, unknown>>;
    return node.driver === driver && own[member] === name;
  });
  if (user) throw new BlockError("EBUSY", `Node '${user.name}' has '${name}' open already`);
}
