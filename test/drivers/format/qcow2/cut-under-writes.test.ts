/**
 * The end of the file is cut off while a guest's write is on its way to behind it: what it writes must not
 * be cut off with it, whenever between two steps of the one the other comes.
 */

import { expect, it } from "vitest";
import { KiB } from "../../../../src/base/bytes.ts";
import type { BlockDriver } from "../../../../src/block/driver.ts";
import { Graph } from "../../../../src/block/graph.ts";
import { qcow2Driver } from "../../../../src/drivers/format/qcow2/index.ts";
import { LogStore, logStoreDriver } from "../log-store.ts";
import { openDisk, testWorld } from "../rig.ts";

const CLUSTER = 4 * KiB;
const SIZE = 512 * KiB;
/** Turns of the loop between the flush that frees the end and the write: more than it takes to cut. */
const TURNS = 120;

it("keeps what is written behind an end that is being cut off", async () => {
  for (let turns = 0; turns < TURNS; turns++) {
    const { disk, store, slow } = await makeDisk();
    await disk.backend.write(new Uint8Array(CLUSTER).fill(1), 0);
    await disk.backend.flush();
    await disk.backend.discard(0, CLUSTER);
    const before = store.bytes.length;

    // Gets a cluster behind the file's end, and waits for what it takes over from below.
    const asked = slow.close();
    const written = disk.backend.write(new Uint8Array(512).fill(2), 100 * KiB);
    await asked;
    const from = store.log.length;
    const flushed = disk.backend.flush();
    const isFreed = () => store.log.slice(from).filter(({ kind }) => kind === "flush").length === 2;
    while (!isFreed()) await Promise.resolve();
    for (let i = 0; i < turns; i++) await Promise.resolve();
    slow.open();
    await Promise.all([written, flushed]);

    const found = new Uint8Array(512);
    await disk.backend.read(found, 100 * KiB);
    expect(found, `${turns} turns`).toEqual(new Uint8Array(512).fill(2));
    expect(store.bytes.length).toBeGreaterThan(before);
    await disk.close();
  }
});

it("cuts the end off when nothing is on its way there", async () => {
  const { disk, store } = await makeDisk();
  await disk.backend.write(new Uint8Array(CLUSTER).fill(1), 0);
  await disk.backend.flush();
  const before = store.bytes.length;
  await disk.backend.discard(0, CLUSTER);
  await disk.backend.flush();
  expect(store.bytes.length).toBe(before - CLUSTER);
  await disk.close();
});

/** Over a backing file that answers when it is told to. */
async function makeDisk() {
  const store = new LogStore(new Uint8Array(0));
  const slow = new Slow();
  const drivers = [qcow2Driver(), logStoreDriver(store), slow.driver];
  const graph = new Graph(await testWorld(), drivers as never);
  const file = { driver: "log-store" };
  const raw = await openDisk(graph, { ...file, "node-name": "new" } as never);
  await qcow2Driver().create!({
    world: graph.world,
    file: raw.backend.edge,
    options: {
      size: SIZE,
      "cluster-size": CLUSTER,
      "backing-file": "below",
      "backing-fmt": "raw",
    },
  });
  await raw.close();
  const backing = { driver: "slow", "read-only": true };
  const disk = await openDisk(graph, { driver: "qcow2", file, backing } as never);
  return { disk, store, slow };
}

class Slow {
  #asked = () => {};
  #gate: Promise<void> = Promise.resolve();
  #open = () => {};

  /** @returns settles when somebody waits */
  close(): Promise<void> {
    this.#gate = new Promise((resolve) => {
      this.#open = resolve;
    });
    return new Promise((resolve) => {
      this.#asked = resolve;
    });
  }

  open(): void {
    this.#open();
  }

  readonly driver: BlockDriver = {
    name: "slow",
    kind: "protocol",
    roles: {},
    openOptions: {},
    open: async () => ({
      limits: { requestAlignment: 1, clusterSize: 0, growable: true },
      getLength: () => SIZE,
      pread: async (buf) => {
        this.#asked();
        await this.#gate;
        buf.fill(3);
      },
    }),
  };
}
