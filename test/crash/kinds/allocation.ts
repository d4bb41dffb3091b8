/** Room for new clusters: in a row and at random, of all sizes, packed, in pieces. */

import { KiB, MiB } from "../../../src/base/bytes.ts";
import { type Habits, USUAL } from "../guest.ts";
import type { ImageOptions, Kind, Trial } from "../trial.ts";

const ALL: Habits = { ...USUAL, packed: 2 };

/** A guest on one image: some history first, then what is recorded, reopened in the middle. */
function guestOn(
  name: string,
  image: ImageOptions,
  habits: Habits,
  before = 6,
  file = "disk",
): Kind {
  return {
    name,
    async run(trial: Trial) {
      await trial.create(file, image);
      const disk = await trial.open(file);
      const guest = await trial.enter(disk);
      await guest.acts(before, habits);
      await trial.record();
      await guest.acts(14, habits);
      await guest.flush();
      await guest.acts(3, habits);
      await trial.close(disk);
      const again = await trial.open(file);
      guest.moveTo(again);
      await guest.acts(5, habits);
      await trial.close(again);
    },
  };
}

const sequential = { write: 12, flush: 3, sequential: true };
const sizes = [
  { cluster: 512, size: 512 * KiB, mostBytes: 16 * KiB },
  { cluster: 4 * KiB, size: MiB, mostBytes: 48 * KiB },
  { cluster: 64 * KiB, size: 2 * MiB, mostBytes: 128 * KiB },
];

export const allocation: readonly Kind[] = [
  ...sizes.flatMap(({ cluster, size, mostBytes }) => [
    guestOn(
      `sequential allocation, clusters of ${cluster}`,
      { size, "cluster-size": cluster },
      {
        ...sequential,
        mostBytes,
      },
    ),
    guestOn(
      `random allocation, clusters of ${cluster}`,
      { size, "cluster-size": cluster },
      {
        write: 12,
        flush: 3,
        mostBytes,
      },
    ),
  ]),
  guestOn("everything on version 2", { size: MiB, version: "v2", "cluster-size": 4 * KiB }, ALL),
  guestOn(
    "zero writes",
    { size: MiB, "cluster-size": 4 * KiB },
    { write: 5, zeroes: 6, unmap: 3, flush: 3 },
    20,
  ),
  guestOn(
    "discard and reuse",
    { size: 512 * KiB, "cluster-size": 2 * KiB },
    { write: 6, discard: 6, unmap: 2, flush: 3, mostBytes: 128 * KiB },
    20,
  ),
  ...(["zlib", "zstd"] as const).map((type) =>
    guestOn(
      `packed writes, ${type}`,
      { size: MiB, "cluster-size": 16 * KiB, "compression-type": type },
      { packed: 10, write: 3, discard: 1, flush: 3, mostBytes: 32 * KiB },
      10,
    ),
  ),
  guestOn(
    "extended L2 entries",
    { size: MiB, "cluster-size": 16 * KiB, "extended-l2": true },
    { ...ALL, mostBytes: 24 * KiB },
    12,
  ),
  {
    ...guestOn("LUKS", { size: 512 * KiB, "cluster-size": 4 * KiB }, USUAL, 6, "locked"),
    // Two programs make a key of a passphrase for each of them.
    share: 0.2,
  },
  guestOn(
    "refcounts of 1 bit",
    { size: MiB, "cluster-size": 4 * KiB, "refcount-bits": 1 },
    { ...USUAL, packed: 1 },
  ),
  guestOn(
    "new refcount blocks",
    { size: MiB, "cluster-size": 512, "refcount-bits": 64 },
    { write: 12, flush: 3, discard: 1, mostBytes: 48 * KiB },
    2,
  ),
];
