/**
 * `img` in a worker of a page: a name is what the page says it is, and nothing else has a name. So a name
 * inside an image leads where the page has mapped it, or nowhere; there are no folders.
 */

import { BlockError } from "../base/errors.ts";
import type { BlockDriver, World } from "../block/driver.ts";
import type { BlockdevOptions } from "../block/options.ts";
import { browserDrivers } from "../drivers/index.ts";
import { type MemoryStore, memoryDriver } from "../drivers/protocol/memory.ts";
import { removeOpfs } from "../drivers/protocol/opfs.ts";
import type { ImgHost } from "../img/host.ts";
import { VERSION } from "../qmp/version.ts";
import type { ImgFile } from "./img-protocol.ts";

export interface BrowserHostInit {
  readonly world: World;
  readonly files: Readonly<Record<string, ImgFile>>;
  /** What is in memory, by name; it outlives a run. */
  readonly memory: Map<string, MemoryStore>;
  readonly signal: AbortSignal;
  output(stream: "stdout" | "stderr", text: string): void;
}

export function browserHost({ world, files, memory, signal, output }: BrowserHostInit): ImgHost {
  const known = new Map(Object.entries(files));
  const { major, minor } = VERSION.qemu;
  return {
    name: "blocktab img",
    version: `${VERSION.package}, as qemu-img ${major}.${minor}`,
    world,
    drivers: driversFor(known, memory),
    signal,
    store: (name) => storeOf(known, name),
    async follow(label, { image }) {
      if (known.has(label)) return label;
      throw new BlockError(
        "EPERM",
        `'${image}' names the file '${label}'; names in images are followed only to files that the ` +
          "page has given under that name",
      );
    },
    fullName: (label) => label,
    remove: (name) => remove(known.get(name), memory),
    print: async (text) => output("stdout", text),
    complain: async (text) => output("stderr", text),
  };
}

function driversFor(
  known: ReadonlyMap<string, ImgFile>,
  memory: Map<string, MemoryStore>,
): BlockDriver[] {
  const blobs = new Map([...known].filter((entry): entry is [string, Blob] => isBlob(entry[1])));
  const drivers = browserDrivers(blobs) as unknown as BlockDriver[];
  const others = drivers.filter(({ name }) => name !== "memory");
  return [...others, memoryDriver(memory) as unknown as BlockDriver];
}

function isBlob(file: ImgFile): file is Blob {
  return file instanceof Blob;
}

function storeOf(known: ReadonlyMap<string, ImgFile>, name: string): BlockdevOptions {
  const file = known.get(name);
  if (file === undefined) throw new BlockError("ENOENT", `The page has given no file '${name}'`);
  if (isBlob(file)) return { driver: "blob", name };
  if ("opfs" in file) return { driver: "opfs", filename: file.opfs };
  return { driver: "memory", name: file.memory };
}

async function remove(file: ImgFile | undefined, memory: Map<string, MemoryStore>): Promise<void> {
  if (file === undefined || isBlob(file)) return;
  if ("memory" in file) {
    memory.delete(file.memory);
    return;
  }
  try {
    await removeOpfs(file.opfs);
  } catch (error) {
    if (!(error instanceof BlockError && error.errno === "ENOENT")) throw error;
  }
}
