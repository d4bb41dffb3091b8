/** The images that are streamed, written by our own engine on Node. Data is random: nothing packs. */

import { randomFillSync } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { alignDown, MiB } from "../../src/base/bytes.ts";
import { SystemClock } from "../../src/base/clock.ts";
import { systemRandom } from "../../src/base/random.ts";
import type { BlockBackend } from "../../src/block/backend.ts";
import { Graph } from "../../src/block/graph.ts";
import { Perm } from "../../src/block/permissions.ts";
import { qcow2Driver } from "../../src/drivers/format/qcow2/index.ts";
import { rawDriver } from "../../src/drivers/format/raw.ts";
import { fileDriver } from "../../src/drivers/protocol/file.ts";
import { loadKernel } from "../../src/kernel/kernel.ts";

const PIECE_BYTES = 1 * MiB;

export interface ImageRecipe {
  /** Default qcow2, with clusters of 64 KiB. */
  readonly format?: "raw" | "qcow2";
  /** Of the disk, in bytes. */
  readonly virtualSize: number;
  /** Random bytes on it, in pieces of 1 MiB, evenly spread from its start to its end. */
  readonly dataBytes: number;
}

/** @param path of the new file */
export async function makeImage(root: string, path: string, recipe: ImageRecipe): Promise<void> {
  const { format = "qcow2", virtualSize, dataBytes } = recipe;
  const bytes = readFileSync(join(root, "build", "kernel.wasm"));
  const world = {
    clock: new SystemClock(),
    random: systemRandom(),
    kernel: await loadKernel(bytes),
    trace: {},
  };
  const file = fileDriver();
  const qcow2 = qcow2Driver();
  const graph = new Graph(world, [file, qcow2, rawDriver()]);
  const size = format === "raw" ? virtualSize : 0;
  await file.create?.({ world, options: { filename: path, size } });
  await graph.add({ driver: "file", "node-name": "file", filename: path });
  if (format === "qcow2") {
    const empty = openNode(graph, "file");
    await qcow2.create?.({ world, options: { size: virtualSize }, file: empty.edge });
    await graph.closeBackend(empty);
  }

  await graph.add({ driver: format, "node-name": "disk", file: "file" });
  const disk = openNode(graph, "disk");
  const buf = new Uint8Array(PIECE_BYTES);
  const pieces = dataBytes / PIECE_BYTES;
  for (let i = 0; i < pieces; i++) {
    randomFillSync(buf);
    await disk.write(buf, alignDown((virtualSize / pieces) * i, PIECE_BYTES));
  }
  await graph.closeBackend(disk);
  await graph.remove("disk");
  await graph.remove("file");
}

function openNode(graph: Graph, name: string): BlockBackend {
  return graph.openBackend(graph.get(name), {
    name: "",
    description: "the bench",
    permissions: { take: Perm.consistentRead | Perm.write | Perm.resize, share: Perm.none },
  });
}
