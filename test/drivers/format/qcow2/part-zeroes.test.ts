/** Zeroes written to a part of a cluster, next to the real one: the same clusters hold data afterwards. */

import { copyFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { KiB } from "../../../../src/base/bytes.ts";
import { type Random, seededRandom } from "../../../../src/base/random.ts";
import {
  chainOptions,
  type Disk,
  firstDifference,
  hasQemu,
  openDisk,
  qemuCheck,
  qemuImg,
  qemuIo,
  qemuRaw,
  testFolder,
  testGraph,
} from "../rig.ts";

const folder = testFolder();
const CLUSTER = 4 * KiB;
const CLUSTERS = 32;
/** Ends amid a cluster. */
const LENGTH = CLUSTERS * CLUSTER + 512;
const SECTORS = LENGTH / 512;
const ROUNDS = 6;
const SEED = 1;

interface Change {
  readonly kind: "data" | "zeroes" | "unmap";
  readonly offset: number;
  readonly bytes: number;
}

function randomChange(random: Random): Change {
  const first = random.below(SECTORS);
  const sectors = 1 + random.below(Math.min(SECTORS - first, 20));
  const kind = (["data", "zeroes", "zeroes", "unmap"] as const)[random.below(4)]!;
  return { kind, offset: first * 512, bytes: sectors * 512 };
}

async function ours({ backend }: Disk, { kind, offset, bytes }: Change): Promise<void> {
  if (kind === "data") return backend.write(new Uint8Array(bytes).fill(9), offset);
  await backend.writeZeroes(offset, bytes, { mayUnmap: kind === "unmap" });
}

function theirs({ kind, offset, bytes }: Change): string {
  const how = { data: "-P 9", zeroes: "-z", unmap: "-z -u" }[kind];
  return `write ${how} ${offset} ${bytes}`;
}

/** For each sector in which layer it is, and whether there is data. */
function sectorsOf(image: string): string[] {
  const runs = JSON.parse(qemuImg(folder, "map", "--output=json", image)) as {
    readonly length: number;
    readonly depth: number;
    readonly present: boolean;
    readonly data: boolean;
  }[];
  const sectors: string[] = [];
  for (const { length, depth, present, data } of runs) {
    for (let at = 0; at < length; at += 512) sectors.push(`${depth} ${present} ${data}`);
  }
  return sectors;
}

/** Where there is data, there are whole clusters of it; it ends amid one. */
function makeBase(): void {
  qemuImg(folder, "create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", "base", "98816");
  for (const at of [1, 2, 5, 9, 10, 11, 17, 23]) {
    qemuIo(folder, "base", `write -P 5 ${at * CLUSTER} ${CLUSTER}`);
  }
}

for (const [name, options, isOverlay] of [
  ["without a backing file", "compat=1.1", false],
  ["over a backing file", "compat=1.1", true],
  ["in version 2", "compat=0.10", false],
  ["in version 2 over a backing file", "compat=0.10", true],
] as const) {
  it.runIf(hasQemu)(`takes as much room as the real one's ${name} (seed ${SEED})`, async () => {
    const random = seededRandom(SEED);
    makeBase();
    const backing = isOverlay ? ["-b", "base", "-F", "qcow2"] : [];
    const made = ["-o", `cluster_size=4k,${options}`, ...backing, "real", `${LENGTH}`];
    qemuImg(folder, "create", "-q", "-f", "qcow2", ...made);
    copyFileSync(join(folder, "real"), join(folder, "mine"));
    const chain = chainOptions(folder, isOverlay ? ["mine", "base"] : ["mine"]);
    for (let i = 0; i < ROUNDS; i++) {
      const changes = Array.from({ length: 8 }, () => randomChange(random));
      const disk = await openDisk(await testGraph(), chain);
      for (const change of changes) await ours(disk, change);
      await disk.close();
      qemuIo(folder, "real", ...changes.map(theirs));
      const where = `round ${i}: ${JSON.stringify(changes)}`;
      expect(sectorsOf("mine"), where).toEqual(sectorsOf("real"));
    }
    expect(firstDifference(qemuRaw(folder, "mine"), qemuRaw(folder, "real"))).toBe(-1);
    expect(qemuCheck(folder, "mine").status).toBe(0);
  });
}
