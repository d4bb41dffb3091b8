/** One program at a time has a file: src/engine/node-lock.ts, with real processes. */

import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { rename } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { SystemClock } from "../../../src/base/clock.ts";
import { createNodeEngine } from "../../../src/engine/node.ts";
import { openFileJournal } from "../../../src/engine/node-journal.ts";
import { FileLock } from "../../../src/engine/node-lock.ts";

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "blocktab-lock-"));
});

afterEach(() => rmSync(folder, { recursive: true }));

const take = (path = join(folder, "file"), show?: typeof rename) =>
  FileLock.take(path, "the file", new SystemClock(), show);

it("a second one is refused, and told who has it; then it may", async () => {
  const lock = await take();
  const busy = {
    errno: "EBUSY",
    message: expect.stringContaining(`process ${process.pid} has it`),
  };
  await expect(take()).rejects.toMatchObject(busy);
  await lock.release();
  await (await take()).release();
  expect(readdirSync(folder)).toEqual([]);
});

it("of many at once one has it, and the others are refused", async () => {
  for (let round = 0; round < 5; round++) {
    const tried = await Promise.allSettled(Array.from({ length: 6 }, () => take()));
    const taken = tried.filter((one) => one.status === "fulfilled");
    expect(taken.length).toBe(1);
    for (const one of tried) {
      if (one.status === "rejected") expect(one.reason).toMatchObject({ errno: "EBUSY" });
    }
    await taken[0]!.value.release();
  }
  expect(readdirSync(folder)).toEqual([]);
});

it("what one has left who was killed before he was seen goes with the next; who is about to be seen stays", async () => {
  const path = (name: string) => join(folder, `.file.lock.${name}`);
  const kill =
    "net.createServer().listen(process.argv[1], () => process.kill(process.pid, 'SIGKILL'))";
  const { signal } = spawnSync(process.execPath, ["-e", kill, path("killed")]);
  expect(signal).toBe("SIGKILL");
  const there = createServer((asker) => asker.end("wants process 1\n"));
  await new Promise<void>((resolve) => void there.listen(path("there"), resolve));
  expect(readdirSync(folder).toSorted()).toEqual([".file.lock.killed", ".file.lock.there"]);
  const lock = await take();
  expect(readdirSync(folder).toSorted()).toEqual([
    ".file.lock.there",
    expect.stringMatching(/^file\.lock\./),
  ]);
  await lock.release();
  there.close();
});

it("one whose name is taken for such a leftover takes another", async () => {
  let removed = 0;
  const lock = await take(join(folder, "file"), async (from, to) => {
    if (removed++ === 0) rmSync(from);
    await rename(from, to);
  });
  expect(removed).toBe(2);
  expect(readdirSync(folder)).toEqual([expect.stringMatching(/^file\.lock\./)]);
  await expect(take()).rejects.toMatchObject({ errno: "EBUSY" });
  await lock.release();
  expect(readdirSync(folder)).toEqual([]);
});

it("a folder may lie deeper than a socket's name can say", async () => {
  const deep = join(folder, ..."abc".split("").map((letter) => letter.repeat(60)));
  mkdirSync(deep, { recursive: true });
  const lock = await take(join(deep, "file"));
  await expect(take(join(deep, "file"))).rejects.toMatchObject({ errno: "EBUSY" });
  await lock.release();
  await expect(take(join(folder, "f".repeat(90)))).rejects.toMatchObject({ errno: "EINVAL" });
  await expect(take(join(folder, "no", "file"))).rejects.toMatchObject({ errno: "ENOENT" });
});

it("an engine has its journal until it is closed, however that goes", async () => {
  const path = join(folder, "journal.json");
  for (const end of ["close", "suspend"] as const) {
    const engine = await createNodeEngine({ journal: await openFileJournal(path) });
    await engine.recover();
    await expect(openFileJournal(path)).rejects.toMatchObject({ errno: "EBUSY" });
    await engine[end]();
  }
  const engine = await createNodeEngine({ journal: await openFileJournal(path) });
  engine.stop(new Error("planted"));
  await expect(engine.close()).rejects.toThrow("planted");
  await (await openFileJournal(path)).release?.();
  expect(readdirSync(folder).toSorted()).toEqual(["journal.json", "journal.json.intents"]);
});
