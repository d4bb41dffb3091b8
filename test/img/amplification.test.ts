/** What `img` copies is asked first whether it can hold what it claims. See docs/hostile.md. */

import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { bomb } from "../blockjob/bomb.ts";
import { ours } from "./rig.ts";

let folder = "";
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "blocktab-bomb-"));
  writeFileSync(at("bomb.qcow2"), bomb());
  const args = ["-q", "-f", "qcow2", "-b", "bomb.qcow2", "-F", "qcow2", at("over.qcow2")];
  expect(await ours(["create", ...args])).toMatchObject({ status: 0 });
});
afterAll(() => rmSync(folder, { recursive: true }));
const at = (name: string) => join(folder, name);

const COPIES: [string, () => string[]][] = [
  ["convert", () => ["convert", "-O", "qcow2", at("bomb.qcow2"), at("out")]],
  ["convert, of an overlay", () => ["convert", "-O", "raw", at("over.qcow2"), at("out")]],
  ["dd", () => ["dd", `if=${at("bomb.qcow2")}`, `of=${at("out")}`, "bs=1M"]],
  ["rebase", () => ["rebase", "-f", "qcow2", "-b", "", at("over.qcow2")]],
];

it.each(COPIES)(
  "half a TiB in 384 KiB is refused before anything is made: %s",
  async (_name, argv) => {
    // Where it is not refused, it does not fill this disk.
    const { status, stderr } = await ours(argv(), { signal: AbortSignal.timeout(3000) });
    expect(stderr).toMatch(/is not to be believed/);
    expect(status).toBe(1);
    expect(existsSync(at("out"))).toBe(false);
  },
);

it("is looked into by who copies nothing", async () => {
  expect(await ours(["info", at("bomb.qcow2")])).toMatchObject({ status: 0 });
  expect(await ours(["check", at("bomb.qcow2")])).toMatchObject({ status: 2 });
});
