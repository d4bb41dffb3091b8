/** A guest of a tab: what a machine in that page would do with the page's disk. */

import type { Page } from "playwright";
import type { Device } from "../../../src/engine/client.ts";

declare global {
  interface Window {
    /** Its device, from the first write on. */
    guest?: Device;
  }
}

export class Guest {
  readonly #page: Page;

  constructor(page: Page) {
    this.#page = page;
  }

  /** Acknowledged, and not flushed. @param value of each byte of the sector */
  async write(offset: number, value: number): Promise<void> {
    await this.#page.evaluate(
      async ([offset, value]) => {
        const { client, domains } = window.blocktab!;
        if (window.guest === undefined) {
          const { disks } = await domains.domain("page").info();
          window.guest = await client.openDevice(disks[0]!.device!);
        }
        await window.guest.write(offset, new Uint8Array(512).fill(value));
      },
      [offset, value] as const,
    );
  }

  /** @returns "" if it is done, else the error's errno */
  async flush(): Promise<string> {
    return this.#page.evaluate(async () => {
      try {
        await window.guest!.flush();
        return "";
      } catch (error) {
        return String((error as { errno?: string }).errno ?? error);
      }
    });
  }

  /** @returns the value of each byte of the sector; -1 if they differ */
  async read(offset: number): Promise<number> {
    return this.#page.evaluate(async (offset) => {
      const data = await window.guest!.read(offset, 512);
      return data.every((value) => value === data[0]) ? data[0]! : -1;
    }, offset);
  }
}
