/**
 * Every kind of qcow2 image, both ways: what the real tools make we read and describe as they do, and
 * what we make they read and find clean; then both write in turn.
 *
 * Here a few rows, of few choices, in which every two meet. MATRIX=7 takes another seed's, MATRIX=pairs
 * those of all choices, MATRIX=all every row that can be; MATRIX_ROW='v3, cluster 512' of them those
 * whose name has that in it.
 */

import { existsSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { type Random, seededRandom } from "../../src/base/random.ts";
import { hasQemu, openDisk, testGraph } from "../drivers/format/rig.ts";
import { run, runWell } from "../spawn.ts";
import { allRows, fewRows, nameOf, pairwise, type Row, reasonAgainst } from "./matrix.ts";
import { expectSame, type Folders, ours, qemuImg, useFolders } from "./rig.ts";
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
    row.luks && "encrypt.format=luks,encrypt.key-secret=s0,encrypt.iter-time=10",
  ]
    .filter(Boolean)
    .join(",");
}

const PASSPHRASE = "open sesame";
const SECRET = ["--object", `secret,id=s0,data=${PASSPHRASE}`];

/** How a command line names the image, and who opens it has the key. */
function named(row: Row, folder: string): string[] {
  const image = join(folder, "image");
  if (!row.luks) return ["-f", "qcow2", image];
  const options = `driver=qcow2,encrypt.key-secret=s0,file.driver=file,file.filename=${image}`;
  return [...SECRET, "--image-opts", options];
}

/** The image as our tests' own nodes take it. */
function nodeOptions(row: Row, folder: string) {
  const file = (name: string) => ({ driver: "file", filename: join(folder, name) });
  return {
    driver: "qcow2",
    file: file("image"),
    backing: null,
    ...(row.dataFile !== "none" && { "data-file": file("data") }),
    ...(row.luks && { encrypt: { format: "luks", "key-secret": "s0" } }),
  };
}

interface Write {
  readonly offset: number;
  readonly bytes: number;
  readonly kind: "data" | "zero" | "packed";
  readonly fill: number;
}

/** Clusters that have been written to: the real tool packs none of those again. */
type Touched = Set<number>;

/** What is written, in order, whoever does it. */
function someWrites(row: Row, random: Random, count: number, touched: Touched): Write[] {
  return Array.from({ length: count }, (_, i) => {
    const write =
      row.compression !== "none" && i % 3 === 2
        ? packedWrite(row, random, touched)
        : plainWrite(random);
    for (let at = write.offset; at < write.offset + write.bytes; at += 512) {
      touched.add(Math.floor(at / row.cluster));
    }
    return write;
  });
}

function plainWrite(random: Random): Write {
  const bytes = 512 * (1 + random.below(300));
  const offset = 512 * random.below((DISK_BYTES - bytes) / 512 + 1);
  const kind = random.below(4) === 0 ? "zero" : "data";
  return { offset, bytes, kind, fill: 1 + random.below(254) };
}

function packedWrite({ cluster }: Row, random: Random, touched: Touched): Write {
  const whole = Math.floor(DISK_BYTES / cluster);
  const free = Array.from({ length: whole }, (_, i) => i).filter((i) => !touched.has(i));
  const first = free[random.below(Math.max(1, free.length))];
  if (first === undefined) return plainWrite(random);
  const most = 1 + random.below(3);
  let count = 1;
  while (count < most && free.includes(first + count)) count++;
  const place = { offset: first * cluster, bytes: count * cluster };
  return { ...place, kind: "packed", fill: 1 + random.below(254) };
}

function apply(model: Uint8Array, { offset, bytes, kind, fill }: Write): void {
  model.fill(kind === "zero" ? 0 : fill, offset, offset + bytes);
}

function theyWrite(row: Row, folder: string, writes: readonly Write[]): void {
  const flag = { data: "-P", packed: "-c -P", zero: "-z" };
  const commands = writes.map(({ offset, bytes, kind, fill }) =>
    kind === "zero"
      ? `write -z ${offset} ${bytes}`
      : `write ${flag[kind]} ${fill} ${offset} ${bytes}`,
  );
  const argv = [...commands.flatMap((command) => ["-c", command]), ...named(row, folder)];
  const { status, stdout, stderr } = run("qemu-io", argv);
  expect(status, `qemu-io ${argv.join(" ")}: ${stdout}${stderr}`).toBe(0);
}

