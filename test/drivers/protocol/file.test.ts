import { execFileSync } from "node:child_process";
import { closeSync, openSync, readdirSync, readlinkSync } from "node:fs";
import { mkdtemp, open, rename, rm, stat, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Clock } from "../../../src/base/clock.ts";
import { fileDriver } from "../../../src/drivers/protocol/file.ts";
import { FileIo } from "../../../src/drivers/protocol/file-io.ts";
import {
  describeProtocol,
  failure,
  filled,
  noise,
  storeWorld,
} from "../../conformance/protocol.ts";

const world = storeWorld();
const driver = fileDriver();
let directory: string;
let count = 0;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "blocktab-file-"));
});
afterAll(() => rm(directory, { recursive: true }));

function opened(filename: string, readOnly = false) {
  return driver.open({ world, options: { filename }, nodeName: "n", readOnly, children: {} });
}

describeProtocol("file", { writable: true, sharedReaders: true, far: 2 ** 40 }, async (content) => {
  const filename = join(directory, `${++count}.img`);
  await driver.create!({ world, options: { filename, size: 0 } });
  const store = {
    open: (readOnly: boolean) => opened(filename, readOnly),
    remove: () => rm(filename),
  };
  return filled(store, content);
});

describe("fileDriver", () => {
  it("makes holes, not blocks", async () => {
    const filename = join(directory, "holes");
    await driver.create!({ world, options: { filename, size: 2 ** 40 } });
    const { size, blocks } = await stat(filename);
    expect({ size, blocks }).toEqual({ size: 2 ** 40, blocks: 0 });
    const state = await opened(filename);
    await state.pwriteZeroes?.(2 ** 40, 2 ** 30, {});
    await state.close?.();
    expect((await stat(filename)).size).toBe(2 ** 40 + 2 ** 30);
    expect((await stat(filename)).blocks).toBe(0);
  });

  it("fails every flush after one that has failed: the system takes for written what it has lost", async () => {
    const filename = join(directory, "flushed");
    await writeFile(filename, noise(5000));
    const state = await opened(filename);
    await state.pwrite?.(noise(512, 2), 0, {});
    const fd = fdOf(filename);
    closeSync(fd);
    const taken = openSync("/dev/null", "w");
    expect(taken).toBe(fd); // What cannot be flushed has its number.
    const both = [failure(state.flush!(), "EINVAL"), failure(state.flush!(), "EINVAL")];
    await Promise.all(both);
    closeSync(taken);
    expect(openSync(filename, "r+")).toBe(fd);
    await failure(state.flush!(), "EINVAL");
    await failure(state.reopen!(true), "EINVAL");
    await state.close?.();
    const again = await opened(filename);
    await again.flush?.();
    await again.close?.();
  });

  it("does not go on with another file of that name, nor with a changed one", async () => {
    const filename = join(directory, "mine");
    await writeFile(filename, noise(5000));
    const state = await opened(filename, true);
    await rename(filename, join(directory, "moved"));
    await writeFile(filename, noise(5000, 2));
    await failure(state.reopen!(false), "ESTALE");
    await rename(join(directory, "moved"), filename);
    await truncate(filename, 6000);
    await failure(state.reopen!(false), "ESTALE");
    await rm(filename);
    await failure(state.reopen!(false), "ENOENT");
    const buf = new Uint8Array(5000);
    await state.pread!(buf, 0, {});
    expect(buf).toEqual(noise(5000));
    await state.close?.();
  });

  it("empties what was there when it creates", async () => {
    const filename = join(directory, "old");
    await writeFile(filename, noise(5000));
    await driver.create!({ world, options: { filename, size: 100 } });
    const state = await opened(filename, true);
    const buf = noise(100);
    await state.pread?.(buf, 0, {});
    expect(buf).toEqual(new Uint8Array(100));
    await state.close?.();
  });

  it("says what is wrong with a name", async () => {
    expect((await failure(opened(join(directory, "none")), "ENOENT")).message).toContain("none");
    await failure(opened(directory, true), "EINVAL");
    await failure(opened(directory), "EINVAL");
    await failure(opened("/dev/null"), "EINVAL");
    await failure(opened(`${directory}/a\0b`), "EINVAL");
    await failure(opened(join(directory, "x".repeat(300))), "EINVAL");
    const inNothing = { filename: join(directory, "no", "file"), size: 1 };
    await failure(driver.create!({ world, options: inNothing }), "ENOENT");
  });

  it("does not wait at a pipe for somebody at its other end", async () => {
    const filename = join(directory, "pipe");
    execFileSync("mkfifo", [filename]);
    await failure(opened(filename, true), "EINVAL");
    await failure(opened(filename), "EINVAL");
  });

  it("keeps its length where it cannot grow", async () => {
    const filename = join(directory, "too-long");
    await driver.create!({ world, options: { filename, size: 0 } });
    const file = await opened(filename);
    // Longer than any file system of this machine lets a file be.
    await failure(file.truncate!(2 ** 53 - 1), "EFBIG");
    expect(file.getLength?.()).toBe(0);
    await file.close?.();
  });

  it("fails where the file has become shorter behind its back", async () => {
    const filename = join(directory, "shrunk");
    await writeFile(filename, noise(5000));
    const state = await opened(filename, true);
    await truncate(filename, 1000);
    const error = await failure(state.pread!(new Uint8Array(2000), 500, {}), "EIO");
    expect(error.message).toContain("shrunk");
    await state.close?.();
  });
});

