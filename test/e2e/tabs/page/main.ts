/** A tab with a guest. The test calls it through window.tab, and hears of every step beforehand. */

import { seededRandom } from "../../../../src/base/random.ts";
import { connectTab } from "../../../../src/domain/connect-tab.ts";
import type { Device } from "../../../../src/engine/device.ts";
import { QmpError } from "../../../../src/engine/qmp-error.ts";
import { DISK_BYTES, DOMAIN, SECTOR_BYTES, SECTORS, STRIDE, type Word } from "../plan.ts";
import { makeDomain } from "./make.ts";
import { settle, User } from "./user.ts";

declare global {
  interface Window {
    tab: typeof tab;
    /** Of the test: resolves when it has heard, see Word. */
    tell(guest: number, word: Word): Promise<number>;
  }
}

/** Of its state. */
let epoch = 0;
let isServing = false;
const { client, domains } = await connectTab({
  onState: (state) => {
    epoch = state.epoch;
    isServing = state.phase === "serving";
  },
});
const domain = domains.domain(DOMAIN);
let isStopped = false;
/** Of this document: the next one in this tab is another guest. */
let guest = 0;
const tell = (word: Word) => window.tell(guest, word);

const tab = {
  make: () => makeDomain(client, domains),

  async device(): Promise<Device> {
    const { disks } = await domain.info();
    return client.openDevice(disks[0]!.device!);
  },

  /** Goes on until stop(), or the end of the tab. */
  async run(seed: number): Promise<number> {
    guest = seed;
    const random = seededRandom(seed);
    const disk = await tab.device();
    const user = this.use(new User(domain, random, `${seed}`));
    let steps = 0;
    for (; !isStopped; steps++) {
      const dice = random.below(10);
      const sector = random.below(SECTORS);
      if (dice < 5) await write(disk, sector);
      else if (dice < 8) await tab.read(sector, disk);
      else if (dice < 9) await flush(disk);
      else await client.execute("query-block-exports");
    }
    await user;
    return steps;
  },

  async use(user: User): Promise<void> {
    while (!isStopped) await tell({ what: "asked", text: await user.act() });
  },

  stop(): void {
    isStopped = true;
  },

  async read(sector: number, disk?: Device): Promise<void> {
    const began = await tell({ what: "begin" });
    const device = disk ?? (await tab.device());
    const data = await device.read(sector * STRIDE, SECTOR_BYTES);
    const ids = new Set(new Uint32Array(data.buffer));
    if (ids.size !== 1) throw new Error(`Sector ${sector} is torn`);
    await tell({ what: "read", sector, id: [...ids][0]!, began });
  },

  /** A read, whoever answers it. */
  async look(): Promise<void> {
    const disk = await tab.device();
    await disk.read(0, SECTOR_BYTES);
    await disk.close();
  },

  /** Every job comes to its end. */
  settle: () => settle(domain),

  /** Stops the domain, and sends the disk as this engine reads it, and its files. @returns these, the top first */
  async send(): Promise<string[]> {
    const { disks } = await domain.info();
    const disk = await tab.device();
    await put("disk", await disk.read(0, DISK_BYTES));
    await disk.close();
    await domain.destroy();
    const names = disks[0]!.chain.map(({ source }) => (source as { filename?: string }).filename!);
    for (const name of names) await put(name, await client.getFile(name));
    await client.close();
    return names;
  },
};

window.tab = tab;

async function write(disk: Device, sector: number): Promise<void> {
  const id = await tell({ what: "begin-write", sector });
  const data = new Uint8Array(SECTOR_BYTES);
  new Uint32Array(data.buffer).fill(id);
  await disk.write(sector * STRIDE, data);
  await tell({ what: "wrote", id, epoch });
}

async function flush(disk: Device): Promise<void> {
  const owner = isServing ? epoch : -1;
  const began = await tell({ what: "begin" });
  try {
    await disk.flush();
  } catch (error) {
    if (!(error instanceof QmpError && error.errno === "EIO")) throw error;
    await tell({ what: "lost" });
    return;
  }
  await tell({ what: "flushed", began, epoch: epoch === owner ? epoch : -1 });
}

async function put(name: string, body: Blob | Uint8Array<ArrayBuffer>): Promise<void> {
  const { ok } = await fetch(`/put/${name}`, { method: "POST", body });
  if (!ok) throw new Error(`'${name}' could not be sent`);
}
