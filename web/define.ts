/**
 * From a disk's image to its definition as a domain's: the name of the backing file inside the overlay is a label;
 * what the page remembers says what it stands for.
 */

import type { DiskDefinition, ImageDefinition, SharedApi, Tab } from "../src/domain/client.ts";
import type { DiskEntry, StoreDriver } from "./catalogue.ts";
import { DiskError, queryNodes, storeOf } from "./store.ts";
import type { Source, Template } from "./template.ts";

/** The page has one domain, with one disk. */
export const DOMAIN = "page";
export const TARGET = "vda";
const PEEK_NODE = "disk-peek";

/** @throws DiskError if it is not known what the disk needs */
export async function define(tab: Tab, entry: DiskEntry | undefined): Promise<void> {
  const store = entry?.store ?? "opfs";
  const label = await backingLabel(tab.client, store);
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
  const disk: DiskDefinition = {
    target: TARGET,
    format: "qcow2",
    source: storeOf(store),
    backingStore: label === undefined ? null : chainOf(entry!.template),
  };
  await tab.domains.define({ name: DOMAIN, disks: [disk] });
}

function chainOf({ chain }: Template): ImageDefinition | null {
  return chain.reduceRight<ImageDefinition | null>(
    (backingStore, { format, source, dataSource }) => ({
      format,
      source: plain(source),
      ...(dataSource && { dataStore: plain(dataSource) }),
      backingStore,
    }),
    null,
  );
}

/** As blockdev-add takes it. */
function plain(source: Source): ImageDefinition["source"] {
  return source.driver === "blob" ? { driver: "blob", name: source.name } : { ...source };
}

/** The name that the overlay's header gives to its backing file; undefined if it has none. */
async function backingLabel(client: SharedApi, store: StoreDriver): Promise<string | undefined> {
  await client.execute("blockdev-add", {
    driver: "qcow2",
    "node-name": PEEK_NODE,
    "read-only": true,
    file: { ...storeOf(store), "read-only": true },
    backing: null,
  });
  try {
    const nodes = await queryNodes(client);
    const node = nodes.find((one) => one["node-name"] === PEEK_NODE);
    return node?.image["backing-filename"];
  } finally {
    await client.execute("blockdev-del", { "node-name": PEEK_NODE });
  }
}

export function labelOf(template: Template): string {
  const { source } = template.chain[0]!;
  return source.driver === "http" ? source.url : source.name;
}
