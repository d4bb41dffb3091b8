/** The engine of a browser's worker: its kernel fetched, its drivers, its store of files. */

import kernelUrl from "../../build/kernel.wasm?url";
import { SystemClock } from "../base/clock.ts";
import { BlockError } from "../base/errors.ts";
import { systemRandom } from "../base/random.ts";
import { browserDrivers } from "../drivers/index.ts";
import { listOpfs, opfsFile, removeOpfs } from "../drivers/protocol/opfs.ts";
import type { FileStore } from "./data-port.ts";
import { createEngine, type Engine } from "./engine.ts";
import type { OpenedJournal } from "./journal/store.ts";

const files: FileStore = {
  driver: "opfs",
  list: () => listOpfs(),
  get: (filename) => opfsFile(filename),
  remove: (filename) => removeOpfs(filename),
};

/**
 * @param blobs what pages hand over
 * @param journal see EngineOptions
 * @throws BlockError EIO if the kernel cannot be loaded, ENOTSUP, ENOMEM if it does not run here
 */
export async function createBrowserEngine(
  blobs: Map<string, Blob>,
  journal?: OpenedJournal,
): Promise<Engine> {
  return createEngine({
    clock: new SystemClock(),
    random: systemRandom(),
    kernelBytes: await fetchKernel(),
    drivers: browserDrivers(blobs),
    blobs,
    files,
    ...(journal && { journal }),
  });
}

async function fetchKernel(): Promise<ArrayBuffer> {
  const response = await fetch(kernelUrl);
  if (response.ok) return response.arrayBuffer();
  throw new BlockError("EIO", `Loading ${kernelUrl} failed: HTTP status ${response.status}`);
}
