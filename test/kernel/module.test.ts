import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { BlockError } from "../../src/base/errors.ts";
import { loadKernel } from "../../src/kernel/kernel.ts";
import { ARENA_START } from "../../src/kernel/module.ts";
import { kernelBytes, testKernel } from "./load.ts";

const PAGE_BYTES = 65536;

describe("the kernel module", () => {
  it("imports nothing", async () => {
    const module = await WebAssembly.compile(kernelBytes());
    expect(WebAssembly.Module.imports(module)).toEqual([]);
  });

  it("exports its kernels and its memory, and nothing else", async () => {
    const module = await WebAssembly.compile(kernelBytes());
    const names = WebAssembly.Module.exports(module).map(({ kind, name }) => `${kind} ${name}`);
    expect(names.sort()).toEqual([
      "function bitmapClear",
      "function bitmapCount",
      "function bitmapMerge",
      "function bitmapNextClear",
      "function bitmapNextSet",
      "function bitmapSet",
      "function copy",
      "function firstDifference",
      "function gather",
      "function isZero",
      "function l2Run",
      "function l2RunExtended",
      "function refcountAdd",
      "function refcountGet",
      "function refcountNextFree",
      "function refcountNextUsed",
      "function scatter",
      "function xtsSectors",
      "function zeroRun",
      "memory memory",
    ]);
  });

  it("has all its memory from the start, and cannot grow", async () => {
    const { options } = JSON.parse(
      readFileSync(new URL("../../asconfig.json", import.meta.url), "utf8"),
    );
    expect(options.maximumMemory).toBe(options.initialMemory);
    const { exports } = await WebAssembly.instantiate(await WebAssembly.compile(kernelBytes()));
    const memory = exports["memory"] as WebAssembly.Memory;
    expect(memory.buffer.byteLength).toBe(options.initialMemory * PAGE_BYTES);
    expect(() => memory.grow(1)).toThrow(RangeError);
  });

  it("leaves all of its memory but scratch to buffers", async () => {
    const kernel = await testKernel();
    expect(kernel.freeBytes).toBe(kernel.memoryBytes - ARENA_START);
  });

  it("keeps no state: no global is in it", async () => {
    // Section 6 of a module holds its globals; section 11 would put data in memory.
    const sections = sectionsOf(kernelBytes());
    expect(sections).not.toContain(6);
    expect(sections).not.toContain(11);
  });

  it("loads from bytes as from a compiled module", async () => {
    const kernel = await loadKernel(kernelBytes());
    expect(kernel.isZero(new Uint8Array(100))).toBe(true);
  });

  it("refuses bytes that are no module with ENOTSUP", async () => {
    const page = new TextEncoder().encode("<!doctype html><title>404</title>");
    const error = await loadKernel(page).catch((error: unknown) => error);
    expect(error).toBeInstanceOf(BlockError);
    expect((error as BlockError).errno).toBe("ENOTSUP");
  });
});

function sectionsOf(module: Uint8Array): number[] {
  const sections: number[] = [];
  for (let at = 8; at < module.length; ) {
    sections.push(module[at++]!);
    let bytes = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = module[at++]!;
      bytes += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) break;
    }
    at += bytes;
  }
  return sections;
}
