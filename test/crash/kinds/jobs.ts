/** Jobs that copy between images while the guest goes on. */

import { KiB } from "../../../src/base/bytes.ts";
import { startBackup } from "../../../src/blockjob/backup.ts";
import type { BlockJob } from "../../../src/blockjob/block-job.ts";
import { startCommit } from "../../../src/blockjob/commit.ts";
import { startMirror } from "../../../src/blockjob/mirror.ts";
import { startStream } from "../../../src/blockjob/stream.ts";
import { USUAL } from "../guest.ts";
import type { Kind, Trial } from "../trial.ts";

const SIZE = 512 * KiB;
const HABITS = { ...USUAL, mostBytes: 24 * KiB };

const SHORT = ["base", "mid", "top"];
const LONG = ["base", "low", "mid", "top"];

/** base ← … ← top with data in each, the guest on top, and an empty image `target`. */
async function chain(trial: Trial, names = SHORT): Promise<void> {
  let below: string | null = null;
  for (const name of names) {
    const backing = below === null ? {} : { "backing-file": below, "backing-fmt": "qcow2" };
    const clusterSize = [4, 16][trial.random.below(2)]! * KiB;
    await trial.create(name, { size: SIZE, "cluster-size": clusterSize, ...backing });
    const disk = await trial.open(name, { backing: below });
    const guest = await trial.enter(disk);
    await guest.acts(6, { ...HABITS, flush: 0 });
    await disk.flush();
    if (name !== "top") await trial.graph.closeBackend(disk);
    below = name;
  }
  await trial.create("target", { size: SIZE, "cluster-size": 4 * KiB });
  const target = await trial.open("target");
  await target.flush();
  await trial.graph.closeBackend(target);
}

function job(name: string, start: (trial: Trial) => Promise<BlockJob>, names = SHORT): Kind {
  return {
    name,
    async run(trial) {
      await chain(trial, names);
      await trial.record();
      const { guest, clock } = trial;
      await guest.acts(3, HABITS);
      const job = await clock.runUntil(start(trial));
      await trial.until(job, () => guest.acts(1 + trial.random.below(2), HABITS));
      await clock.runUntil(guest.acts(6, HABITS));
      await clock.runUntil(guest.flush());
    },
  };
}

/** Slow enough for the guest to be in between. */
const id = { device: "top", jobId: "j0", speed: 256 * KiB } as const;

/** What `commit` of qemu-img does: top's bytes go down into base, then top is emptied. */
const commitAndEmpty: Kind = {
  name: "commit, and empty the overlay",
  async run(trial) {
    await chain(trial);
    const { guest, graph, random } = trial;
    await trial.record();
    for (let round = 0; round < 2; round++) {
      await guest.acts(4, HABITS);
      await graph.reopen(graph.get("mid"), { readOnly: false });
      const mid = trial.enterBelow("mid");
      const piece = new Uint8Array(16 * KiB);
      for (let at = 0; at < SIZE; at += piece.length) {
        await guest.disk.read(piece, at);
        await mid.write(piece, at);
        if (random.below(8) === 0) await guest.disk.flush();
      }
      await mid.flush();
      await graph.closeBackend(mid);
      await guest.disk.flush();
      await guest.disk.node.state.makeEmpty!();
      await guest.acts(3, HABITS);
      await guest.flush();
    }
    await trial.close(guest.disk);
  },
};

export const jobs: readonly Kind[] = [
  commitAndEmpty,
  job("stream", ({ services }) => startStream(services, id)),
  job("stream down to a base", ({ services }) =>
    startStream(services, { ...id, baseNode: "base" }),
  ),
  job(
    "stream in the middle",
    ({ services }) => startStream(services, { ...id, device: "mid", baseNode: "base" }),
    LONG,
  ),
  job("commit", ({ services }) => startCommit(services, { ...id, topNode: "mid" })),
  job(
    "commit of two layers",
    ({ services }) => startCommit(services, { ...id, topNode: "mid" }),
    LONG,
  ),
  job("commit of the active layer", ({ services }) =>
    startCommit(services, { ...id, baseNode: "base" }),
  ),
  job("mirror", ({ services }) =>
    startMirror(services, { ...id, target: "target", sync: "full", copyMode: "background" }),
  ),
  job("mirror, write-blocking", ({ services }) =>
    startMirror(services, { ...id, target: "target", sync: "full", copyMode: "write-blocking" }),
  ),
  job("backup", ({ services }) => startBackup(services, { ...id, target: "target", sync: "full" })),
];
