/**
 * snapshot-save, snapshot-load, snapshot-delete: one tag over several disks, as a job (QEMU:
 * migration/savevm.c).
 *
 * Disks only. QEMU puts a machine's memory and devices into one of the images as well; there is no
 * machine here, so `vmstate` names one of the disks and nothing is put there: the state's size is 0.
 * A snapshot that a machine has saved can be loaded: its disks, not its memory.
 *
 * The work is one step that a cancel does not interrupt; it is told as cancelled then, and is done
 * all the same. All disks are drained together: guests wait, and go on afterwards.
 */

import { BlockError } from "../base/errors.ts";
import type { SnapshotInfo } from "../block/driver.ts";
import type { BlockNode } from "../block/node.ts";
import { Job } from "../job/job.ts";
import type { BlockJobServices, Replacing } from "./block-job.ts";
import { holding } from "./hold.ts";
import {
  applySnapshot,
  checkUnrecorded,
  createSnapshot,
  findTag,
  type SnapshotHome,
  snapshotHome,
} from "./internal-snapshot.ts";

export interface SnapshotJobOptions {
  readonly jobId: string;
  readonly tag: string;
  /** Node names. */
  readonly devices: readonly string[];
}

export interface VmStateOptions extends SnapshotJobOptions {
  /** One of `devices`. */
  readonly vmstate: string;
}

/**
 * Starts a job that saves the disks, all or none, and returns it running; it stays concluded until it
 * is dismissed. The tag must be new to all of them.
 *
 * @throws BlockError EINVAL, EEXIST for the id. All else is the job's error
 */
export function startSnapshotSave(services: BlockJobServices, options: VmStateOptions): Job {
  const { tag } = options;
  return startJob(services, options, "snapshot-save", async (homes) => {
    for (const home of homes) {
      if (findTag(home, tag)) throw tagError("EEXIST", tag, "exists already on", [home]);
    }
    const made: [SnapshotHome, SnapshotInfo][] = [];
    try {
      for (const home of homes) made.push([home, await createSnapshot(home, tag, services.clock)]);
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
      throw await takeBack(made, error);
    }
  });
}

/** @returns the error to throw: what went wrong, and what is left behind because of it */
async function takeBack(
  made: readonly [SnapshotHome, SnapshotInfo][],
  reason: BlockError,
): Promise<BlockError> {
  let told = reason;
  for (const [{ node, store }, { id }] of made) {
    try {
      await store.delete(id);
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
      const left = `Snapshot ${id} of node '${node.name}' could not be deleted again`;
      told = told.prepend(`${left}: ${error.message}; it was made before this`);
    }
  }
  return told;
}

/**
 * Starts a job that makes the disks what they were. All of them must have the tag, which is looked
 * into before anything changes.
 */
export function startSnapshotLoad(services: BlockJobServices, options: VmStateOptions): Job {
  const { tag } = options;
  const load = async (homes: readonly SnapshotHome[]) => {
    const found = homes.map((home) => ({ home, info: findTag(home, tag) }));
    const missing = found.filter(({ info }) => !info).map(({ home }) => home);
    if (missing.length > 0) throw tagError("ENOENT", tag, "does not exist on", missing);
    for (const { node } of homes) checkUnrecorded(node);
    const loaded: string[] = [];
    for (const { home, info } of found) {
      try {
        if (info) await applySnapshot(services.graph, home, info);
      } catch (error) {
        if (!(error instanceof BlockError) || loaded.length === 0) throw error;
        throw error.prepend(`Loaded on node ${loaded.join(", ")}, but not on all`);
      }
      loaded.push(`'${home.node.name}'`);
    }
  };
  return startJob(services, options, "snapshot-load", load, services.replacing);
}

/** Starts a job that deletes the tag from every disk that has it. */
export function startSnapshotDelete(services: BlockJobServices, options: SnapshotJobOptions): Job {
  return startJob(services, options, "snapshot-delete", async (homes) => {
    for (const home of homes) {
      const info = findTag(home, options.tag);
      if (info) await home.store.delete(info.id);
    }
  });
}

function startJob(
  services: BlockJobServices,
  options: SnapshotJobOptions & { readonly vmstate?: string },
  type: string,
  work: (homes: readonly SnapshotHome[]) => Promise<void>,
  around: Replacing = async (begin) => begin(),
): Job {
  const { graph, jobs, clock } = services;
  const job = new Job({
    id: options.jobId,
    clock,
    list: jobs,
    autoDismiss: false,
    driver: {
      type,
      async run({ progress }) {
        progress.setRemaining(1);
        await around(() => {
          const nodes = homesOf(services, options).map(({ node }) => node);
          return holding(graph, nodes, `job '${options.jobId}'`, () =>
            graph.drained(nodes, () => {
              // While that is waited for, a job may begin, or a node become read-only.
              const homes = homesOf(services, options);
              checkDrained(homes, nodes);
              return work(homes);
            }),
          );
        });
        progress.workDone(1);
      },
    },
  });
  job.start();
  return job;
}

/** @throws BlockError ENOENT, EINVAL (vmstate), and what snapshotHome() throws */
function homesOf(
  { graph }: BlockJobServices,
  { devices, vmstate }: SnapshotJobOptions & { readonly vmstate?: string },
): SnapshotHome[] {
  if (vmstate !== undefined && !devices.includes(vmstate)) {
    throw new BlockError("EINVAL", `Parameter 'vmstate' names '${vmstate}', not one of 'devices'`);
  }
  // A disk may be named twice: itself, and a filter above it.
  const homes = new Map<BlockNode, SnapshotHome>();
  for (const name of devices) {
    const home = snapshotHome(graph.get(name));
    homes.set(home.node, home);
  }
  return [...homes.values()];
}

/** A filter that was named may have come to stand on another disk. */
function checkDrained(homes: readonly SnapshotHome[], drained: readonly BlockNode[]): void {
  const other = homes.find(({ node }) => !drained.includes(node));
  if (!other) return;
  throw new BlockError("EBUSY", `Node '${other.node.name}' has only come in now: try again`);
}

function tagError(
  errno: "EEXIST" | "ENOENT",
  tag: string,
  what: string,
  homes: readonly SnapshotHome[],
): BlockError {
  const names = homes.map(({ node }) => `'${node.name}'`).join(", ");
  return new BlockError(errno, `Snapshot '${tag}' ${what} node ${names}`);
}
