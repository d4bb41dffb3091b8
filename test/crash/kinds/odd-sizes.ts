/** Disks that end within a cluster, from the first size to the last. */

import { KiB } from "../../../src/base/bytes.ts";
import { SECTOR_BYTES } from "../content.ts";
import type { ImageOptions, Kind, Trial } from "../trial.ts";
import { HABITS, turns } from "./sizes.ts";
import { Shelf } from "./snapshots.ts";

/** Two programs make a key of a passphrase for each state. */
const SLOW = 0.2;

/** Longer and shorter, hardly ever by whole clusters. */
async function anotherSize(trial: Trial): Promise<void> {
  const { random, guest } = trial;
  const { length } = guest.disk;
  const isLonger = random.below(2) === 0;
  const sectors = 1 + random.below(isLonger ? 400 : length / SECTOR_BYTES / 2);
  await trial.resize(length + (isLonger ? sectors : -sectors) * SECTOR_BYTES);
}

function ofOddSizes(name: string, image: ImageOptions, file = "disk"): Kind {
  return turns(`odd sizes: ${name}`, image, anotherSize, { ...HABITS, packed: 1 }, file);
}

/** The same, and a snapshot of the first size that has to keep its bytes. */
function oddSizesOverSnapshot(name: string, image: ImageOptions, file = "disk"): Kind {
  return {
    name: `odd sizes over a snapshot: ${name}`,
    async run(trial) {
      await trial.create(file, image);
      const disk = await trial.open(file);
      const guest = await trial.enter(disk);
      const shelf = new Shelf(trial, guest);
      trial.claims.push(shelf.claim);
      await guest.acts(8, HABITS);
      await shelf.create();
      await guest.acts(3, HABITS);
      await trial.record();
      shelf.settle();
      for (let round = 0; round < 4; round++) {
        await anotherSize(trial);
        await guest.acts(3, HABITS);
      }
      await trial.close(disk);
    },
  };
}

export const oddSizes: readonly Kind[] = [
  ofOddSizes("plain", { size: 301 * 512, "cluster-size": 4 * KiB }),
  { ...ofOddSizes("LUKS", { size: 301 * 512, "cluster-size": 4 * KiB }, "locked"), share: SLOW },
  ofOddSizes("extended L2 entries", {
    size: 1001 * 512,
    "cluster-size": 16 * KiB,
    "extended-l2": true,
  }),
  oddSizesOverSnapshot("plain", { size: 301 * 512, "cluster-size": 4 * KiB }),
  oddSizesOverSnapshot("extended L2 entries", {
    size: 1001 * 512,
    "cluster-size": 16 * KiB,
    "extended-l2": true,
  }),
  {
    ...oddSizesOverSnapshot("LUKS", { size: 301 * 512, "cluster-size": 4 * KiB }, "locked"),
    share: SLOW,
  },
];
