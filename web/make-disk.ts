/** A new disk: an empty overlay over a template, and the domain that has it. */

import type { SharedApi, Tab } from "../src/domain/client.ts";
import { DISK, type DiskEntry, readEntry, type StoreDriver, writeEntry } from "./catalogue.ts";
import { define, labelOf } from "./define.ts";
import { findDomain } from "./disk.ts";
import { hasOpfs } from "./platform.ts";
import { createImage, DiskError, forget, queryNodes, storeOf } from "./store.ts";
import {
  checkComplete,
  type Template,
  templateNode,
  templateOptions,
  withIdentities,
} from "./template.ts";

const FILE_NODE = "disk-file";

/** Whether there is a disk. A file of no bytes is the trace of a page that was closed too early. */
export async function exists(tab: Tab, entry: DiskEntry | undefined): Promise<boolean> {
  if ((await findDomain(tab)) !== undefined) return true;
  if (entry !== undefined && entry.store !== "opfs") return true;
  if (!(await hasOpfs(tab.client))) return false;
  const file = (await tab.client.listFiles()).find(({ filename }) => filename === DISK);
  return file !== undefined && file.size > 0;
}

/**
 * Makes an empty overlay over the template, and the domain that has it. What was made so far is removed again
 * if it fails.
 *
 * Another tab may have made a disk since this page looked: it is neither emptied nor given another
 * template.
 *
 * @throws QmpError, DomainError of the step that failed, DiskError if there is a disk
 */
export function makeDisk(tab: Tab, template: Template, store: StoreDriver): Promise<DiskEntry> {
  return whileNobodyMakes(async () => {
    if (await exists(tab, await readEntry())) {
      throw new DiskError(
        "There is a disk already: another tab has made it. Reload this page to open it.",
      );
    }
    const entry = await makeOverlay(tab.client, template, store);
    await define(tab, entry);
    return entry;
  });
}

/** Looking whether there is a disk and making one is one step, whichever tab does it. */
function whileNobodyMakes<T>(make: () => Promise<T>): Promise<T> {
  if (navigator.locks === undefined) return make();
  return navigator.locks.request(`blocktab:make:${DISK}`, { ifAvailable: true }, async (lock) => {
    if (lock === null) {
      throw new DiskError("Another tab is making the disk: in a moment it is here, too.");
    }
    return make();
  }) as Promise<T>;
}

async function makeOverlay(
  client: SharedApi,
  template: Template,
  store: StoreDriver,
): Promise<DiskEntry> {
  const found = await inspectTemplate(client, template);
  const entry: DiskEntry = { store, template: found.template };
  await writeEntry(entry);
  try {
    await createImage(client, { ...storeOf(store), size: 0 });
    await client.execute("blockdev-add", { ...storeOf(store), "node-name": FILE_NODE });
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
    await forget(client, [storeOf(store)]).catch((later: unknown) => console.error(later));
    throw error;
  }
  return entry;
}

/** Opens the template once, for its size and for who its images are. */
async function inspectTemplate(
  client: SharedApi,
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
