/** Images in OPFS for the jobs that the bench times: made, opened, and compared afterwards. */

import { MiB } from "../../../src/base/bytes.ts";
import type { Graph } from "../../../src/block/graph.ts";
import type { BlockdevOptions } from "../../../src/block/options.ts";
import { Perm } from "../../../src/block/permissions.ts";
import { chainStatus } from "../../../src/block/status.ts";
import { openNode } from "./engine.ts";
import { removeFile } from "./raw-io.ts";

const COMPARE_BYTES = 1 * MiB;

/** Makes an empty qcow2, in the place of what was there. @param backing name for its header */
export async function makeImage(
  graph: Graph,
  filename: string,
  size: number,
  backing?: string,
): Promise<void> {
  await removeFile(filename);
  const { world } = graph;
  await graph.driver("opfs").create?.({ world, options: { filename, size: 0 } as never });
  await graph.add({ ...opfs(filename), "node-name": "new" });
  const file = openNode(graph, "new", Perm.consistentRead | Perm.write | Perm.resize);
  const label = { "backing-file": backing, "backing-fmt": "qcow2" };
  const options = { size, ...(backing !== undefined && label) };
  await graph.driver("qcow2").create?.({ world, options: options as never, file: file.edge });
  await graph.closeBackend(file);
  await graph.remove("new");
}

/** Opens two closed images alone and looks whether they read the same. @returns bytes of data in both */
export async function compareImages(
  graph: Graph,
  expected: string,
  filename: string,
): Promise<number> {
  const left = await graph.add(image("left", opfs(expected), true));
  const right = await graph.add(image("right", opfs(filename), true));
  const [a, b] = [left, right].map(({ name }) => openNode(graph, name, Perm.consistentRead));
  const { kernel } = graph.world;
  const [x, y] = [kernel.allocate(COMPARE_BYTES)!, kernel.allocate(COMPARE_BYTES)!];
  if (a!.length !== b!.length) throw new Error(`${filename} has ${b!.length} bytes`);
  let data = 0;
  for (let at = 0; at < a!.length; ) {
    const runs = await Promise.all(
      [left, right].map((node) => chainStatus(node, null, at, a!.length - at)),
    );
    const zero = runs.every((run) => run.zero);
    const bytes = Math.min(...runs.map((run) => run.bytes), zero ? Infinity : COMPARE_BYTES);
    if (!zero) {
      await a!.read(x.subarray(0, bytes), at);
      await b!.read(y.subarray(0, bytes), at);
      const difference = kernel.firstDifference(x.subarray(0, bytes), y.subarray(0, bytes));
      if (difference >= 0) throw new Error(`${filename} differs at byte ${at + difference}`);
      data += bytes;
    }
    at += bytes;
  }
  kernel.free(x);
  kernel.free(y);
  for (const backend of [a!, b!]) await graph.closeBackend(backend);
  for (const node of [left, right]) await graph.remove(node.name);
  return data;
}

export function opfs(filename: string): BlockdevOptions {
  return { driver: "opfs", filename };
}

export function image(name: string, file: BlockdevOptions, readOnly: boolean): BlockdevOptions {
  return { driver: "qcow2", "node-name": name, "read-only": readOnly, file };
}
