/**
 * Every kind of qcow2 image, both ways: what the real tools make we read and describe as they do, and
 * what we make they read and find clean; then both write in turn.
 *
 * Here a few rows, of few choices, in which every two meet. MATRIX=7 takes another seed's, MATRIX=pairs
 * those of all choices, MATRIX=all every row that can be; MATRIX_ROW='v3, cluster 512' of them those
 * whose name has that in it.
 */

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { type Random, seededRandom } from "../../src/base/random.ts";
import { hasQemu, openDisk, testGraph } from "../drivers/format/rig.ts";
import { allRows, fewRows, nameOf, pairwise, type Row, reasonAgainst } from "./matrix.ts";
import { expectSame, type Folders, ours, qemuImg, qemuIo, useFolders } from "./rig.ts";
import { asOld } from "./versions.ts";

const SEED = /^[0-9]+$/.test(process.env.MATRIX ?? "") ? Number(process.env.MATRIX) : 1;
const DISK_BYTES = 3 * 2 ** 20 + 512;

const folders = useFolders();
const wanted = rowsOf(process.env.MATRIX);
const rows = wanted.filter((row) => nameOf(row).includes(process.env.MATRIX_ROW ?? ""));

function rowsOf(choice: string | undefined): Row[] {
  if (choice === "all") return allRows();
  return pairwise(choice === "pairs" ? allRows() : fewRows(), seededRandom(SEED));
}

function createOptions(row: Row, dataFile: string): string {
  const { version, cluster, refcountBits, subclusters, compression, lazy } = row;
  return [
    `compat=${version}`,
    `cluster_size=${cluster}`,
    version === "v3" && `refcount_bits=${refcountBits}`,
    subclusters && "extended_l2=on",
    compression === "zstd" && "compression_type=zstd",
    lazy && "lazy_refcounts=on",
    row.dataFile !== "none" && `data_file=${dataFile}`,
    row.dataFile === "raw" && "data_file_raw=on",
  ]
    .filter(Boolean)
    .join(",");
}

/** The image as our tests' own nodes take it. */
function nodeOptions(row: Row, folder: string) {
  const file = (name: string) => ({ driver: "file", filename: join(folder, name) });
  return {
    driver: "qcow2",
    file: file("image"),
    backing: null,
    ...(row.dataFile !== "none" && { "data-file": file("data") }),
  };
}

interface Write {
  readonly offset: number;
  readonly bytes: number;
  readonly kind: "data" | "zero" | "packed";
  readonly fill: number;
}

/** What is written, in order, whoever does it. */
function someWrites(row: Row, random: Random, count: number): Write[] {
  return Array.from({ length: count }, (_, i) => {
    const fill = 1 + random.below(254);
    if (row.compression !== "none" && i % 3 === 2) {
      const clusters = Math.floor(DISK_BYTES / row.cluster);
      const most = Math.min(4, clusters);
      const bytes = row.cluster * (1 + random.below(most));
      const first = random.below(clusters - bytes / row.cluster + 1);
      return { offset: first * row.cluster, bytes, kind: "packed", fill };
    }
    const bytes = 512 * (1 + random.below(300));
    const offset = 512 * random.below((DISK_BYTES - bytes) / 512 + 1);
    return { offset, bytes, kind: random.below(4) === 0 ? "zero" : "data", fill };
  });
}

function apply(model: Uint8Array, { offset, bytes, kind, fill }: Write): void {
  model.fill(kind === "zero" ? 0 : fill, offset, offset + bytes);
}

function theyWrite(path: string, writes: readonly Write[]): void {
  const flag = { data: "-P", packed: "-c -P", zero: "-z" };
  const commands = writes.map(({ offset, bytes, kind, fill }) =>
    kind === "zero"
      ? `write -z ${offset} ${bytes}`
      : `write ${flag[kind]} ${fill} ${offset} ${bytes}`,
  );
  qemuIo(path, "qcow2", ...commands);
}

async function weWrite(row: Row, folder: string, writes: readonly Write[]): Promise<void> {
  const disk = await openDisk(await testGraph(), nodeOptions(row, folder));
  for (const { offset, bytes, kind, fill } of writes) {
    const data = new Uint8Array(bytes).fill(fill);
    if (kind === "zero") await disk.backend.writeZeroes(offset, bytes);
    else if (kind === "data") await disk.backend.write(data, offset);
    else {
      for (let at = 0; at < bytes; at += row.cluster) {
        await disk.backend.writeCompressed(data.subarray(at, at + row.cluster), offset + at);
      }
    }
  }
  await disk.backend.flush();
  await disk.close();
}

/** The real tools find it clean, and read what it should be. */
function expectGood(folder: string, model: Uint8Array): void {
  qemuImg("check", join(folder, "image"));
  const raw = join(folder, "model");
  writeFileSync(raw, model);
  qemuImg("compare", "-f", "qcow2", "-F", "raw", join(folder, "image"), raw);
}

