/**
 * A guest of one tab: writes, reads and flushes at random, side by side. Each write has an id of its
 * own, which stands in every sector that it writes.
 */

import type { Random } from "../../../src/base/random.ts";
import type { Device } from "../../../src/engine/device.ts";
import { QmpError } from "../../../src/engine/qmp-error.ts";
import type { History } from "./history.ts";
import { DISK_BYTES, type Tab } from "./tab.ts";

export const SECTOR_BYTES = 512;
/** Few, so that guests get into each other's way. */
export const SECTORS = 24;
/** Sectors stand in different clusters. */
const STRIDE = DISK_BYTES / SECTORS - ((DISK_BYTES / SECTORS) % SECTOR_BYTES);

export class Guest {
  readonly tab: Tab;
  readonly #history: History;
  readonly #random: Random;
  #disk: Device | null = null;
  isDead = false;
  /** Requests that nobody has answered. */
  readonly underWay = new Set<Promise<void>>();

  constructor(tab: Tab, history: History, random: Random) {
    this.tab = tab;
    this.#history = history;
    this.#random = random;
  }

  /** Begins something; it ends some time, if the tab lives. */
  act(): void {
    const kind = this.#random.below(10);
    if (this.#disk === null) this.#do(() => this.#open());
    else if (kind < 5) this.#do(() => this.#write());
    else if (kind < 8) this.#do(() => this.#read());
    else if (kind < 9) this.#do(() => this.#flush());
    else this.#do(() => this.#ask());
  }

  #do(work: () => Promise<void>): void {
    const done = work().finally(() => this.underWay.delete(done));
    this.underWay.add(done);
  }

  async #open(): Promise<void> {
    this.#disk = await this.tab.client.openDevice("d");
  }

  async #write(): Promise<void> {
    const sector = this.#random.below(SECTORS);
    const isZero = this.#random.below(6) === 0;
    const write = this.#history.begin(this, sector, isZero);
    const offset = sector * STRIDE;
    if (isZero) await this.#disk!.writeZeroes(offset, SECTOR_BYTES);
    else {
      const data = new Uint8Array(SECTOR_BYTES);
      new Uint32Array(data.buffer).fill(write.id);
      await this.#disk!.write(offset, data);
    }
    if (!this.isDead) this.#history.end(write, this.tab.client.state.epoch);
  }

  async #read(): Promise<void> {
    await this.readSector(this.#disk!, this.#random.below(SECTORS));
  }

  /** Throws if the sector reads as what it cannot be. */
  async readSector(disk: Device, sector: number): Promise<void> {
    const began = this.#history.now();
    const data = await disk.read(sector * STRIDE, SECTOR_BYTES);
    if (!this.isDead) this.#history.check(sector, idOf(data), began);
  }

  async #flush(): Promise<void> {
    const began = this.#history.now();
    const { client } = this.tab;
    const { epoch, phase } = client.state;
    try {
      await this.#disk!.flush();
      const isOneOwner = phase === "serving" && client.state.epoch === epoch;
      if (!this.isDead) this.#history.flushed(began, this, isOneOwner ? epoch : null);
    } catch (error) {
      if (!(error instanceof QmpError && error.errno === "EIO")) throw error;
      // What it had written and not flushed may be lost, and it has been told.
      if (!this.isDead) this.#history.lost(this);
    }
  }

  /** One command that only asks, or one that changes something: done, or nobody knows. */
  async #ask(): Promise<void> {
    const { client } = this.tab;
    if (this.#random.below(2) === 0) {
      const exports = await client.execute("query-block-exports");
      if (exports[0]?.id !== "d") throw new Error("The export is not there");
      return;
    }
    const name = `m${this.#random.below(2 ** 31)}`;
    const options = { driver: "memory", "node-name": name, size: 512 } as const;
    try {
      await client.execute("blockdev-add", options);
    } catch (error) {
      if (!(error instanceof QmpError && /was lost while/.test(error.desc))) throw error;
    }
  }
}

function idOf(data: Uint8Array): number {
  const ids = new Set(new Uint32Array(data.buffer, data.byteOffset, data.length / 4));
  if (ids.size !== 1) throw new Error("A sector is torn");
  return [...ids][0]!;
}
