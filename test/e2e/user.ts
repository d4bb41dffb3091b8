/** A user of the page: a server, a browser, and what the user has written so far. */

import { mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { BrowserContext } from "playwright";
import { expect } from "vitest";
import { ensurePage } from "../../scripts/page.ts";
import { launchChromium, PageDriver } from "../../scripts/page-driver.ts";
import {
  checkImage,
  compareImages,
  diskSha256,
  type GuestWrite,
  makeExpected,
} from "../../scripts/qemu.ts";
import { type RunningServer, startServer } from "../../scripts/server.ts";
import { resolveTemplate } from "../../scripts/template.ts";
import { seededRandom } from "../../src/base/random.ts";

/**
 * A browser of its own on a page of its own.
 *
 * @param folder for what there is to keep; the caller removes it
 * @param launch makes the browser, with this profile
 */
export async function visit(
  folder: string,
  image: string,
  launch: (profile: string) => Promise<BrowserContext> = launchChromium,
): Promise<User> {
  const page = await ensurePage();
  const template = await resolveTemplate(image);
  const server = await startServer({ page, template, port: 0 });
  const profile = mkdtempSync(join(folder, "user-"));
  const chromium = await launch(profile);
  const driver = new PageDriver(chromium.pages()[0] ?? (await chromium.newPage()));
  await driver.goto(server.url);
  return new User(driver, server, chromium, image, profile);
}

export class User implements AsyncDisposable {
  /** Of the tab that the user looks at. */
  driver: PageDriver;
  readonly server: RunningServer;
  /** Those that the disk must have now: what is undone is taken out again. */
  readonly writes: GuestWrite[] = [];
  /** How often write() was called. */
  written = 0;
  #expected = 0;
  readonly #chromium: BrowserContext;
  readonly #image: string;
  readonly #folder: string;

  constructor(
    driver: PageDriver,
    server: RunningServer,
    chromium: BrowserContext,
    image: string,
    folder: string,
  ) {
    this.driver = driver;
    this.server = server;
    this.#chromium = chromium;
    this.#image = image;
    this.#folder = folder;
  }

  /** One more tab of the same browser, on the page. */
  async openTab(): Promise<PageDriver> {
    const driver = new PageDriver(await this.#chromium.newPage());
    await driver.goto(this.server.url);
    return driver;
  }

  /** Writes a sector on the page. */
  async write(offset: number, bytes: Uint8Array): Promise<void> {
    await this.driver.writeSector(offset, bytes);
    this.writes.push({ offset, bytes });
    this.written += 1;
  }

  /** @returns a qcow2 of QEMU's own with what the disk must be now: template and writes */
  async expectedDisk(): Promise<string> {
    const expected = join(this.#folder, `expected${this.#expected++}.qcow2`);
    const format = this.#image.endsWith(".raw") ? "raw" : "qcow2";
    await makeExpected(expected, { path: this.#image, format }, this.writes);
    return expected;
  }

  /** What the page must show of a disk over a raw template. */
  expectedSector(offset: number): Uint8Array {
    const written = this.writes.findLast((write) => write.offset === offset);
    return written?.bytes ?? readFileSync(this.#image).subarray(offset, offset + 512);
  }

  /** The page reads, and the downloaded file holds, the template plus the page's own writes. */
  async expectDiskAndFile(): Promise<void> {
    const expected = await this.expectedDisk();
    expect((await this.driver.verify()).sha256).toBe(await diskSha256(expected));
    const file = await this.expectCleanFile();
    expect(await compareImages(file, expected)).toBeNull();
  }

  /** Where the last download of the disk is. */
  get file(): string {
    return join(this.#folder, "downloaded.qcow2");
  }

  /** @returns the downloaded file */
  async expectCleanFile(): Promise<string> {
    await this.driver.download(this.file);
    expect(await checkImage(this.file)).toBeNull();
    return this.file;
  }

  /** Leaves the page's site so much more room, as a full disk does. @param bytes null: as before */
  async limitStorage(bytes: number | null): Promise<void> {
    const session = await this.#chromium.newCDPSession(this.driver.page);
    const origin = new URL(this.server.url).origin;
    const { usage } = await session.send("Storage.getUsageAndQuota", { origin });
    const limit = bytes === null ? {} : { quotaSize: usage + bytes };
    await session.send("Storage.overrideQuotaForOrigin", { origin, ...limit });
    // The limit goes with the session: this one stays.
  }

  /** After a download the disk is open for reading only. */
  async reopenWritable(): Promise<void> {
    await this.driver.page.getByTestId("reopen-writable").click();
    await this.driver.waitForDisk();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#chromium.close();
    await this.server.close();
  }
}

/** A raw disk of random bytes. @returns its path */
export function makeRaw(folder: string, name: string, bytes: number, seed = 5): string {
  const path = join(folder, `${name}.raw`);
  const content = new Uint8Array(bytes);
  seededRandom(seed).fill(content);
  writeFileSync(path, content);
  return path;
}

/** Sectors of random bytes at random places; the same every time. */
export function writesOn(size: number, count: number): GuestWrite[] {
  const random = seededRandom(count);
  return Array.from({ length: count }, () => {
    const bytes = new Uint8Array(512);
    random.fill(bytes);
    return { offset: random.below(size / 512) * 512, bytes };
  });
}
