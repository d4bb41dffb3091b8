/**
 * Every job as a user meets it: started from the Jobs panel, watched there, and ended there; and what
 * qemu-img says of the files that come out.
 */

import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { checkImage, compareImages } from "../../scripts/qemu.ts";
import { MiB } from "../../src/base/bytes.ts";
import { makeRaw, type User, visit, writesOn } from "./user.ts";

const DISK_BYTES = 16 * MiB;
/** The page looks again by itself, in its own time. */
const PATIENT = { timeout: 30_000 };

let folder: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "blocktab-e2e-jobs-"));
});

afterAll(() => {
  rmSync(folder, { recursive: true, maxRetries: 5 });
});

describe("backup", () => {
  it("copies the disk as it was when it was started; it can be paused on the way", async () => {
    await using user = await withDisk("backup");
    const { driver } = user;
    await driver.makeImage("copy.qcow2");
    await write(user, 3);
    const atTheStart = await user.expectedDisk();
    const id = await driver.startJob("backup", { target: "copy", speed: "4 MiB/s" });
    await driver.pressOn(id, "Pause");
    const { offset } = await driver.waitForListed(id, "paused");
    await write(user, 3);
    expect(await driver.listedJob(id)).toMatchObject({ status: "paused", offset });
    await driver.pressOn(id, "Resume");
    await driver.waitForListed(id, "running");
    // The disk stays where it was, and the page knows.
    expect(await driver.chain()).toBe("[opfs disk.qcow2]");
    await driver.pressOn(id, "No limit");
    const ended = await driver.waitForListed(id, "completed");
    expect(ended).toMatchObject({ offset: DISK_BYTES, len: DISK_BYTES, problem: "" });
    await driver.pressOn(id, "Dismiss");
    await driver.until("it is gone", async () => (await driver.listedJob(id)) === null);
    await expectImage(user, "copy.qcow2", atTheStart);
    await user.expectDiskAndFile();
  });

  it("of what has changed goes over the last one", async () => {
    await using user = await withDisk("incremental");
    const { driver } = user;
    await driver.makeImage("copy.qcow2");
    await driver.sendForm("bitmap", { name: "since" });
    const full = await driver.startJob("backup", { target: "copy" });
    await driver.waitForListed(full, "completed");
    await write(user, 4);
    const fields = { target: "copy", sync: "incremental", bitmap: "since" };
    const increment = await driver.startJob("backup", fields);
    const { len } = await driver.waitForListed(increment, "completed");
    expect(len).toBeLessThan(DISK_BYTES / 4);
    await expectImage(user, "copy.qcow2", await user.expectedDisk());
  });

  it("stands still when the browser has no more room, says so, and goes on with more", async () => {
    await using user = await withDisk("room");
    const { driver } = user;
    await driver.makeImage("copy.qcow2");
    await user.limitStorage(2 * MiB);
    const id = await driver.startJob("backup", { target: "copy", "on-target-error": "stop" });
    await expect
      .poll(() => driver.listedJob(id), PATIENT)
      .toMatchObject({
        status: "paused",
        problem: expect.stringMatching(/no more room.*Resume/s),
      });
    await user.limitStorage(null);
    await driver.page.getByTestId(`job-${id}`).getByRole("button", { name: "Resume" }).click();
    await expect
      .poll(() => driver.listedJob(id), PATIENT)
      .toMatchObject({
        status: "completed",
        problem: "",
      });
    await expectImage(user, "copy.qcow2", await user.expectedDisk());
  });
});

