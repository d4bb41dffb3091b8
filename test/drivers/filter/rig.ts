/** A graph with all filters, a virtual clock, and a store that says what it was asked: for filters. */

import { VirtualClock } from "../../../src/base/virtual-clock.ts";
import type { BlockBackend } from "../../../src/block/backend.ts";
import type { BlockDriver, RequestOptions } from "../../../src/block/driver.ts";
import { Graph } from "../../../src/block/graph.ts";
import type { BlockdevOptions } from "../../../src/block/options.ts";
import { Perm } from "../../../src/block/permissions.ts";
import { blkdebug } from "../../../src/drivers/filter/blkdebug.ts";
import { blklogwrites } from "../../../src/drivers/filter/blklogwrites.ts";
import { copyOnRead } from "../../../src/drivers/filter/copy-on-read.ts";
import { throttle } from "../../../src/drivers/filter/throttle.ts";
import { qcow2Driver } from "../../../src/drivers/format/qcow2/index.ts";
import { rawDriver } from "../../../src/drivers/format/raw.ts";
import { fileDriver } from "../../../src/drivers/protocol/file.ts";
import { memoryDriver } from "../../../src/drivers/protocol/memory.ts";
import { testWorld } from "../../world.ts";

/** A memory store that notes "write 0+512" and the like, in the order of arrival. */
export function spyDriver(): BlockDriver & { readonly heard: string[] } {
  const memory = memoryDriver() as BlockDriver;
  const heard: string[] = [];
  return {
    ...memory,
    name: "spy",
    heard,
    async open(context: never) {
      const state = await memory.open(context);
      const note = (op: string, offset: number, bytes: number, options: RequestOptions) => {
        heard.push(`${op} ${offset}+${bytes}${options.mayUnmap ? " unmap" : ""}`);
      };
      return {
        limits: state.limits,
        getLength: () => state.getLength!(),
        async pread(buf: Uint8Array, offset: number, options: RequestOptions) {
          note("read", offset, buf.length, options);
          await state.pread!(buf, offset, options);
        },
        async pwrite(buf: Uint8Array, offset: number, options: RequestOptions) {
          note("write", offset, buf.length, options);
          await state.pwrite!(buf, offset, options);
        },
        async pwriteZeroes(offset: number, bytes: number, options: RequestOptions) {
          note("zero", offset, bytes, options);
          await state.pwriteZeroes!(offset, bytes, options);
        },
        async pdiscard(offset: number, bytes: number, options: RequestOptions) {
          note("discard", offset, bytes, options);
          await state.pdiscard!(offset, bytes, options);
        },
        truncate: (length: number) => state.truncate!(length),
        async flush() {
          note("flush", 0, 0, {});
        },
        close: () => state.close!(),
      };
    },
  } as BlockDriver & { readonly heard: string[] };
}

export async function filterRig() {
  const clock = new VirtualClock();
  const world = await testWorld({ clock });
  const spy = spyDriver();
  const drivers = [
    memoryDriver(),
    fileDriver(),
    rawDriver(),
    qcow2Driver(),
    copyOnRead,
    throttle,
    blkdebug,
    blklogwrites,
    spy,
  ];
  const graph = new Graph(world, drivers as BlockDriver[]);

  function device(node: string, name = `dev-${node}`): BlockBackend {
    return graph.openBackend(graph.get(node), {
      name,
      description: `device '${name}'`,
      permissions: { take: Perm.consistentRead | Perm.write, share: Perm.all },
    });
  }

  return {
    clock,
    world,
    graph,
    device,
    heard: () => spy.heard.splice(0),
    /** A node and a device on it. */
    async open(options: BlockdevOptions): Promise<BlockBackend> {
      const node = await graph.add({ "node-name": "disk", ...options });
      return device(node.name);
    },
    async close(disk: BlockBackend): Promise<void> {
      const { name } = disk.node;
      await graph.closeBackend(disk);
      await graph.remove(name);
    },
  };
}

export type FilterRig = Awaited<ReturnType<typeof filterRig>>;

export function filled(bytes: number, value: number): Uint8Array {
  return new Uint8Array(bytes).fill(value);
}

export async function contentOf(disk: BlockBackend): Promise<Uint8Array> {
  const buf = new Uint8Array(disk.length);
  await disk.read(buf, 0);
  return buf;
}

/** What a promise came to: "ok", or an errno. Anything else that is thrown is thrown on. */
export async function outcome(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
    return "ok";
  } catch (error) {
    if (error instanceof Error && "errno" in error) return String(error.errno);
    throw error;
  }
}
