/** A tab with a guest. The test calls it through window.tab, and hears of every step beforehand. */

import { seededRandom } from "../../../../src/base/random.ts";
import type { Device } from "../../../../src/engine/device.ts";
import { QmpError } from "../../../../src/engine/qmp-error.ts";
import { connectShared } from "../../../../src/engine/tabs/connect.ts";
import { DISK, DISK_BYTES, SECTOR_BYTES, SECTORS, STRIDE, type Word } from "../plan.ts";

declare global {
  interface Window {
    tab: typeof tab;
    /** Of the test: resolves when it has heard, see Word. */
    tell(guest: number, word: Word): Promise<number>;
  }
}

const client = await connectShared({
  worker: (name) => new Worker(new URL("./worker.ts", import.meta.url), { type: "module", name }),
});
let isStopped = false;
/** Of this document: the next one in this tab is another guest. */
let guest = 0;
const tell = (word: Word) => window.tell(guest, word);

const tab = {
  state: () => client.state,

  /** Goes on until stop(), or the end of the tab. */
  async run(seed: number): Promise<number> {
    guest = seed;
    const random = seededRandom(seed);
    const disk = await client.openDevice("d");
    let steps = 0;
    for (; !isStopped; steps++) {
      const dice = random.below(10);
      const sector = random.below(SECTORS);
      if (dice < 5) await write(disk, sector);
      else if (dice < 8) await tab.read(sector, disk);
      else if (dice < 9) await flush(disk);
      else await client.execute("query-block-exports");
    }
    return steps;
  },

  stop(): void {
    isStopped = true;
  },

  async read(sector: number, disk?: Device): Promise<void> {
    const began = await tell({ what: "begin" });
    const device = disk ?? (await client.openDevice("d"));
    const data = await device.read(sector * STRIDE, SECTOR_BYTES);
    const ids = new Set(new Uint32Array(data.buffer));
    if (ids.size !== 1) throw new Error(`Sector ${sector} is torn`);
    await tell({ what: "read", sector, id: [...ids][0]!, began });
  },

  /** A read, whoever answers it. */
  async look(): Promise<void> {
    const disk = await client.openDevice("d");
    await disk.read(0, SECTOR_BYTES);
    await disk.close();
  },

  /** Closes the disk for all tabs, and sends it: as this engine reads it, and the file. */
  async send(): Promise<void> {
    const disk = await client.openDevice("d");
    await put("disk", await disk.read(0, DISK_BYTES));
    await client.execute("block-export-del", { id: "d", mode: "hard" });
    await client.execute("blockdev-del", { "node-name": "disk" });
    await put("file", await client.getFile(DISK));
    await client.close();
  },
};

window.tab = tab;

async function write(disk: Device, sector: number): Promise<void> {
  const id = await tell({ what: "begin-write", sector });
  const data = new Uint8Array(SECTOR_BYTES);
  new Uint32Array(data.buffer).fill(id);
  await disk.write(sector * STRIDE, data);
  await tell({ what: "wrote", id, epoch: client.state.epoch });
}

async function flush(disk: Device): Promise<void> {
  const { epoch, phase } = client.state;
  const began = await tell({ what: "begin" });
  try {
    await disk.flush();
  } catch (error) {
    if (!(error instanceof QmpError && error.errno === "EIO")) throw error;
    await tell({ what: "lost" });
    return;
  }
  const isOneOwner = phase === "serving" && client.state.epoch === epoch;
  await tell({ what: "flushed", began, epoch: isOneOwner ? epoch : -1 });
}

async function put(name: string, body: Blob | Uint8Array<ArrayBuffer>): Promise<void> {
  const { ok } = await fetch(`/put/${name}`, { method: "POST", body });
  if (!ok) throw new Error(`'${name}' could not be sent`);
}
