/**
 * Images before and after a run, both by the real qemu-img and qemu-io.
 *
 * An image is made once, and copied for each daemon, so that all start from the same bytes, and for each
 * script that wants the same.
 * Afterwards an image is told by what a user can see of it: header, map, check, and the SHA-256 of
 * the disk. Where in the file a cluster lies is not compared: requests that are under way together
 * may be served in any order.
 */

import { createHash } from "node:crypto";
import { copyFile, cp, mkdtemp, readdir, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Shells } from "../shells.ts";
import type { Entry, Json } from "./transcript.ts";

export interface ImageSpec {
  readonly format?: "qcow2" | "raw";
  /** "4M" unless said. */
  readonly size?: string;
  /** Name of another image of the script, which is a qcow2 unless `backingFormat` says so. */
  readonly backing?: string;
  readonly backingFormat?: "qcow2" | "raw";
  /** `qemu-img create -o`. */
  readonly options?: string;
  /** qemu-io commands, without the "write": "-P 1 0 64k", "-z 1M 64k". */
  readonly writes?: readonly string[];
  /** `qemu-img bitmap --add` for each, with its options: "b0", "-g 32k b0". */
  readonly bitmaps?: readonly string[];
  /** `qemu-img snapshot -c` for each, after the writes. */
  readonly snapshots?: readonly string[];
}

/** As many scripts as Vitest has under way at once. */
const SHELLS = 5;

/** Images by all that they are made of, each made once; in a folder of its own, with those below it. */
export class ImageStock {
  readonly #root = mkdtemp(join(tmpdir(), "blocktab-images-"));
  readonly #made = new Map<string, Promise<string>>();
  readonly shells = new Shells(SHELLS);

  /**
   * @param recipe what the image and those below it are made of
   * @param below the recipe of its backing file, which has been made
   * @returns the folder that the image is in, under its name
   */
  make(recipe: string, name: string, spec: ImageSpec, below: string | undefined): Promise<string> {
    const made = this.#made.get(recipe) ?? this.#make(name, spec, below);
    this.#made.set(recipe, made);
    return made;
  }

