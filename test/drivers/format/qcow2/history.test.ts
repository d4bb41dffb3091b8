import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { KiB, MiB } from "../../../../src/base/bytes.ts";
import { BlockError } from "../../../../src/base/errors.ts";
import { type Random, seededRandom } from "../../../../src/base/random.ts";
import { Model, perform, randomChange } from "../model.ts";
import {
  type Disk,
  firstDifference,
  hasQemu,
  openDisk,
  qemuCheck,
  qemuImg,
  qemuIo,
  qemuRaw,
  readAll,
  testFolder,
  testGraph,
} from "../rig.ts";

/**
 * Long lives of images, at random: everything that can be done to a disk, against plain bytes, with a
 * check by qemu-img after each round, and rounds in which qemu-io writes in between. More of them:
 *
 *     BLOCKTAB_HISTORIES=200 BLOCKTAB_HISTORY_SEED=7 npx vitest run --project node …/history.test.ts
 */
const HISTORIES = Number(process.env["BLOCKTAB_HISTORIES"] ?? 6);
const FIRST_SEED = Number(process.env["BLOCKTAB_HISTORY_SEED"] ?? 1);
const ROUNDS = 4;
const CHANGES = 18;
const MOST_BYTES = 3 * MiB;

const folder = testFolder();

interface Shape {
  readonly options: string;
  readonly clusterBytes: number;
  readonly version: 2 | 3;
  readonly dataFile: boolean;
}

function randomShape(random: Random): Shape {
  const pick = <T>(list: readonly T[]): T => list[random.below(list.length)]!;
  const clusterBytes = pick([512, 1024, 4096, 65536, 65536, 262144]);
  const version = random.below(4) === 0 ? 2 : 3;
  const options = [`cluster_size=${clusterBytes}`, `compat=${version === 2 ? "v2" : "v3"}`];
  let dataFile = false;
  if (version === 3) {
    options.push(`refcount_bits=${pick([1, 2, 4, 8, 16, 16, 32, 64])}`);
    if (clusterBytes >= 16384 && random.below(2)) options.push("extended_l2=on");
    if (random.below(4) === 0) {
      dataFile = true;
      options.push("data_file=h.data", `data_file_raw=${pick(["on", "off"])}`);
    }
    if (random.below(4) === 0) options.push("lazy_refcounts=on");
  }
  return { options: options.join(","), clusterBytes, version, dataFile };
}

async function open({ dataFile }: Shape): Promise<Disk> {
  const file = (name: string) => ({ driver: "file", filename: join(folder, name) });
  return openDisk(await testGraph(), {
    driver: "qcow2",
    file: file("h.qcow2"),
    backing: null,
    ...(dataFile && { "data-file": file("h.data") }),
  });
}

/** One image and what is known of it. */
class History {
  readonly #random: Random;
  readonly #shape: Shape;
  readonly #snapshots = new Map<string, Uint8Array>();
  #model: Model;
  #disk: Disk;
  #tags = 0;
  /** For whoever reads of a failure. */
  readonly steps: string[] = [];

  constructor(random: Random, shape: Shape, disk: Disk) {
    this.#random = random;
    this.#shape = shape;
    this.#disk = disk;
    this.#model = new Model(new Uint8Array(disk.backend.length));
  }

  async round(changes: number): Promise<void> {
    for (let i = 0; i < changes; i++) {
      const dice = this.#random.below(20);
      if (dice === 0) await this.#resize();
      else if (dice <= 2) await this.#snapshot();
      else if (dice === 3) await this.#reopen();
      else await this.#change();
    }
    await this.#compare();
  }

