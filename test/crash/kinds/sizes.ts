/** What changes an image as a whole: its size, its tables' places, its version, the names in its header. */

import { KiB, MiB } from "../../../src/base/bytes.ts";
import { USUAL } from "../guest.ts";
import type { ImageOptions, Kind, Trial } from "../trial.ts";

export const HABITS = { ...USUAL, mostBytes: 32 * KiB };

/** One image; `act` and the guest by turns. */
export function turns(
  name: string,
  image: ImageOptions,
  act: (trial: Trial, round: number) => Promise<void>,
  habits = HABITS,
  file = "disk",
): Kind {
  return {
    name,
    async run(trial) {
      await trial.create(file, image);
      const disk = await trial.open(file);
      const guest = await trial.enter(disk);
      await guest.acts(8, habits);
      await trial.record();
      for (let round = 0; round < 3; round++) {
        await act(trial, round);
        await guest.acts(4, habits);
      }
      await trial.close(disk);
    },
  };
}

const longer = (trial: Trial, bytes: number) => trial.resize(trial.guest.disk.length + bytes);

export const sizes: readonly Kind[] = [
  turns("grow", { size: 300 * KiB, "cluster-size": 4 * KiB }, (trial) =>
    longer(trial, 512 * (1 + trial.random.below(1500))),
  ),
  turns("grow, and the L1 table with it", { size: 128 * KiB, "cluster-size": 512 }, (trial) =>
    longer(trial, MiB),
  ),
  turns("shrink and grow", { size: 700 * KiB, "cluster-size": 4 * KiB }, async (trial, round) => {
    if (round === 1) return longer(trial, 512 * (1 + trial.random.below(900)));
    const { length } = trial.guest.disk;
    return trial.resize(length - 512 * (1 + trial.random.below(length / 1024)));
  }),
  turns(
    "the end of the file is given back",
    { size: MiB, "cluster-size": 4 * KiB },
    async ({ guest }) => {
      await guest.write(0, 512 * KiB);
      await guest.flush();
      // What was written last lies last.
      await guest.discard(64 * KiB, 448 * KiB);
      await guest.flush();
      await guest.flush();
    },
  ),
  turns(
    "shrink, and grow again",
    { size: 700 * KiB, "cluster-size": 4 * KiB },
    async (trial, round) => {
      const { length } = trial.guest.disk;
      if (round % 2 === 1) return longer(trial, 512 * (1 + trial.random.below(900)));
      return trial.resize(length - 512 * trial.random.below(length / 512 - 64));
    },
  ),
  turns(
    "the refcount table moves",
    { size: 4 * MiB, "cluster-size": 512, "refcount-bits": 64 },
    // The table of one cluster is full at 2 MiB.
    async ({ guest }, round) => {
      if (round === 0) for (let i = 0; i < 7; i++) await guest.write(i * 256 * KiB, 256 * KiB);
      else await guest.write((6 + round) * 256 * KiB, 256 * KiB);
      await guest.flush();
    },
    { write: 6, flush: 2, mostBytes: 64 * KiB },
  ),
  turns(
    "amend: version and lazy refcounts",
    { size: 512 * KiB, "cluster-size": 4 * KiB },
    async ({ guest }, round) => {
      const version = round % 2 === 0 ? "v2" : "v3";
      const request = { force: false };
      await guest.disk.node.state.amend!({ version }, request);
      if (version === "v3") await guest.disk.node.state.amend!({ "lazy-refcounts": true }, request);
      if (round === 1) await guest.disk.node.state.amend!({ "lazy-refcounts": false }, request);
    },
    { write: 10, flush: 3 } as typeof HABITS,
  ),
  turns(
    "amend: width of refcounts",
    { size: 512 * KiB, "cluster-size": 2 * KiB },
    async ({ guest, random }) => {
      const bits = [1, 2, 4, 8, 16, 32, 64][random.below(7)]!;
      await guest.disk.node.state.amend!({ "refcount-bits": bits }, { force: false });
    },
    HABITS,
  ),
  {
    name: "another backing file in the header",
    async run(trial) {
      const image = { size: 512 * KiB, "cluster-size": 4 * KiB };
      await trial.create("base", image);
      const base = await trial.open("base");
      await (await trial.enter(base)).acts(8);
      await trial.close(base);
      // Other names for the same bytes, one too long to stand in the header's first sector.
      trial.recorder.add("b", trial.recorder.bytesOf("base").slice());
      trial.images.push("b");
      const names = [`${"./".repeat(300)}b`, "b", "base"];
      await trial.create("top", { ...image, "backing-file": "base", "backing-fmt": "qcow2" });
      await trial.add("base", { "read-only": true });
      const top = await trial.open("top", { backing: "base" });
      const guest = await trial.enter(top);
      await guest.acts(4);
      await trial.record();
      for (const name of names) {
        await guest.acts(3);
        await top.node.state.changeBackingFile!(name, "qcow2");
        await guest.acts(2);
      }
      await trial.close(top);
    },
  },
  {
    name: "an external data file",
    async run(trial) {
      trial.recorder.add("disk.data");
      const image = { size: 512 * KiB, "cluster-size": 4 * KiB };
      await trial.create("disk", { ...image, "data-file": "disk.data" });
      const disk = await trial.open("disk");
      const guest = await trial.enter(disk);
      await guest.acts(6);
      await trial.record();
      await guest.acts(16);
      await trial.close(disk);
    },
  },
  {
    name: "several guests at once",
    async run(trial) {
      await trial.create("disk", { size: MiB, "cluster-size": 4 * KiB });
      const disk = await trial.open("disk");
      const guest = await trial.enter(disk);
      await guest.acts(6);
      await trial.record();
      const bytes = 256 * KiB;
      const lanes = [0, 1, 2, 3].map((lane) => ({ offset: lane * bytes, bytes }));
      await Promise.all(
        lanes.map((area) => guest.acts(7, { ...USUAL, area, mostBytes: 40 * KiB })),
      );
      await guest.flush();
      await trial.close(disk);
    },
  },
];