describe("blockCopy", () => {
  it("moves the disk over to the copy by a pivot; a reload is still there", async () => {
    await using user = await withDisk("move");
    const { driver } = user;
    await driver.callVerb("blockCopy", { file: "copy.qcow2", bandwidth: "8 MiB/s" });
    await write(user, 2);
    await driver.waitForBlockJob("copy ready");
    await write(user, 2);
    expect(await driver.chain()).toBe("[opfs disk.qcow2]");
    await driver.endBlockJob("pivot");
    await driver.until("it has moved", async () => (await driver.chain()).includes("copy"));
    expect(await driver.chain()).toBe("[opfs copy.qcow2]");
    await write(user, 3);

    await driver.reload();
    await driver.waitForDisk();
    expect(await driver.chain()).toBe("[opfs copy.qcow2]");
    await expect.poll(() => driver.image("disk.qcow2"), PATIENT).toContain("Delete");
    await user.expectDiskAndFile();
  });

  it("leaves the disk where it is when it is aborted, and the copy as it was then", async () => {
    await using user = await withDisk("stay");
    const { driver } = user;
    await driver.callVerb("blockCopy", { file: "other.qcow2", bandwidth: "1 MiB/s" });
    await driver.waitForBlockJob("copy running");
    await driver.endBlockJob("abort");
    // It never was a copy.
    await expect.poll(() => driver.image("other.qcow2"), PATIENT).toBe("");
    await driver.callVerb("blockCopy", { file: "copy.qcow2" });
    await driver.waitForBlockJob("copy ready");
    await write(user, 2);
    await driver.endBlockJob("abort");
    const atTheEnd = await user.expectedDisk();
    expect(await driver.chain()).toBe("[opfs disk.qcow2]");
    await write(user, 2);
    await expectClosedImage(user, "copy.qcow2", atTheEnd);
    await user.expectDiskAndFile();
  });
});

describe("blockCommit", () => {
  it("brings what an overlay has taken down into the disk, also after a reload", async () => {
    await using user = await withDisk("commit");
    const { driver } = user;
    await write(user, 2);
    await driver.makeImage("over.qcow2", "overlay");
    expect(await driver.chain()).toBe("[opfs disk.qcow2] <── [opfs over.qcow2]");
    await write(user, 4);
    await driver.reload();
    await driver.waitForDisk();
    expect(await driver.chain()).toBe("[opfs disk.qcow2] <── [opfs over.qcow2]");

    await driver.callVerb("blockCommit");
    await driver.waitForBlockJob("active-commit ready");
    await write(user, 2);
    await driver.endBlockJob("pivot");
    await driver.until("one image is left", async () => (await driver.images()) === 1);
    expect(await driver.chain()).toBe("[opfs disk.qcow2]");
    await write(user, 2);
    await user.expectDiskAndFile();
  });
});

describe("backupBegin", () => {
  it("goes over what has changed since the checkpoint that the last one made", async () => {
    await using user = await withDisk("checkpoint");
    const { driver } = user;
    await driver.callVerb("backupBegin", { file: "full.qcow2", checkpoint: "monday" });
    const full = await user.expectedDisk();
    await driver.waitForBlockJob("");
    await write(user, 3);
    await driver.callVerb("backupBegin", {
      file: "tuesday.qcow2",
      incremental: "monday",
      checkpoint: "tuesday",
    });
    await driver.waitForBlockJob("");
    const checkpoints = driver.page.getByTestId("checkpoints");
    expect(await checkpoints.innerText()).toMatch(/monday.*tuesday.*after monday/s);
    await expectClosedImage(user, "full.qcow2", full);
    const over = join(folder, "tuesday.qcow2");
    await driver.downloadImage("tuesday.qcow2", over);
    const rebase = ["rebase", "-u", "-b", join(folder, "downloaded-full.qcow2"), "-F", "qcow2"];
    execFileSync("qemu-img", [...rebase, over]);
    expect(await compareImages(over, await user.expectedDisk())).toBeNull();
    await checkpoints.getByRole("button", { name: "Delete" }).first().click();
    await driver.until(
      "one is left",
      async () => !(await checkpoints.innerText()).includes("after"),
    );
    await user.expectDiskAndFile();
  });
});

describe("deleting the disk", () => {
  it("takes its overlay along, whatever is at work on it, and leaves the other images", async () => {
    await using user = await withDisk("delete");
    const { driver } = user;
    await driver.makeImage("over.qcow2", "overlay");
    await driver.makeImage("copy.qcow2");
    await driver.startJob("backup", { target: "copy", speed: "1 MiB/s" });
    await driver.page.getByTestId("delete-disk").click();
    await driver.page.getByTestId("delete-disk-confirm").click();
    const start = driver.page.getByTestId("try-it");
    await driver.until("there is no disk", () => start.isVisible());
    await driver.tryIt();
    expect(await driver.chain()).toBe("[http delete.raw] <── [opfs disk.qcow2]");
    // It was part of the disk.
    await expect.poll(() => driver.image("over.qcow2"), PATIENT).toBe("");
    await expect.poll(() => driver.image("copy.qcow2"), PATIENT).toContain("Close");
  });
});

