/** An engine and clients of it in one thread: all real, with a virtual clock and memory stores. */

import * as v from "valibot";
import { Bell } from "../../src/base/bell.ts";
import { MiB } from "../../src/base/bytes.ts";
import { BlockError } from "../../src/base/errors.ts";
import type { VirtualClock } from "../../src/base/virtual-clock.ts";
import type { BlockDriver } from "../../src/block/driver.ts";
import { MemoryState, MemoryStore } from "../../src/drivers/protocol/memory.ts";
import type { Client } from "../../src/engine/client.ts";
import type { Engine } from "../../src/engine/engine.ts";
import { connectLocally } from "../../src/engine/node.ts";
import { testEngine } from "../qmp/conversation.ts";

export interface TestWorld {
  readonly engine: Engine;
  readonly clock: VirtualClock;
  readonly client: Client;
  readonly moody: MoodyDriver;
}

export async function connected(): Promise<TestWorld> {
  const moody = moodyDriver();
  const { engine, clock } = await testEngine([moody]);
  return { engine, clock, client: await connectLocally(engine), moody };
}

/** blockdev-add for drivers that only tests have: the client's types do not know them. */
export async function addNode(
  client: Client,
  options: Readonly<Record<string, unknown>>,
): Promise<void> {
  await client.execute("blockdev-add", options as never);
}

/** Opens a node of a driver and exports it, both by the same device name. */
export async function device(
  client: Client,
  { id = "d", driver = "memory", size = 65536, writable = true } = {},
) {
  await addNode(client, { driver, "node-name": `${id}-node`, size });
  await client.execute("block-export-add", {
    type: "message-port",
    id,
    "node-name": `${id}-node`,
    writable,
  });
  return client.openDevice(id);
}

/** [base] <── [top], with 4 MiB of data in base. */
export async function chain(client: Client): Promise<void> {
  const image = { driver: "tiny", size: 4 * MiB, "cluster-size": 65536 };
  const file = { driver: "memory", size: 0 };
  await addNode(client, { ...image, "node-name": "base", file });
  const writable = { type: "message-port", id: "w", "node-name": "base", writable: true } as const;
  await client.execute("block-export-add", writable);
  const disk = await client.openDevice("w");
  await disk.write(0, new Uint8Array(4 * MiB).fill(1));
  await client.execute("block-export-del", { id: "w", mode: "hard" });
  await addNode(client, { ...image, "node-name": "top", file, backing: "base" });
}

/** A memory store that can be told how to behave from now on. */
export interface MoodyDriver extends BlockDriver<{ size: number }> {
  /** fine; stuck: requests wait for the bell or their signal; broken: EIO; buggy: a bug of ours. */
  mood: "fine" | "stuck" | "broken" | "buggy";
  flushCount: number;
  /** Rung to let those go on that are stuck. */
  readonly bell: Bell;
}

export function moodyDriver(): MoodyDriver {
  const driver: MoodyDriver = {
    mood: "fine",
    flushCount: 0,
    bell: new Bell(),
    name: "moody",
    kind: "protocol",
    roles: {},
    openOptions: { size: v.number() },
    async open() {
      const store = new MemoryState(new MemoryStore(65536));
      const before = async (signal?: AbortSignal) => {
        if (driver.mood === "stuck") await driver.bell.rung(signal);
        if (driver.mood === "broken") throw new BlockError("EIO", "The store is broken");
        if (driver.mood === "buggy") throw new Error("Invariant broken: two and two is four");
      };
      return {
        limits: store.limits,
        getLength: () => store.getLength(),
        async pread(buf, offset, options) {
          await before(options.signal);
          await store.pread(buf, offset, options);
        },
        async pwrite(buf, offset, options) {
          await before(options.signal);
          await store.pwrite(buf, offset, options);
        },
        async flush() {
          driver.flushCount++;
          await before();
        },
      };
    },
  };
  return driver;
}
