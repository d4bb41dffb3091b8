/**
 * The page's disk: `vda` of the domain `page`, made, opened, closed and deleted, whichever tab does it.
 *
 *   opening    [http template] <── [opfs disk.qcow2]  ◀── vda's device  ◀── all tabs
 *
 * What the chain is, the driver of domains keeps; it changes with every job. The page itself only has to
 * remember what the disk was made from, until the domain is defined.
 */

import {
  DOMAIN_STATE,
  type Domain,
  DomainError,
  type DomainInfo,
  flags,
  type SharedApi,
  type Tab,
} from "../src/domain/client.ts";
import { type Device, QmpError } from "../src/engine/client.ts";
import type { DiskEntry, StoreDriver } from "./catalogue.ts";
import { DOMAIN, define } from "./define.ts";
import { DiskError, forget, storeOf } from "./store.ts";

export function domainOf(tab: Tab): Domain {
  return tab.domains.domain(DOMAIN);
}

/** @returns undefined if there is no domain */
export async function findDomain(tab: Tab): Promise<DomainInfo | undefined> {
  const all = await tab.domains.listAllDomains();
  return all.find(({ name }) => name === DOMAIN);
}

/** There is a disk, and nobody has opened it. */
export async function isClosed(tab: Tab): Promise<boolean> {
  const found = await findDomain(tab);
  return found !== undefined && found.state !== DOMAIN_STATE.RUNNING;
}

export interface OpenDisk {
  readonly device: Device;
  readonly readOnly: boolean;
}

/**
 * Starts the domain unless it runs, and opens the disk's device.
 *
 * @param entry what the page remembers: for a disk that was made before there were domains
 * @param readOnly how it is to be if it is closed; null: as it was
 * @throws QmpError, DomainError of the step that failed, DiskError if it is not known what the disk needs
 */
export async function openDisk(
  tab: Tab,
  entry: DiskEntry | undefined,
  readOnly: boolean | null,
): Promise<OpenDisk> {
  const domain = domainOf(tab);
  if ((await findDomain(tab)) === undefined) await define(tab, entry);
  if ((await domain.info()).state !== DOMAIN_STATE.RUNNING) {
    if (readOnly !== null) await setReadOnly(tab, readOnly);
    await start(domain);
  }
  const [disk] = (await domain.info()).disks;
  const { device, readonly } = disk!;
  if (device === null) throw new DiskError("Another tab has just closed the disk.");
  return { device: await tab.client.openDevice(device), readOnly: readonly };
}

async function setReadOnly(tab: Tab, readonly: boolean): Promise<void> {
  const { name, disks } = await domainOf(tab).getDesc(flags.DOMAIN_DESC.INACTIVE);
  const [disk] = disks;
  if ((disk!.readonly ?? false) === readonly) return;
  await tab.domains.define({ name, disks: [{ ...disk!, readonly }] });
}

async function start(domain: Domain): Promise<void> {
  try {
    await domain.create();
  } catch (error) {
    // Another tab may have been quicker.
    const isRunning = (await domain.info()).state === DOMAIN_STATE.RUNNING;
    if (!(error instanceof DomainError) || !isRunning) throw error;
  }
}

/** Closes everything that openDisk() has opened, in all tabs; the image is whole on its own afterwards. */
export async function closeDisk(tab: Tab): Promise<void> {
  const found = await findDomain(tab);
  if (found?.state === DOMAIN_STATE.RUNNING) await domainOf(tab).destroy();
}

/** Deletes the closed disk, with all its images that are in this browser, and what is remembered of it. */
export async function removeDisk(tab: Tab, store: StoreDriver): Promise<void> {
  const found = await findDomain(tab);
  const chain = found?.disks[0]?.chain.map(({ source }) => source) ?? [storeOf(store)];
  // Images first: one that somebody has open stays, and then nobody must forget what it stands on.
  await forget(tab.client, chain);
  if (found) await domainOf(tab).undefine(flags.DOMAIN_UNDEFINE.CHECKPOINTS_METADATA);
}

/** Cancels all jobs, those of the console included, waits until they have let go, and forgets them. */
export async function endAllJobs(client: SharedApi): Promise<void> {
  const jobs = await client.execute("query-jobs");
  const running = jobs.filter(({ status }) => status !== "concluded");
  await Promise.all(running.map(({ id }) => cancelJob(client, id)));
  for (const { id, status } of await client.execute("query-jobs")) {
    if (status !== "concluded") continue;
    // The driver of domains dismisses its own.
    await client.execute("job-dismiss", { id }).catch(ignoreRefusal);
  }
}

async function cancelJob(client: SharedApi, id: string): Promise<void> {
  // A job that has just ended, and perhaps dismissed itself, needs no cancel any more.
  const ended = client.waitForJob(id, "concluded").catch(ignoreRefusal);
  const cancelled = client.execute("job-cancel", { id }).catch(ignoreRefusal);
  await Promise.all([ended, cancelled]);
}

function ignoreRefusal(error: unknown): void {
  if (!(error instanceof QmpError)) throw error;
}