describe("blockPull", () => {
  it("called by hand makes the page's overlay whole", async () => {
    await using user = await visit(folder, makeRaw(folder, "stream", DISK_BYTES));
    const { driver } = user;
    await driver.tryIt();
    await driver.cancel();
    await driver.callVerb("blockPull");
    await driver.until("one image is left", async () => (await driver.images()) === 1);
    await user.expectDiskAndFile();
  });
});

describe("blockRebase", () => {
  it("onto the template leaves a disk that is not whole: the page says so, and pulls the rest", async () => {
    await using user = await visit(folder, makeRaw(folder, "rebase", DISK_BYTES));
    const { driver } = user;
    await driver.tryIt();
    await driver.setSpeed("1 MiB/s");
    await driver.cancel();
    await driver.makeImage("over.qcow2", "overlay");
    await write(user, 2);
    await driver.callVerb("blockRebase", { base: "vda[2]" });
    await driver.until("two images are left", async () => (await driver.images()) === 2);
    expect(await driver.chain()).toBe("[http rebase.raw] <── [opfs over.qcow2]");
    await driver.until("it has ended", async () => (await driver.job())?.outcome === "completed");
    const said = await driver.page.getByTestId("job").innerText();
    expect(said).toMatch(/still reads in part from its template/);
    expect(said).not.toMatch(/whole and local/);
    await driver.startAgain();
    await driver.waitForOutcome();
    await driver.until("one image is left", async () => (await driver.images()) === 1);
    expect(await driver.page.getByTestId("job").innerText()).toMatch(/whole and local/);
    await user.expectDiskAndFile();
  });
});

describe("an overlay", () => {
  it("is not called a file on its own until it is one", async () => {
    await using user = await visit(folder, makeRaw(folder, "alone", DISK_BYTES));
    const { driver } = user;
    const tools = driver.page.getByTestId("tools");
    await driver.tryIt();
    await driver.setSpeed("1 MiB/s");
    await driver.cancel();
    expect(await tools.innerText()).toMatch(/needs a copy of its template/);
    await driver.makeImage("over.qcow2", "overlay");
    await write(user, 2);
    // Over the template it would be another disk.
    expect(await tools.innerText()).toMatch(/disk\.qcow2.*blockPull/s);
    expect(await tools.innerText()).not.toMatch(/rebase/);
    await driver.callVerb("blockPull");
    await driver.until("one image is left", async () => (await driver.images()) === 1);
    expect(await tools.innerText()).toMatch(/every QEMU tool reads/);
    await driver.makeImage("over2.qcow2", "overlay");
    expect(await tools.innerText()).toMatch(/over\.qcow2.*blockPull/s);
    expect(await tools.innerText()).not.toMatch(/every QEMU tool reads/);
    await driver.callVerb("blockPull");
    await driver.until("one image is left", async () => (await driver.images()) === 1);
    await user.expectDiskAndFile();
  });
});

describe("a call that is refused", () => {
  it("leaves what was typed in its fields", async () => {
    await using user = await withDisk("refused");
    const { driver } = user;
    const [file, checkpoint] = ["file", "checkpoint"].map((name) =>
      driver.page.getByTestId(`verb-${name}`),
    );
    const refused = driver.callVerb("backupBegin", { file: "a.qcow2", checkpoint: "on monday" });
    await expect(refused).rejects.toThrow(/'name' expects a name of .*; got "on monday"/);
    expect(await file!.inputValue()).toBe("a.qcow2");
    expect(await checkpoint!.inputValue()).toBe("on monday");
    await checkpoint!.fill("monday");
    await driver.page.getByTestId("verb-call").click();
    await expect.poll(() => checkpoint!.inputValue(), PATIENT).toBe("");
    await driver.page.getByTestId("checkpoints").waitFor();
  });
});

