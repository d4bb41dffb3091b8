/**
 * Whether what a crash has left is what was promised:
 *
 *   - each image opens, and our check and the real qemu-img's agree that it is clean or leaks
 *   - each sector that was flushed reads as its data, each other one as before or after
 *   - repaired by us it is clean, for both, and reads the same
 *   - for a sample, the real qemu-img reads the same bytes as we do, and finds our repairs clean
 */

import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { BlockError } from "../../src/base/errors.ts";
import type { CheckResult } from "../../src/block/check.ts";
import type { World } from "../../src/block/driver.ts";
import type { BlockNode } from "../../src/block/node.ts";
import type { Shells } from "../shells.ts";
import { idsOf } from "./content.ts";
import type { Files } from "./log.ts";
import { Look, type Read, readIds } from "./look.ts";
import { type Cut, isLocked, SECRET, type Trial } from "./trial.ts";

const LEAKS = 3;
/** One in so many distinct states is read by the real qemu-img, and checked whatever it is like. */
const SAMPLE = 16;

export interface Counts {
  /** States of files that differ from all others of their trial. */
  distinct: number;
  leaky: number;
  /** Checks of the real qemu-img. */
  checked: number;
  /** Also read by it. */
  sampled: number;
}

interface Checked {
  /** Of the image. */
  readonly name: string;
  readonly result: CheckResult;
  /** What our check has read: equal where nothing but guests' data differs. */
  readonly read: string;
}

/** Judges the states of one trial. */
export class Judge {
  readonly counts: Counts = { distinct: 0, leaky: 0, checked: 0, sampled: 0 };
  readonly #world: World;
  readonly #trial: Trial;
  readonly #shells: Shells;
  readonly #folder: string;
  /** By state and root: what the disk reads as. */
  readonly #read = new Map<string, Read>();
  readonly #seen = new Set<string>();
  /** Files that have been checked, and are on their way to be found sound. */
  readonly #sound = new Set<string>();
  /** What our check has read of those that the real one has checked, too. */
  readonly #asked = new Set<string>();

  constructor(world: World, trial: Trial, shells: Shells, folder: string) {
    this.#world = world;
    this.#trial = trial;
    this.#shells = shells;
    this.#folder = folder;
  }

