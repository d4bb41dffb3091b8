/** The real kernel, for tests on Node. */

import { existsSync, readFileSync } from "node:fs";
import { type Kernel, loadKernel } from "../../src/kernel/kernel.ts";

const WASM = new URL("../../build/kernel.wasm", import.meta.url);

let compiled: Promise<WebAssembly.Module> | undefined;

/** The bytes of build/kernel.wasm. */
export function kernelBytes(): Uint8Array<ArrayBuffer> {
  if (!existsSync(WASM)) {
    throw new Error("build/kernel.wasm is missing: run `npm run build:wasm` first");
  }
  return new Uint8Array(readFileSync(WASM));
}

/** For whoever makes many. */
export function compiledKernel(): Promise<WebAssembly.Module> {
  compiled ??= WebAssembly.compile(kernelBytes());
  return compiled;
}

/** For who takes all of it, and so must have it in one piece. */
export async function newKernel(): Promise<Kernel> {
  return loadKernel(await compiledKernel());
}

interface Slot {
  readonly kernel: Kernel;
  /** What it had before anyone took of it. */
  readonly freeBytes: number;
}

const SLOTS = 8;
const slots: Slot[] = [];
let calls = 0;

/**
 * A kernel for every call: 32 MiB of address space, of which only what is used counts. But the engine
 * that runs this counts all of it, and collects garbage after every other one. So it is one of a few
 * that come again in turn, if all that was taken of it has been given back.
 */
export async function testKernel(): Promise<Kernel> {
  const at = calls++ % SLOTS;
  const used = slots[at];
  if (used && used.kernel.freeBytes === used.freeBytes) return used.kernel;
  const kernel = await newKernel();
  slots[at] = { kernel, freeBytes: kernel.freeBytes };
  return kernel;
}
