/**
 * qcow2 images that are made to hurt, one after the other: built over all features or by the real
 * qemu-img, mutated, and abused in every way there is (abuse.ts says what must hold).
 *
 * Each has a seed of its own, which replays it: --qcow2 1 --seed N.
 */

import { seededRandom } from "../../../src/base/random.ts";
import { Dice } from "../../model/dice.ts";
import { FuzzError, type Fuzzer, type FuzzReport } from "../fuzzer.ts";
import { growth, heapInUse } from "../memory.ts";
import { Abuser, type Case } from "./abuse.ts";
import { buildImage } from "./build.ts";
import { withoutWork } from "./luks.ts";
import { mutate } from "./mutate.ts";
import { qemuSeeds, type Seed } from "./seeds.ts";

/** Images after which memory is looked at. */
const BATCH = 250;
/** After the last seed comes the first one. */
const SEEDS = 2 ** 32;

export const qcow2Fuzzer: Fuzzer = {
  name: "qcow2",
  inputs: "qcow2 images",

  async run({ count, seed: first, onProgress }): Promise<FuzzReport> {
    const kinds = new Map<string, number>();
    const heap: number[] = [];
    const seeds = qemuSeeds();
    const abuser = await Abuser.start(kinds);
    for (let done = 0; done < count; ) {
      const seed = (first + done) % SEEDS;
      const story: string[] = [];
      try {
        const dice = new Dice(seededRandom(seed));
        await abuser.run(makeCase(dice, seeds, story), dice, story);
      } catch (error) {
        const what = error instanceof Error ? error.message : String(error);
        throw new FuzzError(`--qcow2 1: ${what}`, seed, [story.join(", ")], error);
      }
      done++;
      if (done % BATCH === 0) heap.push(heapInUse());
      onProgress?.(done);
    }
    const more = growth(heap);
    if (more > 0) throw new FuzzError(`memory has grown by ${more} bytes`, first, []);
    const { requests, bytes, operation } = abuser.stores.most;
    kinds.set(`requests at most (${operation})`, requests);
    kinds.set("bytes of one operation at most", bytes);
    return { kinds, heap };
  },
};

/** The image of a seed, mutated. */
export function makeCase(dice: Dice, seeds: readonly Seed[], story: string[]): Case {
  if (seeds.length > 0 && dice.oneIn(4)) {
    const { name, bytes } = dice.pick(seeds);
    const mutant = mutate(bytes, dice);
    story.push(name, ...mutant.story);
    return { bytes: mutant.bytes, dataFile: null, encrypted: false };
  }
  const { bytes, dataFile, encrypted, features } = buildImage(dice);
  const mutant = mutate(bytes, dice);
  if (encrypted) withoutWork(mutant.bytes);
  story.push(...features, ...mutant.story);
  return { bytes: mutant.bytes, dataFile, encrypted };
}