/** Both say the same of the one image, and read the same. */
async function expectAgreed(row: Row, at: Folders, folder: string, model: Uint8Array) {
  const same = async (asSaid: (stdout: string) => string, ...words: string[]) => {
    const image = join(folder, "image");
    expectSame(await at.both(...words, image), asSaid);
  };
  await same((text) => asOld("info", text), "info", "--output=json", "-f", "qcow2");
  await same((text) => asOld("info", text), "info", "-f", "qcow2");
  await same((text) => asOld("map", text), "map", "--output=json", "-f", "qcow2");
  const asIs = (text: string) => text;
  await same(asIs, "measure", "--output=json", "-f", "qcow2", "-O", "qcow2");
  await same(asIs, "measure", "--output=json", "-f", "qcow2", "-O", "raw");
  const words = ["convert", "-f", "qcow2", "-O", "raw", join(folder, "image")];
  const outcome = await ours([...words, join(folder, "read")]);
  expect(outcome).toEqual({ status: 0, stdout: "", stderr: "" });
  writeFileSync(join(folder, "model"), model);
  qemuImg("compare", "-f", "raw", "-F", "raw", join(folder, "read"), join(folder, "model"));
  for (let i = 1; i <= row.snapshots; i++) {
    const snapshot = ["convert", "-l", `s${i}`, ...words.slice(1)];
    expect((await ours([...snapshot, join(folder, "mine")])).stderr).toBe("");
    qemuImg(...snapshot, join(folder, "theirs"));
    qemuImg("compare", "-f", "raw", "-F", "raw", join(folder, "mine"), join(folder, "theirs"));
  }
}

type Run = (...argv: string[]) => unknown;
const real: Run = (...argv) => qemuImg(...argv);
const mine = async (...argv: string[]) => {
  const outcome = await ours(argv);
  expect(outcome.status, `${argv}: ${outcome.stderr}`).toBe(0);
};

/** An image of this kind with a history, made by the one, written to by `write`. */
async function make(
  row: Row,
  folder: string,
  random: Random,
  run: Run,
  write: (writes: readonly Write[]) => Promise<void> | void,
): Promise<Uint8Array> {
  const model = new Uint8Array(DISK_BYTES);
  const image = join(folder, "image");
  const options = createOptions(row, join(folder, "data"));
  await run("create", "-q", "-f", "qcow2", "-o", options, image, String(DISK_BYTES));
  const step = async (count: number) => {
    const writes = someWrites(row, random, count);
    await write(writes);
    for (const one of writes) apply(model, one);
  };
  for (let i = 0; i < row.bitmaps; i++) {
    const state = i === 0 ? [] : ["--disable"];
    await run("bitmap", "--add", ...state, "-g", String(65536 << i), image, `b${i}`);
  }
  await step(5);
  for (let i = 1; i <= row.snapshots; i++) {
    await run("snapshot", "-c", `s${i}`, image);
    await step(3);
  }
  return model;
}

describe.skipIf(!hasQemu)(
  `the matrix of qcow2 images (MATRIX=${process.env.MATRIX ?? SEED})`,
  () => {
    it.each(rows.map((row) => [nameOf(row), row] as const))(
      "%s: theirs is read as they read it",
      async (_name, row) => {
        const at = folders();
        const random = seededRandom(SEED + rows.indexOf(row));
        const model = await make(row, at.real, random, real, (writes) =>
          theyWrite(join(at.real, "image"), writes),
        );
        await expectAgreed(row, at, at.real, model);
      },
    );

    it.each(rows.map((row) => [nameOf(row), row] as const))(
      "%s: ours is clean, and both write in turn",
      async (_name, row) => {
        const at = folders();
        const random = seededRandom(SEED + 1000 + rows.indexOf(row));
        const model = await make(row, at.mine, random, mine, (writes) =>
          weWrite(row, at.mine, writes),
        );
        expectGood(at.mine, model);
        await expectAgreed(row, at, at.mine, model);
        for (const who of ["they", "we", "they"]) {
          const writes = someWrites(row, random, 3);
          if (who === "they") theyWrite(join(at.mine, "image"), writes);
          else await weWrite(row, at.mine, writes);
          for (const one of writes) apply(model, one);
          expectGood(at.mine, model);
        }
        await expectAgreed(row, at, at.mine, model);
      },
    );

    it("leaves out only what cannot be, as the real tool says", () => {
      const at = folders();
      const usual = allRows()[0]!;
      for (const other of [
        { version: "v2", refcountBits: 8 },
        { version: "v2", subclusters: true },
        { version: "v2", compression: "zstd" },
        { version: "v2", dataFile: "plain" },
        { version: "v2", lazy: true },
        { subclusters: true, cluster: 4096 },
      ] as const) {
        const row = { ...usual, ...other } as Row;
        expect(reasonAgainst(row)).not.toBeNull();
        const options = createOptions(row, join(at.real, "data")).replace(
          "compat=v2",
          `compat=v2,refcount_bits=${row.refcountBits}`,
        );
        const words = ["create", "-q", "-f", "qcow2", "-o", options, join(at.real, "image"), "1M"];
        expect(() => qemuImg(...words), JSON.stringify(other)).toThrow();
      }
    });
  },
);
