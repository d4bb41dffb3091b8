/** What a stream costs that must not grow with the disk: memory, and time where there is no data. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { ROOT } from "../../../scripts/setup.mjs";
import { GiB, KiB, MiB } from "../../../src/base/bytes.ts";
import type { ImageRecipe } from "../images.ts";
import { type Lab, urlOf } from "../lab.ts";
import type { Line } from "../line.ts";

const SAMPLE_MS = 50;

const SMALL = { virtualSize: 256 * MiB, dataBytes: 256 * MiB };
const LARGE = { virtualSize: 2 * GiB, dataBytes: 2 * GiB };
const DENSE = { virtualSize: 100 * MiB, dataBytes: 100 * MiB };
const SPARSE = { virtualSize: 8192 * GiB, dataBytes: 100 * MiB };

export const MEMORY_LINES: readonly Line[] = [
  {
    name: "memory-2g",
    unit: "MiB",
    reference:
      "greatest size of the worker's memory (JavaScript heap, array buffers, wasm), sampled while " +
      "it streams 256 MiB from HTTP instead of 2 GiB",
    aim: { atMost: 1.25 },
    runs: 3,
    async prepare(lab) {
      await lab.imported("large.qcow2", LARGE);
      await lab.imported("small.qcow2", SMALL);
      let note = "";
      return {
        warmUp: false,
        async ours() {
          const usage = await peak(lab, "large.qcow2");
          const parts = Object.entries(usage).map(([part, mib]) => `${part} ${mib.toFixed(0)}`);
          note = `Last peak of ours in MiB: ${parts.join(", ")}`;
          return total(usage);
        },
        theirs: async () => total(await peak(lab, "small.qcow2")),
        note: () => note,
        async done() {
          await lab.forget("large.qcow2");
          await lab.forget("small.qcow2");
        },
      };
    },
  },
  {
    name: "sparse-8t",
    unit: "ms",
    reference:
      "time to stream 100 MiB of data from OPFS that fill a disk of 100 MiB, instead of lying in " +
      "100 pieces all over a disk of 8 TiB",
    aim: { atMost: 1.5 },
    runs: 7,
    async prepare(lab) {
      await lab.imported("sparse.qcow2", SPARSE);
      await lab.imported("dense.qcow2", DENSE);
      return {
        warmUp: true,
        ours: () => streamMs(lab, "sparse.qcow2", SPARSE),
        theirs: () => streamMs(lab, "dense.qcow2", DENSE),
        async done() {
          await lab.forget("sparse.qcow2");
          await lab.forget("dense.qcow2");
        },
      };
    },
  },
];

/** In MiB. */
interface Usage {
  readonly wasm: number;
  /** Not yet collected ones included. */
  readonly buffers: number;
  readonly objects: number;
}

async function peak(lab: Lab, name: string): Promise<Usage> {
  const wasm = wasmMemoryBytes() / MiB;
  const session = await lab.freshWorker();
  let streaming = true;
  const streamed = lab
    .call("streamImage", { from: { url: urlOf(name) }, expected: name })
    .finally(() => {
      streaming = false;
    });
  let most: Usage = { wasm, buffers: 0, objects: 0 };
  let samples = 0;
  while (streaming) {
    // A worker that has died answers no more, but its call fails.
    const heap = await Promise.race([session.heapUsage(), streamed.then(() => null)]);
    if (heap === null) break;
    const { usedSize, embedderHeapUsedSize, backingStorageSize } = heap;
    const objects = (usedSize + embedderHeapUsedSize) / MiB;
    const usage = { wasm, buffers: backingStorageSize / MiB, objects };
    if (total(usage) > total(most)) most = usage;
    samples++;
    await new Promise((resolve) => setTimeout(resolve, SAMPLE_MS));
  }
  await streamed;
  await session.detach();
  if (samples < 10) throw new Error(`The worker answered ${samples} times: no peak to speak of`);
  return most;
}

function total({ wasm, buffers, objects }: Usage): number {
  return wasm + buffers + objects;
}

/** Fixed, and not part of any heap. */
function wasmMemoryBytes(): number {
  const { options } = JSON.parse(readFileSync(join(ROOT, "asconfig.json"), "utf8"));
  if (options.initialMemory !== options.maximumMemory) throw new Error("The wasm memory can grow");
  return options.maximumMemory * 64 * KiB;
}

async function streamMs(lab: Lab, name: string, { dataBytes }: ImageRecipe): Promise<number> {
  const { ms, bytes } = await lab.call("streamImage", {
    from: { filename: name },
    expected: name,
  });
  if (bytes !== dataBytes) throw new Error(`${name} holds ${bytes} bytes, not ${dataBytes}`);
  return ms;
}
