/**
 * The fuzzer's images before the real qemu-img and qemu-io: whether they open, to read and to write, and
 * what a check says. BLOCKTAB_MUTANTS=2000 looks at more of them, BLOCKTAB_SEED at others.
 */

import { join } from "node:path";
import { expect, it } from "vitest";
import { BlockError } from "../../src/base/errors.ts";
import { seededRandom } from "../../src/base/random.ts";
import { ourCheck } from "../drivers/format/qcow2/check-rig.ts";
import { openBytes } from "../drivers/format/qcow2/lies.ts";
import { hasQemu, testFolder, writeRaw } from "../drivers/format/rig.ts";
import { Dice } from "../model/dice.ts";
import { run } from "../spawn.ts";
import { makeCase } from "./qcow2/fuzz.ts";
import { PASSPHRASE, SECRET } from "./qcow2/luks.ts";
import { qemuSeeds } from "./qcow2/seeds.ts";

const MUTANTS = Number(process.env["BLOCKTAB_MUTANTS"] ?? 60);
const SEED = Number(process.env["BLOCKTAB_SEED"] ?? 1);
const folder = testFolder();
const path = join(folder, "m.qcow2");
const PLAIN = { driver: "qcow2", backing: null, file: { driver: "file", filename: path } };
const ENCRYPTED = { ...PLAIN, encrypt: { format: "luks", "key-secret": SECRET } };
const OBJECT = ["--object", `secret,id=${SECRET},data=${PASSPHRASE}`];

/** Of an attempt to open: "" or the error. Of a check: clean, leaks, or bad. */
type Answers = Readonly<Record<"read" | "write" | "check", string>>;

const nodeOf = (encrypted: boolean) => `json:${JSON.stringify(encrypted ? ENCRYPTED : PLAIN)}`;

function theirOpen(readOnly: boolean, encrypted: boolean): string {
  const args = [...OBJECT, ...(readOnly ? ["-r"] : []), "-c", "quit", nodeOf(encrypted)];
  const { stderr } = run("qemu-io", args);
  return /can't open/.test(stderr) ? stderr.trim() : "";
}

async function ourOpen(bytes: Uint8Array, readOnly: boolean, encrypted: boolean): Promise<string> {
  try {
    const passphrase = encrypted ? PASSPHRASE : undefined;
    const disk = await openBytes(bytes.slice(), readOnly, undefined, passphrase);
    await disk.close();
    return "";
  } catch (error) {
    if (error instanceof BlockError) return error.message;
    throw error;
  }
}

async function ask(
  bytes: Uint8Array,
  encrypted: boolean,
): Promise<{ theirs: Answers; ours: Answers & { why: string } }> {
  writeRaw(folder, "m.qcow2", bytes);
  const args = ["check", ...OBJECT, "--output=json", nodeOf(encrypted)];
  const { status } = run("qemu-img", args, { quiet: true });
  const { outcome, error, findings } = await ourCheck(bytes, "none");
  const counts = outcome?.result;
  const isBad = !counts || counts.corruptions + counts["check-errors"] > 0;
  const verdict = isBad ? "bad" : counts.leaks > 0 ? "leaks" : "clean";
  return {
    theirs: {
      check: status === 0 ? "clean" : status === 3 ? "leaks" : "bad",
      // Last, since it changes the file.
      read: theirOpen(true, encrypted),
      write: theirOpen(false, encrypted),
    },
    ours: {
      check: verdict,
      read: await ourOpen(bytes, true, encrypted),
      write: await ourOpen(bytes, false, encrypted),
      why: error?.message ?? findings[0]?.text ?? "",
    },
  };
}

/** Where ours is stricter than the real ones, and why. */
const STRICTER: readonly (readonly [RegExp, string])[] = [
  [/at most 2\^53 - 1/, "offsets are numbers here"],
  [/past the file's end|past the end of the file|the file ends|is cut off/, "no zeroes for data"],
  [/_offset is 0/, "tables on the header"],
  [/two entries lead|lie in one place|on the image's/, "a write to one would be one to the other"],
];

function isOnPurpose(problem: string): boolean {
  return STRICTER.some(([pattern]) => pattern.test(problem));
}

it.skipIf(!hasQemu)(
  `${MUTANTS} mutants from seed ${SEED} are opened and checked as by QEMU`,
  async () => {
    const seeds = qemuSeeds();
    const seen = new Map<string, number>();
    const count = (kind: string) => seen.set(kind, (seen.get(kind) ?? 0) + 1);
    for (let seed = SEED; seed < SEED + MUTANTS; seed++) {
      const story: string[] = [];
      const { bytes, dataFile, encrypted } = makeCase(new Dice(seededRandom(seed)), seeds, story);
      if (dataFile) continue;
      const { theirs, ours } = await ask(bytes, encrypted);
      const told = JSON.stringify({ seed, theirs, ours, story: story.join(", ").slice(0, 500) });
      if (encrypted) count(ours.read === "" ? "LUKS, opened" : "LUKS, not opened");
      count(ours.write === "" ? "written to by both" : "refused by ours");
      // What QEMU writes to nowhere is written to by nobody.
      if (ours.write === "") expect(theirs.write, told).toBe("");
      else if (theirs.write === "") expect(isOnPurpose(ours.write), told).toBe(true);
      // Bitmaps that make no sense are left out where QEMU opens nothing.
      if (ours.read === "" && theirs.read !== "") expect(theirs.read, told).toMatch(/bitmap/i);
      if (ours.read !== "" && theirs.read === "") expect(isOnPurpose(ours.read), told).toBe(true);
      if (theirs.check === ours.check) count(`check: ${ours.check}`);
      else if (encrypted && theirs.read !== "") count("checked without a key, which QEMU wants");
      else if (/bitmap/i.test(theirs.read)) count("bitmaps that QEMU does not open");
      else expect(isOnPurpose(ours.read + ours.write + ours.why), told).toBe(true);
    }
    console.log([...seen].map(([kind, n]) => `${n} ${kind}`).join(", "));
    for (const kind of ["written to by both", "refused by ours", "check: bad", "check: clean"]) {
      expect(seen.get(kind), kind).toBeGreaterThan(MUTANTS / 20);
    }
  },
  3_600_000,
);