describe("history", () => {
  it("tells two runs of one name apart, and bytes only of what counts in bytes", async () => {
    await using user = await withDisk("runs");
    const { driver } = user;
    const { page } = driver;
    const isThere = (count: number) =>
      driver.until(`${count} are told`, async () => (await driver.history()).length === count);
    await driver.makeImage("copy.qcow2");
    for (const _run of [1, 2]) {
      const id = await driver.startJob("backup", { target: "copy" });
      expect(id).toBe("backup0");
      await driver.waitForListed(id, "completed");
      await driver.pressOn(id, "Dismiss");
      await driver.until("it is off the list", async () => (await driver.listedJob(id)) === null);
    }
    const saved = await driver.startJob("snapshot-save", { tag: "one" });
    await driver.waitForListed(saved, "completed");
    await isThere(4);
    const [snapshot, second, first] = await driver.history();
    expect(snapshot).toMatch(/^snapshot-save snapshot-save0completed\d+ s$/);
    expect([second, first]).toEqual(Array(2).fill(expect.stringMatching(/backup0.*16 MiB in/)));
    await page.getByTestId("history").locator("summary").click();
    await page.getByTestId("ended-backup0").first().getByRole("button").click();
    await isThere(3);
    expect((await driver.history()).slice(0, 2)).toEqual([snapshot, first]);
  });
});

describe("snapshots and amend", () => {
  it("keep the disk's states inside its file, bring one back, forget one", async () => {
    await using user = await withDisk("snapshots");
    const { driver } = user;
    const done = async (type: string, fields: Record<string, string>) => {
      await driver.waitForListed(await driver.startJob(type, fields), "completed");
    };
    await write(user, 2);
    const saved = user.writes.slice();
    await done("snapshot-save", { tag: "one" });
    await write(user, 2);
    await done("snapshot-save", { tag: "two" });
    const [at] = writesOn(DISK_BYTES, 3);
    await driver.readSector(at!.offset);
    await driver.writeSector(at!.offset, at!.bytes);
    await done("snapshot-load", { tag: "one" });
    user.writes.splice(0, user.writes.length, ...saved);
    // The sector in view is the old one again, without a click.
    const expected = Buffer.from(user.expectedSector(at!.offset)).toString("hex");
    await expect
      .poll(() => driver.page.getByTestId("sector-edit").inputValue())
      .toSatisfy((hex: string) => hex.replace(/\s+/g, "") === expected);
    await done("snapshot-delete", { tag: "two" });
    await done("amend", {});
    expect(await driver.page.getByTestId("chain").innerText()).toMatch(/snapshots: one$/m);
    // What went wrong stands in the job's row.
    const failed = await driver.startJob("snapshot-load", { tag: "two" });
    expect(failed).toBe("snapshot-load1");
    const row = { status: "failed", problem: expect.stringContaining("'two'") };
    await expect.poll(() => driver.listedJob(failed)).toMatchObject(row);
    await driver.page.getByTestId(`job-${failed}`).getByRole("button").click();
    await expect.poll(() => driver.listedJob(failed)).toBeNull();
    await user.expectDiskAndFile();
    const list = execFileSync("qemu-img", ["snapshot", "-l", user.file], { encoding: "utf8" });
    expect(list).toMatch(/ one /);
    expect(list).not.toMatch(/ two /);
  });
});

/** A user with a whole disk in the browser. */
async function withDisk(name: string): Promise<User> {
  const user = await visit(folder, makeRaw(folder, name, DISK_BYTES));
  await user.driver.tryIt();
  await user.driver.setSpeed("unlimited");
  await user.driver.waitForOutcome();
  const { driver } = user;
  await driver.until("one image is left", async () => (await driver.images()) === 1);
  return user;
}

/** Writes sectors on the page, others each time. */
async function write(user: User, count: number): Promise<void> {
  const all = writesOn(DISK_BYTES, 64);
  for (const { offset, bytes } of all.slice(user.written, user.written + count)) {
    await user.write(offset, bytes);
  }
}

/** Closes the image and downloads it. */
async function expectImage(user: User, filename: string, expected: string): Promise<void> {
  await user.driver.pressOnImage(filename, "Close");
  await expectClosedImage(user, filename, expected);
}

async function expectClosedImage(user: User, filename: string, expected: string): Promise<void> {
  const path = join(folder, `downloaded-${filename}`);
  await user.driver.downloadImage(filename, path);
  expect(await checkImage(path)).toBeNull();
  expect(await compareImages(path, expected)).toBeNull();
}
