/** Images and nodes that many scripts begin with. */

import type { Args, Talk } from "../talk.ts";

/** Bytes. */
export const KiB = 1024;
export const MiB = 1024 * KiB;

/** A speed at which one chunk is copied, and then nothing for longer than any script lasts. */
export const CRAWL = 1024;

/** What one chunk of a stream or a commit is. */
export const CHUNK = 512 * KiB;

/** One disk 'top', 4 MiB of data. */
export async function disk(t: Talk): Promise<void> {
  await t.image("top.qcow2", { writes: ["-P 1 0 4M"] });
  await t.open("top", "top.qcow2");
}

/** [base] <── [mid] <── [top], with data in each, and in all of base. */
export async function chain(t: Talk): Promise<void> {
  await t.image("base.qcow2", { writes: ["-P 1 0 4M"] });
  await t.image("mid.qcow2", { backing: "base.qcow2", writes: ["-P 2 1M 1M"] });
  await t.image("top.qcow2", { backing: "mid.qcow2", writes: ["-P 3 1536k 64k"] });
  await t.open("base", "base.qcow2", { "read-only": true, backing: null });
  await t.open("mid", "mid.qcow2", { "read-only": true, backing: "base" });
  await t.open("top", "top.qcow2", { backing: "mid" });
}

/** Disk 'top' and an empty one of the same size, 'target'. */
export async function pair(t: Talk): Promise<void> {
  await disk(t);
  await t.image("target.qcow2");
  await t.open("target", "target.qcow2");
}

/** For backups: one request of one cluster after the other. */
export const ONE_BY_ONE = { "max-workers": 1, "max-chunk": 64 * KiB };

/** Of the node below a format: the second write of guests' data fails. */
export function failsSecondWrite(filename: string): Args {
  return {
    ...faulty(filename, { event: "write_aio", state: 2, once: true }),
    "set-state": [{ event: "write_aio", state: 1, new_state: 2 }],
  };
}

/** One that fails requests as its rules say, between a format and its file. */
export function faulty(filename: string, ...rules: Args[]): Args {
  return { driver: "blkdebug", image: { driver: "file", filename }, "inject-error": rules };
}