  /** qemu-img's check, its idea of the bytes, and some writes by qemu-io. */
  async judge(): Promise<void> {
    await this.#disk.close();
    const check = qemuCheck(folder, "h.qcow2");
    expect(check.status, check.text).toBe(0);
    this.#expectSame(qemuRaw(folder, "h.qcow2"), "QEMU reads");
    const length = this.#model.bytes.length;
    const sector = 512 * this.#random.below(length / 512);
    const bytes = Math.min(length - sector, 512 * (1 + this.#random.below(200)));
    const fill = 1 + this.#random.below(255);
    this.steps.push(`QEMU writes ${bytes} at ${sector}`);
    const zero = 512 * this.#random.below(length / 512);
    qemuIo(
      folder,
      "h.qcow2",
      `write -P ${fill} ${sector} ${bytes}`,
      `write -z -u ${zero} ${Math.min(length - zero, 100 * KiB)}`,
    );
    this.#model.bytes.fill(fill, sector, sector + bytes);
    this.#model.bytes.fill(0, zero, Math.min(length, zero + 100 * KiB));
    this.#disk = await open(this.#shape);
    await this.#compare();
  }

  async end(): Promise<void> {
    await this.#disk.close();
    const check = qemuCheck(folder, "h.qcow2");
    expect(check.status, check.text).toBe(0);
    if (!this.#shape.options.includes("data_file_raw=on")) return;
    // With extended L2 entries QEMU sets aside without writing: what is zero there may be anything.
    if (this.#shape.options.includes("extended_l2")) return;
    const data = new Uint8Array(readFileSync(join(folder, "h.data")));
    this.#expectSame(data, "the data file alone reads");
  }

  async #change(): Promise<void> {
    const { clusterBytes, dataFile } = this.#shape;
    const change = randomChange(this.#random, {
      length: this.#model.bytes.length,
      clusterBytes,
      packed: !dataFile,
    });
    this.steps.push(`${change.kind} ${change.bytes} at ${change.offset}`);
    await perform(this.#disk.backend, change);
    this.#model.apply(change);
    if (change.kind === "discard") this.#model.settle(await readAll(this.#disk));
  }

  async #resize(): Promise<void> {
    const length = 512 * (1 + this.#random.below(MOST_BYTES / 512));
    const mode = this.#random.below(3) === 0 ? "metadata" : "off";
    const grows = length > this.#model.bytes.length;
    this.steps.push(`resize to ${length} (${mode})`);
    const options = grows ? ({ preallocation: mode } as const) : {};
    const refused = await this.#refusal(this.#disk.backend.truncate(length, options));
    if (refused) {
      expect([this.#shape.version, this.#snapshots.size > 0]).toEqual([2, true]);
      return;
    }
    const bytes = new Uint8Array(length);
    bytes.set(this.#model.bytes.subarray(0, length));
    this.#model = new Model(bytes);
  }

  async #snapshot(): Promise<void> {
    const store = this.#disk.node.state.snapshots!;
    const list = [...this.#snapshots.keys()];
    const tag = list[this.#random.below(list.length + 1)];
    if (tag === undefined) {
      const name = `t${this.#tags++}`;
      this.steps.push(`snapshot ${name}`);
      const refused = await this.#refusal(store.create(name, { seconds: 1, nanoseconds: 0 }));
      // No place for more references, or for any snapshot.
      if (refused) expect(["EFBIG", "ENOTSUP"]).toContain(refused.errno);
      else this.#snapshots.set(name, this.#model.bytes.slice());
      return;
    }
    const { id } = store.list().find(({ name }) => name === tag)!;
    if (this.#random.below(2)) {
      this.steps.push(`delete ${tag}`);
      await store.delete(id);
      this.#snapshots.delete(tag);
      return;
    }
    this.steps.push(`apply ${tag}`);
    const refused = await this.#refusal(store.apply(id));
    if (refused) expect(["EFBIG", "ENOTSUP"]).toContain(refused.errno);
    else this.#model = new Model(this.#snapshots.get(tag)!);
  }

  async #reopen(): Promise<void> {
    this.steps.push("reopen");
    await this.#disk.close();
    this.#disk = await open(this.#shape);
  }

  async #refusal(work: Promise<unknown>): Promise<BlockError | null> {
    try {
      await work;
      return null;
    } catch (error) {
      if (error instanceof BlockError) return error;
      throw error;
    }
  }

  async #compare(): Promise<void> {
    this.#expectSame(await readAll(this.#disk), "we read");
  }

  #expectSame(seen: Uint8Array, who: string): void {
    expect(seen.length, `length that ${who}`).toBe(this.#model.bytes.length);
    expect(firstDifference(seen, this.#model.bytes), `first wrong byte ${who}`).toBe(-1);
  }
}

describe.skipIf(!hasQemu)("an image's life, whatever is done to it", () => {
  const seeds = Array.from({ length: HISTORIES }, (_, i) => FIRST_SEED + i);
  it.each(seeds)("is that of a plain disk, and clean for qemu-img: seed %i", async (seed) => {
    const random = seededRandom(seed);
    const shape = randomShape(random);
    const size = 512 * (1 + random.below(MOST_BYTES / 512));
    const create = ["create", "-q", "-f", "qcow2", "-o", shape.options, "h.qcow2"];
    qemuImg(folder, ...create, String(size));
    const history = new History(random, shape, await open(shape));
    try {
      for (let round = 0; round < ROUNDS; round++) {
        await history.round(CHANGES);
        await history.judge();
      }
      await history.end();
    } catch (error) {
      const told = `seed ${seed}, ${shape.options}, ${size} bytes\n${history.steps.join("\n")}`;
      throw new Error(`${told}\n${(error as Error).message}`, { cause: error });
    }
  });
});