  /** What is wrong with a state, or "". */
  async wrong(files: Files, cut: Cut): Promise<string> {
    try {
      const hash = hashOf(files);
      const expected = this.#trial.guest.after(cut);
      const root = expected.root ?? this.#trial.root;
      const { ids, bytes } = await this.#readOnce(`${hash} ${root}`, files, root);
      const problem = expected.wrong(ids, bytes) || (await this.#claims(files, root, ids, cut));
      if (problem) return problem;
      if (this.#seen.has(hash)) return "";
      this.#seen.add(hash);
      return await this.#soundness(files, root, ids);
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
      return `${error.errno}: ${error.message}`;
    }
  }

  async #readOnce(key: string, files: Files, root: string): Promise<Read> {
    const before = this.#read.get(key);
    if (before) return before;
    const look = new Look(this.#world, files);
    const node = await look.open(root);
    const read = await readIds(node);
    await look.close(node);
    this.#read.set(key, read);
    return read;
  }

  async #claims(files: Files, root: string, ids: Int32Array, cut: Cut): Promise<string> {
    const { claims } = this.#trial;
    if (claims.length === 0) return "";
    const using = async <T>(readOnly: boolean, use: (node: BlockNode) => Promise<T>) => {
      const look = new Look(this.#world, files);
      const node = await look.open(root, readOnly);
      const result = await use(node);
      await look.close(node);
      return result;
    };
    return using(true, async (node) => {
      for (const claim of claims) {
        const problem = await claim({ node, ids, cut, again: (use) => using(false, use) });
        if (problem) return problem;
      }
      return "";
    });
  }

  async #soundness(files: Files, root: string, ids: Int32Array): Promise<string> {
    const number = this.counts.distinct++;
    const isSampled = number % SAMPLE === 0;
    if (isSampled) this.counts.sampled++;
    const checks = await this.#checks(files);
    const bad = checks.find(({ result }) => unsound(result) !== "");
    if (bad) return `check of '${bad.name}': ${told(bad.result)}`;
    const leaks = checks.some(({ result }) => result.leaks > 0);
    if (leaks) this.counts.leaky++;
    const folder = join(this.#folder, `state${number}`);
    if (leaks) {
      const problem = await this.#mended(files, root, ids, isSampled ? `${folder}-mended` : "");
      if (problem) return problem;
    }
    const news = checks.filter(({ read }) => isSampled || !this.#asked.has(read));
    if (news.length === 0) return "";
    for (const { read } of news) this.#asked.add(read);
    writeState(folder, files);
    try {
      for (const { name, result } of news) {
        const problem = await this.#disagrees(folder, name, result);
        if (problem) return `check of '${name}': ${problem}`;
      }
      return isSampled ? await this.#asQemuReads(folder, root, ids) : "";
    } finally {
      rmSync(folder, { recursive: true });
    }
  }

  /** Of the images whose files have not been checked yet. */
  async #checks(files: Files): Promise<Checked[]> {
    const checks: Checked[] = [];
    for (const name of this.#trial.images) {
      const hash = `${name} ${hashOf(new Map([["", files.get(name)!]]))}`;
      if (this.#sound.has(hash)) continue;
      this.#sound.add(hash);
      checks.push({ name, ...(await new Look(this.#world, files).checkReading(name)) });
    }
    return checks;
  }

  /** The real qemu-img has the same counts. */
  async #disagrees(folder: string, name: string, ours: CheckResult): Promise<string> {
    const args = ["check", "--output=json", ...sourceOf(name)];
    const { status, text } = await this.#shells.run(folder, "qemu-img", ...args);
    this.counts.checked++;
    const wanted = ours.leaks > 0 ? LEAKS : 0;
    // Behind what it says of each cluster.
    const json = text.slice(text.indexOf("{\n"));
    const theirs = status === wanted ? (JSON.parse(json) as Partial<CheckResult>) : null;
    if (theirs && (theirs.leaks ?? 0) === ours.leaks) return "";
    return `${ours.leaks} leaks here; qemu-img ends with ${status}:\n${text}`;
  }

  /** Repaired by us each image is clean, and the disk reads the same. @param folder for QEMU, or "" */
  async #mended(files: Files, root: string, ids: Int32Array, folder: string): Promise<string> {
    const look = new Look(this.#world, files);
    for (const name of this.#trial.images) {
      const after = await look.check(name, "all");
      if (after.leaks > 0 || unsound(after)) return `repair of '${name}' leaves ${told(after)}`;
    }
    const again = new Look(this.#world, look.recorder.files());
    const node = await again.open(root);
    const read = await readIds(node);
    await again.close(node);
    const at = read.ids.findIndex((id, sector) => id !== ids[sector]);
    if (at >= 0) return `after a repair sector ${at} is of write ${read.ids[at]}, not ${ids[at]}`;
    if (folder === "") return "";
    writeState(folder, again.files);
    try {
      for (const name of this.#trial.images) {
        const { status, text } = await this.#shells.run(
          folder,
          "qemu-img",
          "check",
          ...sourceOf(name),
        );
        if (status !== 0) return `after our repair qemu-img check ends with ${status}:\n${text}`;
      }
      return "";
    } finally {
      rmSync(folder, { recursive: true });
    }
  }

  async #asQemuReads(folder: string, name: string, ids: Int32Array): Promise<string> {
    const args = ["-O", "raw", ...sourceOf(name), "as-qemu-reads.raw"];
    const convert = await this.#shells.run(folder, "qemu-img", "convert", ...args);
    if (convert.status !== 0) return `qemu-img convert: ${convert.text}`;
    const theirs = idsOf(new Uint8Array(readFileSync(join(folder, "as-qemu-reads.raw"))));
    const at = theirs.findIndex((id, sector) => id !== ids[sector]);
    if (at < 0 && theirs.length === ids.length) return "";
    return `sector ${at} reads as write ${theirs[at]} in QEMU, ${ids[at]} here`;
  }
}

/** How qemu-img is told to open it. */
function sourceOf(name: string): string[] {
  if (!isLocked(name)) return ["-f", "qcow2", name];
  const { id, text } = SECRET;
  const options = `driver=qcow2,file.filename=${name},encrypt.format=luks,encrypt.key-secret=${id}`;
  return ["--object", `secret,id=${id},data=${text}`, "--image-opts", options];
}

function unsound(result: CheckResult): string {
  return result.corruptions > 0 || result["check-errors"] > 0 ? told(result) : "";
}

function told({ corruptions, leaks, "check-errors": errors }: CheckResult): string {
  return `${corruptions} corruptions, ${leaks} leaks, ${errors} errors`;
}

export function writeState(folder: string, files: Files): void {
  mkdirSync(folder, { recursive: true });
  for (const [name, bytes] of files) writeFileSync(join(folder, name), bytes);
}

function hashOf(files: Files): string {
  const hash = createHash("sha1");
  for (const [name, bytes] of files) hash.update(`${name} ${bytes.length} `).update(bytes);
  return hash.digest("base64");
}
