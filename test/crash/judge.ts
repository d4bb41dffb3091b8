/**
 * Whether what a crash has left is what was promised:
 *
 *   - each image opens, and our check and the real qemu-img's agree that it is clean or leaks
 *   - each sector that was flushed reads as its data, each other one as before or after
 *   - repaired by us it is clean, for both, and reads the same
 *   - for a sample, the real qemu-img reads the same bytes as we do, and its repair ends clean
 */

import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { BlockError } from "../../src/base/errors.ts";
import type { World } from "../../src/block/driver.ts";
import { idsOf } from "./content.ts";
import { Look, readIds } from "./look.ts";
import type { Shells } from "./qemu-img.ts";
import type { Files } from "./recorder.ts";
import type { Trial } from "./trial.ts";

const LEAKS = 3;
/** One in so many distinct states is also read, and repaired, by the real qemu-img. */
const SAMPLE = 16;

export interface Counts {
  /** States of files that differ from all others of their trial. */
  distinct: number;
  leaky: number;
  sampled: number;
}

/** Judges the states of one trial. */
export class Judge {
  readonly counts: Counts = { distinct: 0, leaky: 0, sampled: 0 };
  readonly #world: World;
  readonly #trial: Trial;
  readonly #shells: Shells;
  readonly #folder: string;
  /** By state and root: what the disk reads as. */
  readonly #read = new Map<string, { ids: Int32Array; bytes: number }>();
  readonly #seen = new Set<string>();

  constructor(world: World, trial: Trial, shells: Shells, folder: string) {
    this.#world = world;
    this.#trial = trial;
    this.#shells = shells;
    this.#folder = folder;
  }

  /** What is wrong with a state, or "". */
  async wrong(files: Files, cut: number): Promise<string> {
    try {
      const hash = hashOf(files);
      const root = this.#trial.guest.after(cut).root ?? this.#trial.root;
      const key = `${hash} ${root}`;
      let read = this.#read.get(key);
      if (!read) {
        const look = new Look(this.#world, files);
        const node = await look.open(root);
        read = await readIds(node);
        await look.close(node);
        this.#read.set(key, read);
      }
      const problem = this.#trial.guest.after(cut).wrong(read.ids, read.bytes);
      if (problem) return problem;
      if (this.#seen.has(hash)) return "";
      this.#seen.add(hash);
      this.counts.distinct++;
      return await this.#soundness(files, root, read.ids);
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
      return `${error.errno}: ${error.message}`;
    }
  }

  async #soundness(files: Files, root: string, ids: Int32Array): Promise<string> {
    const folder = join(this.#folder, `state${this.counts.distinct}`);
    writeState(folder, files);
    try {
      let leaks = false;
      for (const name of this.#trial.images) {
        const path = join(folder, name);
        const check = await this.#shells.qemuImg("check", "-f", "qcow2", path);
        if (check.status !== 0 && check.status !== LEAKS) {
          return `qemu-img check of '${name}' ends with ${check.status}:\n${check.text}`;
        }
        leaks ||= check.status === LEAKS;
      }
      if (leaks) this.counts.leaky++;
      if (this.counts.distinct % SAMPLE !== 1) return "";
      this.counts.sampled++;
      return await this.#asQemuReads(join(folder, root), ids);
    } finally {
      rmSync(folder, { recursive: true });
    }
  }

  async #asQemuReads(path: string, ids: Int32Array): Promise<string> {
    const raw = `${path}.raw`;
    const convert = await this.#shells.qemuImg("convert", "-f", "qcow2", "-O", "raw", path, raw);
    if (convert.status !== 0) return `qemu-img convert: ${convert.text}`;
    const theirs = idsOf(new Uint8Array(readFileSync(raw)));
    const at = theirs.findIndex((id, sector) => id !== ids[sector]);
    if (at < 0 && theirs.length === ids.length) return "";
    return `sector ${at} reads as write ${theirs[at]} in QEMU, ${ids[at]} here`;
  }
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
