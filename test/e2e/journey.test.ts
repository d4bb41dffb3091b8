/**
 * What a user does with the page, in real Chromium, on images that the real qemu-img made; and what
 * qemu-img says of the file that comes out.
 */

import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { GuestWrite } from "../../scripts/qemu.ts";
import { MiB } from "../../src/base/bytes.ts";
import { makeRaw, visit, writesOn } from "./user.ts";

let folder: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "blocktab-e2e-"));
});

afterAll(() => {
  rmSync(folder, { recursive: true, maxRetries: 5 });
});

describe("Try it", () => {
  it("turns a chain on a server into one local image, while the page writes to it", async () => {
    const top = makeChain("whole");
    await using user = await visit(folder, top);
    const { driver, server } = user;
    await driver.tryIt();
    expect(await driver.chain()).toBe(
      "[http base.qcow2] <── [http mid.qcow2] <── [http top.qcow2] <── [opfs disk.qcow2]",
    );
    await driver.setSpeed("1 MiB/s");
    const during: GuestWrite[] = [];
    for (const write of writesOn(64 * MiB, 6)) {
      await driver.writeSector(write.offset, write.bytes);
      expect(await driver.readSector(write.offset)).toEqual(write.bytes);
      if ((await driver.job())?.outcome === "") during.push(write);
      user.writes.push(write);
    }
    expect(during.length).toBeGreaterThan(0);
    await driver.setSpeed("unlimited");
    expect(await driver.waitForOutcome()).toMatchObject({ outcome: "completed", len: 64 * MiB });
    await driver.until("one image is left", async () => (await driver.images()) === 1);
    expect(await driver.chain()).toBe("[opfs disk.qcow2]");

    server.templateUp = false;
    await driver.reload();
    await driver.waitForDisk();
    await user.expectDiskAndFile();
  });

  it("reads whole with no server at all: the page comes from its cache", async () => {
    await using user = await visit(folder, makeRaw(folder, "offline", 8 * MiB));
    const { driver, server } = user;
    await driver.tryIt();
    await driver.setSpeed("unlimited");
    await driver.waitForOutcome();
    await driver.waitForOffline();
    await server.close();
    await driver.reload();
    await driver.waitForDisk();
    expect(await driver.images()).toBe(1);
    await user.expectDiskAndFile();
  });
});

describe("the job", () => {
  it("stands still while it is paused, and goes on", async () => {
    await using user = await visit(folder, makeRaw(folder, "pause", 32 * MiB));
    const { driver } = user;
    await driver.tryIt();
    await driver.setSpeed("1 MiB/s");
    await driver.until("something is done", async () => ((await driver.job())?.offset ?? 0) > 0);
    await driver.pause();
    const paused = await driver.job();
    // The disk is there for the user all the same.
    const [write] = writesOn(32 * MiB, 1);
    await driver.writeSector(write!.offset, write!.bytes);
    user.writes.push(write!);
    expect(await driver.job()).toMatchObject({ status: "paused", offset: paused!.offset });
    await driver.resume();
    await driver.setSpeed("unlimited");
    expect(await driver.waitForOutcome()).toMatchObject({ outcome: "completed" });
    await user.expectDiskAndFile();
  });

  it("leaves a good overlay when it is cancelled, and skips what is there when it starts again", async () => {
    await using user = await visit(folder, makeRaw(folder, "cancel", 32 * MiB));
    const { driver, server } = user;
    await driver.tryIt();
    await driver.until("some is done", async () => ((await driver.job())?.offset ?? 0) >= 8 * MiB);
    await driver.setSpeed("1 MiB/s");
    await driver.cancel();
    const copied = (await driver.job())!.offset;
    expect(copied).toBeLessThan(32 * MiB);
    expect(await driver.images()).toBe(2);

    await user.expectCleanFile();
    await user.reopenWritable();
    const before = server.templateBytes;
    await driver.startAgain();
    await driver.setSpeed("unlimited");
    expect(await driver.waitForOutcome()).toMatchObject({ outcome: "completed" });
    // A little more than the rest: whole pieces of the http driver's cache.
    expect(server.templateBytes - before).toBeLessThan(32 * MiB - copied + 4 * MiB);
    await user.expectDiskAndFile();
  });

  it("waits when the server goes away, says so, and goes on when it is back", async () => {
    await using user = await visit(folder, makeRaw(folder, "outage", 32 * MiB));
    const { driver, server } = user;
    await driver.tryIt();
    await driver.setSpeed("2 MiB/s");
    await driver.until("something is done", async () => ((await driver.job())?.offset ?? 0) > 0);
    server.templateUp = false;
    await expect(driver.waitForOutcome()).rejects.toThrow(/template\/0\/outage\.raw/);
    // The error is told at once; the pause comes when the other reads have given up, too.
    await expect.poll(async () => (await driver.job())?.status, { timeout: 60_000 }).toBe("paused");
    server.templateUp = true;
    await driver.page.getByTestId("resume").click();
    await expect.poll(async () => (await driver.errors()).length, { timeout: 10_000 }).toBe(0);
    await driver.setSpeed("unlimited");
    expect(await driver.waitForOutcome()).toMatchObject({ outcome: "completed" });
    await user.expectDiskAndFile();
  });

  it("refuses a template that has been changed since the disk was made", async () => {
    const image = makeRaw(folder, "changed", 32 * MiB);
    await using user = await visit(folder, image);
    const { driver } = user;
    await driver.tryIt();
    await driver.cancel();
    makeRaw(folder, "changed", 8 * MiB, 99);
    await driver.reload();
    await driver
      .until("the page objects", async () => (await driver.errors()).length > 0)
      .catch(() => {});
    expect((await driver.errors()).join()).toMatch(/changed/);
  });
});

/**
 *   base.qcow2  48 MiB, 64 KiB clusters, compressed
 *   mid.qcow2   64 MiB, 4 KiB clusters, some data and some zeroes over the base
 *   top.qcow2   64 MiB, 2 MiB clusters, a little data
 *
 * @returns the top's path
 */
function makeChain(name: string): string {
  const at = (file: string) => join(folder, name, file);
  mkdirSync(join(folder, name));
  const raw = makeRaw(folder, `${name}/source`, 24 * MiB);
  img("resize", "-q", "-f", "raw", raw, "48M");
  img("convert", "-c", "-f", "raw", "-O", "qcow2", "-o", "cluster_size=64k", raw, at("base.qcow2"));
  create(at("mid.qcow2"), "base.qcow2", "cluster_size=4k", "64M");
  io(at("mid.qcow2"), "write -P 0x11 5M 3M", "write -z 12M 2M", "write -P 0x22 60M 12k");
  create(at("top.qcow2"), "mid.qcow2", "cluster_size=2M", "64M");
  io(at("top.qcow2"), "write -P 0x33 40M 1000k", "write -P 0x44 6M 512", "write -z 30M 2M");
  return at("top.qcow2");
}

function create(path: string, backing: string, options: string, size: string): void {
  img("create", "-q", "-f", "qcow2", "-o", options, "-b", backing, "-F", "qcow2", path, size);
}

function img(...args: string[]): void {
  execFileSync("qemu-img", args);
}

function io(path: string, ...commands: string[]): void {
  const args = commands.flatMap((command) => ["-c", command]);
  execFileSync("qemu-io", ["-f", "qcow2", ...args, path], {
    stdio: ["ignore", "ignore", "inherit"],
  });
}
