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

/** A kernel of its own for every call: 32 MiB of address space, of which only what is used counts. */
export async function testKernel(): Promise<Kernel> {
  return loadKernel(await compiledKernel());
}
