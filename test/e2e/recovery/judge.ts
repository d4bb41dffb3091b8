/** What the real qemu-img thinks of images that a kill has left behind. */

import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { type Found, IMAGES, KINDS } from "./plan.ts";

const run = promisify(execFile);
/** Of qemu-img check: clusters that nobody uses, which is all that a kill may leave. */
const LEAKS = 3;

/**
 * @param chains those that disks stand on. Another one may be half made, but for targets
 * @returns what is wrong
 */
export async function wrongImages(folder: string, chains: Found["chains"]): Promise<string[]> {
  const inUse = KINDS.flatMap((kind) => chains[kind]);
  const names = new Set([...inUse, ...IMAGES.mirror, ...IMAGES.backup]);
  const texts = await Promise.all([...names].map((name) => wrongImage(folder, name)));
  return texts.filter((text) => text !== "");
}

async function wrongImage(folder: string, name: string): Promise<string> {
  try {
    await run("qemu-img", ["check", "-f", "qcow2", name], { cwd: folder });
    return "";
  } catch (error) {
    const { code, stdout, stderr } = error as { code: number; stdout: string; stderr: string };
    return code === LEAKS ? "" : `${name}: ${stdout}${stderr}`;
  }
}

/** A disk as QEMU reads it, by the names in its images. */
export async function asQemuReads(folder: string, name: string): Promise<Buffer> {
  const raw = `${name}.raw`;
  await run("qemu-img", ["convert", "-f", "qcow2", "-O", "raw", name, raw], { cwd: folder });
  return readFile(join(folder, raw));
}