  async end(): Promise<void> {
    await this.shells.end();
    await rm(await this.#root, { recursive: true });
  }

  async #make(name: string, spec: ImageSpec, below: string | undefined): Promise<string> {
    const { format = "qcow2", size = "4M", backing, backingFormat = "qcow2" } = spec;
    const cwd = await mkdtemp(join(await this.#root, "made-"));
    const belowFolder = below === undefined ? undefined : await this.#made.get(below);
    if (belowFolder !== undefined) await cp(belowFolder, cwd, { recursive: true });
    const base = backing === undefined ? [] : ["-b", backing, "-F", backingFormat];
    const options = spec.options === undefined ? [] : ["-o", spec.options];
    const run = async (...words: string[]) => {
      const { status, text } = await this.shells.run(cwd, ...words);
      if (status !== 0) throw new Error(`${words.join(" ")}: ${text}`);
    };
    await run("qemu-img", "create", "-q", "-f", format, ...base, ...options, name, size);
    const writes = (spec.writes ?? []).flatMap((write) => ["-c", `write -q ${write}`]);
    if (writes.length > 0) await run("qemu-io", "-f", format, ...writes, name);
    for (const bitmap of spec.bitmaps ?? []) {
      const words = bitmap.split(" ");
      const own = words.pop()!;
      await run("qemu-img", "bitmap", "--add", ...words, name, own);
    }
    for (const snapshot of spec.snapshots ?? []) {
      await run("qemu-img", "snapshot", "-c", snapshot, name);
    }
    return cwd;
  }
}

/** The images of one script: puts them where they are wanted. Within it a name must stand for one image. */
export class ImageMaker {
  readonly #stock: ImageStock;
  readonly #recipes = new Map<string, string>();

  constructor(stock: ImageStock) {
    this.#stock = stock;
  }

  /** Puts image `name` into `folder`. */
  async copy(name: string, spec: ImageSpec, folder: string): Promise<void> {
    const below = spec.backing === undefined ? undefined : this.#recipes.get(spec.backing);
    const recipe = this.#recipes.get(name) ?? JSON.stringify([name, spec, below]);
    this.#recipes.set(name, recipe);
    const made = await this.#stock.make(recipe, name, spec, below);
    await copyFile(join(made, name), join(folder, name));
  }

  /** All that lies in the folder of a run, by name. */
  async describe(folder: string): Promise<Entry[]> {
    const entries: Entry[] = [];
    for (const name of (await readdir(folder)).sort()) {
      if (!(await stat(join(folder, name))).isFile()) continue;
      const known = described.get(await digest(join(folder, name)));
      const body = known ?? (await describe(this.#stock.shells, folder, name));
      entries.push({ kind: "image", about: name, body });
    }
    return entries;
  }
}

/** Whoever has the same bytes is the same image, unless it has a backing file. */
const described = new Map<string, Json>();

async function digest(path: string): Promise<string> {
  return createHash("sha256")
    .update(await readFile(path))
    .digest("hex");
}

async function describe(shells: Shells, folder: string, name: string): Promise<Json> {
  const ask = async (command: string): Promise<unknown> => {
    const { text } = await shells.runQuietly(folder, "qemu-img", command, "--output=json", name);
    return JSON.parse(text || "null");
  };
  const info = (await ask("info")) as Info | null;
  if (info === null) return "not an image that qemu-img can open";
  const check = info.format === "raw" ? {} : ((await ask("check")) as Record<string, Json>);
  const { format, "virtual-size": size, "backing-filename": backing } = info;
  const body: Json = {
    format,
    size,
    ...(info["cluster-size"] && { "cluster-size": info["cluster-size"] }),
    ...(backing !== undefined && {
      backing,
      "backing-format": info["backing-filename-format"] ?? null,
    }),
    ...(info.snapshots && {
      snapshots: info.snapshots.map(({ id, name: tag }) => `${id} ${tag}`),
    }),
    ...(info["format-specific"] && { specific: info["format-specific"].data }),
    check: Object.fromEntries(
      Object.entries(check ?? {}).filter(([member]) => FINDINGS.includes(member)),
    ),
    // Where a raw file has holes is up to the file system.
    ...(info.format !== "raw" && { map: compact((await ask("map")) as Run[] | null) }),
    sha256: await contentDigest(shells, folder, name, format),
  };
  if (backing === undefined) described.set(await digest(join(folder, name)), body);
  return body;
}

const FINDINGS = ["corruptions", "leaks", "check-errors"];

interface Info {
  readonly format: string;
  readonly "virtual-size": number;
  readonly "cluster-size"?: number;
  readonly "backing-filename"?: string;
  readonly "backing-filename-format"?: string;
  readonly snapshots?: readonly { readonly id: string; readonly name: string }[];
  readonly "format-specific"?: { readonly data: Json };
}

interface Run {
  readonly start: number;
  readonly length: number;
  readonly depth: number;
  readonly zero: boolean;
  readonly data: boolean;
}

/** "0+65536 data": start, length, and what there is in the image itself; the places in the file go. */
function compact(runs: readonly Run[] | null): Json {
  const lines: { start: number; length: number; what: string }[] = [];
  for (const { start, length, depth, zero, data } of runs ?? []) {
    const own = `${data ? "data" : "no data"}${zero ? ", zero" : ""}`;
    const what = depth > 0 ? `${depth} below` : own;
    const last = lines.at(-1);
    if (last?.what === what) last.length += length;
    else lines.push({ start, length, what });
  }
  return lines.map(({ start, length, what }) => `${start}+${length} ${what}`);
}

async function contentDigest(
  shells: Shells,
  folder: string,
  name: string,
  format: string,
): Promise<string> {
  if (format === "raw") return digest(join(folder, name));
  const copy = join(folder, `${name}.content`);
  const convert = ["qemu-img", "convert", "-f", format, "-O", "raw", name, copy];
  try {
    const { status } = await shells.runQuietly(folder, ...convert);
    return status === 0 ? await digest(copy) : "unreadable";
  } finally {
    await rm(copy, { force: true });
  }
}