/** Of the only one that is open. */
function fdOf(filename: string): number {
  const fds = readdirSync("/proc/self/fd").map(Number);
  const found = fds.filter((fd) => linkOf(fd) === filename);
  expect(found).toHaveLength(1);
  return found[0]!;
}

function linkOf(fd: number): string | null {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`);
  } catch {
    return null; // That of the listing itself.
  }
}

describe("FileIo", () => {
  /** A clock of which each look at it takes so long. */
  const slowness = (ms: number) => {
    let now = 0;
    return { ...world.clock, now: () => (now += ms) } as Clock;
  };

  it("reads and writes in this thread what is small, and in the pool what is long", async () => {
    const file = await open(join(directory, "here"), "w+");
    const io = new FileIo(slowness(0));
    expect(io.write(file, noise(65536), 0)).toBe(65536);
    expect(await io.write(file, noise(65537), 65536)).toBe(65537);
    const [short, long] = [new Uint8Array(65536), new Uint8Array(65537)];
    expect(io.read(file, short, 0)).toBe(65536);
    const pending = io.read(file, long, 65536);
    expect(pending).toBeInstanceOf(Promise);
    expect(await pending).toBe(65537);
    expect([short, long]).toEqual([noise(65536), noise(65537)]);
    expect(io.read(file, short, 2 ** 40)).toBe(0);
    await file.close();
  });

  it("lets others have a turn, however many short calls follow each other", async () => {
    const filename = join(directory, "turns");
    await writeFile(filename, noise(512));
    const file = await open(filename);
    const io = new FileIo(slowness(0));
    const buf = new Uint8Array(512);
    let turns = 0;
    let isOver = false;
    const count = () => {
      turns++;
      if (!isOver) setImmediate(count);
    };
    setImmediate(count);
    await Promise.all(
      Array.from({ length: 4 }, async () => {
        for (let i = 0; i < 1000; i++) await io.read(file, buf, 0);
      }),
    );
    isOver = true;
    expect(turns).toBeGreaterThan(10);
    await file.close();
  });

  it("leaves the next calls to the pool after a slow one, and tries again", async () => {
    const file = await open(join(directory, "slow"), "w+");
    const io = new FileIo(slowness(5));
    const isHere = async () => {
      const bytes = io.write(file, noise(512), 0);
      await bytes;
      return typeof bytes === "number";
    };
    const seen: boolean[] = [];
    for (let i = 0; i < 70; i++) seen.push(await isHere());
    expect(seen.flatMap((here, i) => (here ? [i] : []))).toEqual([0, 33, 66]);
    await file.close();
  });
});
