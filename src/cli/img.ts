/**
 * `blocktab img` on Node: names are paths, and output goes to the terminal.
 *
 * A name inside an image is followed only to a plain file in the image's own folder, or below it. Where
 * that is, the file system says: a link that leads out of the folder is not followed.
 */

import { access, readFile, realpath, unlink } from "node:fs/promises";
import { basename, dirname, isAbsolute, join, relative, sep } from "node:path";
import { SystemClock } from "../base/clock.ts";
import { BlockError, throwIfAborted } from "../base/errors.ts";
import { systemRandom } from "../base/random.ts";
import { browserDrivers } from "../drivers/index.ts";
import { fileDriver } from "../drivers/protocol/file.ts";
import { createNodeWorld } from "../engine/node.ts";
import type { ImgHost, Naming } from "../img/host.ts";
import { img } from "../img/img.ts";
import { VERSION } from "../qmp/version.ts";
import { systemError } from "./chardev/chardev.ts";

/** Whoever sends these wants it to end; SIGPIPE stands for a reader of its output that is gone. */
const ENDINGS = ["SIGINT", "SIGTERM", "SIGHUP", "SIGPIPE"] as const;
type Ending = (typeof ENDINGS)[number];

/**
 * Once asked to end it closes all that is open, says no more, and dies of the same signal: a shell's loop
 * over many images ends by that.
 *
 * @returns the exit status
 */
export async function imgCommand(words: readonly string[]): Promise<number> {
  const ending = new AbortController();
  let why: Ending | undefined;
  const end = (signal: Ending) => {
    why ??= signal;
    ending.abort();
  };
  for (const signal of ENDINGS) process.on(signal, end);
  const { signal } = ending;
  const host = await nodeHost({
    signal,
    async print(text) {
      if (await write(process.stdout, text)) return;
      end("SIGPIPE");
      throwIfAborted(signal);
    },
    async complain(text) {
      if (signal.aborted || (await tell(text))) return;
      end("SIGPIPE");
    },
  });
  const status = await img(words, host);
  if (why === undefined) return status;
  for (const signal of ENDINGS) process.off(signal, end);
  process.kill(process.pid, why);
  return 1;
}

/** @param own what is to be another way */
export async function nodeHost(own: Partial<ImgHost> = {}): Promise<ImgHost> {
  const { major, minor } = VERSION.qemu;
  return {
    name: "blocktab img",
    version: `${VERSION.package}, as qemu-img ${major}.${minor}`,
    world: own.world ?? (await createNodeWorld(new SystemClock(), systemRandom())),
    drivers: [...browserDrivers(new Map()), fileDriver()],
    store: (name) => ({ driver: "file", filename: pathOf(name) }),
    follow: (label, from) => follow(label, { ...from, image: pathOf(from.image) }),
    fullName: (label, image) => besideOf(label, pathOf(image)),
    remove: (name) => remove(pathOf(name)),
    async print(text) {
      await write(process.stdout, text);
    },
    async complain(text) {
      await tell(text);
    },
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

/** The folder's name is put in front as it is, as QEMU does. */
function besideOf(label: string, image: string): string {
  const isWhole = isAbsolute(label) || protocolOf(label) !== null;
  return isWhole ? label : image.slice(0, image.lastIndexOf("/") + 1) + label;
}

async function follow(label: string, from: Naming): Promise<string> {
  const { image, trusted } = from;
  if (trusted && label.startsWith("file:")) return follow(label.slice("file:".length), from);
  const isPlain = label !== "" && protocolOf(label) === null;
  if (!isPlain && !label.startsWith("file:")) {
    throw new BlockError(
      "EPERM",
      `'${image}' names '${label}', which is no plain file: say what it is with --image-opts`,
    );
  }
  const path = await placeOf(label, from);
  if (trusted || (isPlain && (await isInside(path, dirname(image))))) return path;
  throw new BlockError(
    "EPERM",
    `'${image}' names the file '${label}'. Only names of files in its own folder or below it are followed: ` +
      "give --trust-names before the command to follow all, or name the file with --image-opts",
  );
}

/** QEMU looks for a data file from where it was started, not beside the image. */
async function placeOf(label: string, { image, role }: Naming): Promise<string> {
  if (role === "data-file" && (await isThere(label))) return label;
  return besideOf(label, image);
}

async function isThere(path: string): Promise<boolean> {
  try {
    await access(path);
    return true;
  } catch {
    return false;
  }
}

/** Links are looked through, also of what leads to a file that is not there. */
async function isInside(path: string, folder: string): Promise<boolean> {
  const [outer, place] = await Promise.all([realPlace(folder), realPlace(dirname(path))]);
  const inner = await realPlace(join(place, basename(path)));
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

/** What was made through a link is what the link leads to: the link was there. */
async function remove(path: string): Promise<void> {
  try {
    await unlink(await realpath(path));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return;
    throw systemError(error, `Removing '${path}'`);
  }
}

/**
 * Settles when it has been taken.
 *
 * @returns false if nobody reads it any more
 * @throws BlockError for other reasons not to take it, as a full disk
 */
function write(stream: NodeJS.WriteStream, text: string): Promise<boolean> {
  // What goes wrong is told to the one who wrote; without a listener it would end the process.
  if (stream.listenerCount("error", ignore) === 0) stream.on("error", ignore);
  return new Promise((resolve, reject) => {
    stream.write(text, (error) => {
      if (!error) resolve(true);
      else if ((error as NodeJS.ErrnoException).code === "EPIPE") resolve(false);
      else reject(systemError(error, "Writing the output"));
    });
  });
}

function ignore(): void {}

/** The same on stderr: that it cannot be told there is nobody to be told of. */
async function tell(text: string): Promise<boolean> {
  try {
    return await write(process.stderr, text);
  } catch (error) {
    if (error instanceof BlockError) return true;
    throw error;
  }
}
