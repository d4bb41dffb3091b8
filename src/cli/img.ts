/**
 * `blocktab img` on Node: names are paths, and output goes to the terminal.
 *
 * A name inside an image is followed only to a plain file in the image's own folder, or below it. Where
 * that is, the file system says: a link that leads out of the folder is not followed.
 */

import { readFile, realpath } from "node:fs/promises";
import { dirname, isAbsolute, join, relative, sep } from "node:path";
import { SystemClock } from "../base/clock.ts";
import { BlockError } from "../base/errors.ts";
import { systemRandom } from "../base/random.ts";
import { browserDrivers } from "../drivers/index.ts";
import { fileDriver } from "../drivers/protocol/file.ts";
import { createNodeWorld } from "../engine/node.ts";
import type { ImgHost } from "../img/host.ts";
import { img } from "../img/img.ts";
import { VERSION } from "../qmp/version.ts";
import { systemError } from "./chardev/chardev.ts";

/** @returns the exit status */
export async function imgCommand(words: readonly string[]): Promise<number> {
  const ending = new AbortController();
  const end = () => ending.abort();
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, end);
  return img(words, await nodeHost({ signal: ending.signal }));
}

/** @param own what is to be another way */
export async function nodeHost(own: Partial<ImgHost> = {}): Promise<ImgHost> {
  const { major, minor } = VERSION.qemu;
  return {
    name: "blocktab img",
    version: `${VERSION.package}, as qemu-img ${major}.${minor}`,
    world: await createNodeWorld(new SystemClock(), systemRandom()),
    drivers: [...browserDrivers(new Map()), fileDriver()],
    store: (name) => ({ driver: "file", filename: pathOf(name) }),
    follow: (label, image, trusted) => follow(label, pathOf(image), trusted),
    beside: (name, image) => relative(dirname(pathOf(image)), pathOf(name)),
    print: (text) => write(process.stdout, text),
    complain: (text) => write(process.stderr, text),
    readFile: async (name) => {
      try {
        return await readFile(name);
      } catch (error) {
        throw systemError(error, `Reading '${name}'`);
      }
    },
    onProgressAsked(tell) {
      process.on("SIGUSR1", tell);
      return () => process.off("SIGUSR1", tell);
    },
    ...own,
  };
}

/** `file:` may stand in front; any other word and a colon is a protocol that is not there. */
function pathOf(name: string): string {
  if (name.startsWith("file:")) return name.slice("file:".length);
  const protocol = protocolOf(name);
  if (protocol === null) return name;
  throw new BlockError(
    "EINVAL",
    `Unknown protocol '${protocol}' in '${name}'; write ./ in front of a file's name`,
  );
}

function protocolOf(name: string): string | null {
  return /^([^/]*?):/.exec(name)?.[1] ?? null;
}

async function follow(label: string, image: string, trusted: boolean): Promise<string> {
  const folder = dirname(image);
  const isPlain = label !== "" && protocolOf(label) === null;
  if (trusted) {
    if (label.startsWith("file:")) return follow(label.slice("file:".length), image, true);
    if (isPlain) return isAbsolute(label) ? label : join(folder, label);
    throw new BlockError(
      "EPERM",
      `'${image}' names '${label}', which is no file; give it with --image-opts`,
    );
  }
  const path = isAbsolute(label) ? label : join(folder, label);
  if (isPlain && (await isInside(path, folder))) return path;
  throw new BlockError(
    "EPERM",
    `'${image}' names the file '${label}'. Only names of files in its own folder are followed: ` +
      "give --trust-names before the command to follow all, or name the file with --image-opts",
  );
}

/** Links are looked through, also of what leads to a file that is not there. */
async function isInside(path: string, folder: string): Promise<boolean> {
  const [outer, place] = await Promise.all([realPlace(folder), realPlace(dirname(path))]);
  const inner = await realPlace(join(place, path.slice(dirname(path).length)));
  const way = relative(outer, inner);
  return way !== "" && way !== ".." && !way.startsWith(`..${sep}`) && !isAbsolute(way);
}

async function realPlace(path: string): Promise<string> {
  try {
    return await realpath(path);
  } catch {
    return join(path);
  }
}

/** Settles when it has been taken; a reader that has gone away is no failure of ours. */
function write(stream: NodeJS.WriteStream, text: string): Promise<void> {
  return new Promise((resolve) => {
    stream.write(text, () => resolve());
  });
}