async function weWrite(row: Row, folder: string, writes: readonly Write[]): Promise<void> {
  const graph = await testGraph();
  if (row.luks) graph.secrets.add("s0", new TextEncoder().encode(PASSPHRASE));
  const disk = await openDisk(graph, nodeOptions(row, folder));
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
function expectGood(row: Row, folder: string, model: Uint8Array): void {
  qemuImg("check", ...named(row, folder));
  const raw = join(folder, "model");
  writeFileSync(raw, model);
  if (!row.luks) qemuImg("compare", "-F", "raw", ...named(row, folder), raw);
  else
    qemuImg("compare", ...named(row, folder), `driver=raw,file.driver=file,file.filename=${raw}`);
}

/** Both say the same of the one image, and read the same. */
async function expectAgreed(row: Row, at: Folders, folder: string, model: Uint8Array) {
  // An image that is named by options is called by them; QEMU writes them out again in its own way.
  const plain = (text: string) => text.replace(/"filename": ".*",?\n/, row.luks ? "" : "$&");
  const same = async (...words: string[]) => {
    const { ours: our, theirs: their } = await at.both(...words, ...named(row, folder));
    expectSame({ ours: our, theirs: { ...their, stdout: plain(their.stdout) } }, plain);
  };
  const image = join(folder, "image");
  const info = (text: string) => asOld("info", text);
  // What an image says of itself it says without a key.
  expectSame(await at.both("info", "--output=json", "-f", "qcow2", image), info);
  expectSame(await at.both("info", "-f", "qcow2", image), info);
  fillHoles(folder);
  const map = (text: string) => asOld("map", text);
  expectSame(await at.both("map", "--output=json", ...named(row, folder)), map);
  await same("check", "--output=json");
  await same("measure", "--output=json", "-O", "qcow2");
  await same("measure", "--output=json", "-O", "raw");
  const words = ["convert", "-O", "raw", ...named(row, folder)];
  const outcome = await ours([...words, join(folder, "read")]);
  expect(outcome).toEqual({ status: 0, stdout: "", stderr: "" });
  // What nobody has written of a raw data file is zeroes there, and noise when it is decrypted.
  if (row.luks && row.dataFile === "raw") qemuImg(...words, join(folder, "model"));
  else writeFileSync(join(folder, "model"), model);
  qemuImg("compare", "-f", "raw", "-F", "raw", join(folder, "read"), join(folder, "model"));
  for (let i = 1; i <= row.snapshots; i++) {
    const snapshot = ["convert", "-l", `s${i}`, ...words.slice(1)];
    expect((await ours([...snapshot, join(folder, "mine")])).stderr).toBe("");
    qemuImg(...snapshot, join(folder, "theirs"));
    qemuImg("compare", "-f", "raw", "-F", "raw", join(folder, "mine"), join(folder, "theirs"));
  }
}

/**
 * Where a cluster has been written in part its file may have holes. QEMU finds them in an image that looks
 * preallocated, and in a raw data file, and tells them; on Node there is no call that does.
 */
function fillHoles(folder: string): void {
  for (const name of ["image", "data"].filter((one) => existsSync(join(folder, one)))) {
    runWell("cp", ["--sparse=never", join(folder, name), join(folder, "filled")]);
    renameSync(join(folder, "filled"), join(folder, name));
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
): Promise<{ model: Uint8Array; touched: Touched }> {
  const model = new Uint8Array(DISK_BYTES);
  const touched: Touched = new Set();
  const image = join(folder, "image");
  const options = createOptions(row, join(folder, "data"));
  const secret = row.luks ? SECRET : [];
  await run("create", "-q", ...secret, "-f", "qcow2", "-o", options, image, String(DISK_BYTES));
  const step = async (count: number) => {
    const writes = someWrites(row, random, count, touched);
    await write(writes);
    for (const one of writes) apply(model, one);
  };
  for (let i = 0; i < row.bitmaps; i++) {
    const state = i === 0 ? [] : ["--disable"];
    await run(
      "bitmap",
      "--add",
      ...state,
      "-g",
      String(65536 << i),
      ...named(row, folder),
      `b${i}`,
    );
  }
  await step(5);
  for (let i = 1; i <= row.snapshots; i++) {
    await run("snapshot", "-c", `s${i}`, ...(row.luks ? named(row, folder) : [image]));
    await step(3);
  }
  return { model, touched };
}

describe.skipIf(!hasQemu)(
  `the matrix of qcow2 images (MATRIX=${process.env.MATRIX ?? SEED})`,
  () => {
    it.each(rows.map((row) => [nameOf(row), row] as const))(
      "%s: theirs is read as they read it",
      async (_name, row) => {
        const at = folders();
        const random = seededRandom(SEED + rows.indexOf(row));
        const { model } = await make(row, at.real, random, real, (writes) =>
          theyWrite(row, at.real, writes),
        );
        await expectAgreed(row, at, at.real, model);
      },
    );

    it.each(rows.map((row) => [nameOf(row), row] as const))(
      "%s: ours is clean, and both write in turn",
      async (_name, row) => {
        const at = folders();
        const random = seededRandom(SEED + 1000 + rows.indexOf(row));
        const { model, touched } = await make(row, at.mine, random, mine, (writes) =>
          weWrite(row, at.mine, writes),
        );
        expectGood(row, at.mine, model);
        await expectAgreed(row, at, at.mine, model);
        for (const who of ["they", "we", "they"]) {
          const writes = someWrites(row, random, 3, touched);
          if (who === "they") theyWrite(row, at.mine, writes);
          else await weWrite(row, at.mine, writes);
          for (const one of writes) apply(model, one);
          expectGood(row, at.mine, model);
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
