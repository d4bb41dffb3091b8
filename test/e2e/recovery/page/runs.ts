/**
 * The five jobs, run after run, each from where the one before has left its disk. A kill may have come
 * between any two steps here, so each step looks whether it has been done.
 */

import { QmpError } from "../../../../src/engine/client.ts";
import type { SharedApi } from "../../../../src/engine/tabs/connect.ts";
import { BITMAP, IMAGES, KINDS, type Kind, SPEED } from "../plan.ts";
import { exportDisk, makeImage, openImage, putOverlay } from "./images.ts";

type Chains = Readonly<Record<Kind, readonly string[]>>;

/** All disks, as they are before anything happens. */
export async function makeDisks(client: SharedApi): Promise<void> {
  const make = async (name: string, below?: string) => {
    await makeImage(client, name, below);
    await openImage(client, name, below ?? null);
  };
  await make("stream-a");
  await make("commit-base");
  await make("commit-a", "commit-base");
  await make("active-base");
  for (const name of [...IMAGES.mirror, ...IMAGES.backup]) await make(name);
  // Before anything is written: the first backup has to have all of it.
  const bitmap = { node: "backup-a", name: BITMAP, persistent: true };
  await client.execute("block-dirty-bitmap-add", bitmap);
  const tops = { stream: "stream-a", commit: "commit-a", active: "active-base" };
  const disks = { ...tops, mirror: "mirror-a", backup: "backup-a" };
  for (const kind of KINDS) await exportDisk(client, kind, disks[kind]);
}

/** Where a job's last run has ended. @returns what is wrong, or "" */
export function wrongEnd(kind: Kind, chain: readonly string[]): string {
  const isRight = {
    stream: chain.length === 1,
    commit: chain.length === 2 && chain[1] === "commit-base",
    active: chain.join() === "active-base",
    mirror: chain.length === 1,
    backup: chain.join() === "backup-a",
  }[kind];
  return isRight ? "" : `the disk of ${kind} stands on ${chain.join(", ")}`;
}

const manners = { speed: SPEED };
/** Where there is but what a guest has written for a while. */
const slowly = { speed: 16 * 1024 };

/** Starts the next run of a job that is not there. */
export const START: Readonly<Record<Kind, (client: SharedApi, chains: Chains) => Promise<void>>> = {
  async stream(client, { stream: [top, below] }) {
    const overlay = below === undefined ? otherOf("stream", top!) : top!;
    if (below === undefined) await putOverlay(client, top!, overlay);
    await client.execute("block-stream", { "job-id": "stream", device: overlay, ...manners });
  },
  async commit(client, { commit: [top, ...below] }) {
    const isThere = below.length === 2;
    const overlay = isThere ? top! : otherOf("commit", top!);
    if (!isThere) await putOverlay(client, top!, overlay);
    const middle = isThere ? below[0]! : top!;
    const nodes = { device: overlay, "top-node": middle, "base-node": "commit-base" };
    await client.execute("block-commit", { "job-id": "commit", ...nodes, ...slowly });
  },
  async active(client, { active: [top] }) {
    if (top === "active-base") await putOverlay(client, "active-base", "active-b");
    await client.execute("block-commit", { "job-id": "active", device: "active-b", ...slowly });
  },
  async mirror(client, { mirror: [top] }) {
    const nodes = { device: top!, target: otherOf("mirror", top!), sync: "full" } as const;
    await client.execute("blockdev-mirror", { "job-id": "mirror", ...nodes, ...manners });
  },
  async backup(client) {
    const nodes = { device: "backup-a", target: "backup-target" };
    // The bitmap outlives kills, or this is refused.
    const since = { sync: "incremental", bitmap: BITMAP } as const;
    // Or all of it would be one step.
    const steps = { "x-perf": { "max-chunk": 64 * 1024 } };
    const args = { "job-id": "backup", ...nodes, ...since, ...slowly, ...steps };
    await client.execute("blockdev-backup", args);
  },
};

function otherOf(kind: "stream" | "commit" | "mirror", top: string): string {
  const [a, b] = IMAGES[kind];
  return top === a ? b! : a!;
}

/** A job goes on as fast as it can; it may be about to end by itself, or have ended. */
export async function hurry(client: SharedApi, kind: Kind): Promise<void> {
  try {
    await client.execute("block-job-set-speed", { device: kind, speed: 0 });
  } catch (error) {
    const isGone = error instanceof QmpError && error.class === "DeviceNotActive";
    if (!isGone && !/does not apply to job '.*' while it is/.test(String(error))) throw error;
  }
}
