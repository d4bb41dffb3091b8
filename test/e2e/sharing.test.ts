/**
 * What a user sees of a disk that outlives its tab, and that several tabs have: reloads, two tabs, an owner
 * that goes amid a job, a server that is away when the next one comes.
 */

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { MiB } from "../../src/base/bytes.ts";
import { makeRaw, type User, visit, writesOn } from "./user.ts";

const DISK_BYTES = 16 * MiB;

let folder: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "blocktab-e2e-sharing-"));
});

afterAll(() => {
  rmSync(folder, { recursive: true, maxRetries: 5 });
});

describe("a reload amid a stream", () => {
  it("leaves the job where it was, paused as it was, and it comes to one end", async () => {
    await using user = await visit(folder, makeRaw(folder, "reload", DISK_BYTES));
    const { driver } = user;
    await driver.tryIt();
    await driver.setSpeed("1 MiB/s");
    await driver.until("some is done", async () => ((await driver.job())?.offset ?? 0) > 0);
    await write(user, 2);
    await driver.pause();
    await driver.reload();
    await driver.waitForDisk();
    await driver.waitForStatus("paused");
    expect(await driver.page.getByTestId("recovery").innerText()).toMatch(
      /Job pull-vda-\S+: It went on/,
    );
    await write(user, 2);
    await driver.resume();
    await driver.setSpeed("unlimited");
    expect(await driver.waitForOutcome()).toMatchObject({ outcome: "completed" });
    await driver.until("it is in the history", async () => (await driver.history()).length > 0);
    await expect
      .poll(() => driver.history(), { timeout: 10_000 })
      .toEqual([expect.stringMatching(/^stream pull-vda-\S+completed/)]);

    await driver.page.getByTestId("recovery-dismiss").click();
    await driver.reload();
    await driver.waitForDisk();
    expect(await driver.history()).toHaveLength(1);
    await driver.page.getByTestId("history").locator("summary").click();
    await driver.page
      .getByTestId("history")
      .getByRole("button", { name: "Dismiss" })
      .last()
      .click();
    await driver.until("it is gone", async () => (await driver.history()).length === 0);
    await user.expectDiskAndFile();
  });

  it("says that the template's server is away, and goes on when it is back", async () => {
    await using user = await visit(folder, makeRaw(folder, "away", DISK_BYTES));
    const { driver, server } = user;
    await driver.tryIt();
    await driver.setSpeed("1 MiB/s");
    await driver.waitForOffline();
    await write(user, 1);
    server.templateUp = false;
    await driver.reload();
    const retry = driver.page.getByTestId("retry");
    await retry.waitFor({ timeout: 120_000 });
    expect(await driver.page.getByTestId("recovery").innerText()).toMatch(/has not come back/);
    server.templateUp = true;
    await retry.click();
    await driver.waitForDisk();
    await driver.setSpeed("unlimited");
    expect(await driver.waitForOutcome()).toMatchObject({ outcome: "completed" });
    await user.expectDiskAndFile();
  });
});

describe("a second tab", () => {
  it("shows the same disk and job, and goes on when the first is closed amid the stream", async () => {
    await using user = await visit(folder, makeRaw(folder, "two", DISK_BYTES));
    const first = user.driver;
    await first.until("it has the disks", async () => (await first.role()) === "owner");
    // Loaded while there is no disk: it hears of the one that the first makes.
    const second = await user.openTab();
    await second.page.getByTestId("try-it").waitFor();
    await first.tryIt();
    await first.setSpeed("1 MiB/s");
    await second.waitForDisk();
    await second.until("it sees the job", async () => (await second.job()) !== null);
    expect([await first.role(), await second.role()]).toEqual(["owner", "guest"]);
    await write(user, 2);
    user.driver = second;
    const [seen] = user.writes;
    expect(await second.readSector(seen!.offset)).toEqual(seen!.bytes);
    await write(user, 2);

    await first.page.close();
    await second.until("it has the disks", async () => (await second.role()) === "owner");
    await write(user, 2);
    await second.setSpeed("unlimited");
    expect(await second.waitForOutcome()).toMatchObject({ outcome: "completed", len: DISK_BYTES });
    await second.until("one image is left", async () => (await second.images()) === 1);
    await expect
      .poll(() => second.history(), { timeout: 10_000 })
      .toEqual([expect.stringMatching(/completed/)]);
    await user.expectDiskAndFile();
  });

  it("is told when the disk is closed for a download, and when it is deleted", async () => {
    await using user = await visit(folder, makeRaw(folder, "told", DISK_BYTES));
    const first = user.driver;
    await first.tryIt();
    await first.setSpeed("unlimited");
    await first.waitForOutcome();
    const second = await user.openTab();
    await second.waitForDisk();
    await first.until("one image is left", async () => (await first.images()) === 1);
    await user.expectCleanFile();
    await second.page.getByTestId("reopen-writable").click();
    await first.page.getByTestId("reopen-writable").waitFor({ state: "detached" });
    await first.waitForDisk();
    await write(user, 1);
    user.driver = second;
    await second.waitForDisk();
    await write(user, 1);
    await second.page.getByTestId("delete-disk").click();
    await second.page.getByTestId("delete-disk-confirm").click();
    await first.page.getByTestId("try-it").waitFor();
    await first.tryIt();
    await second.waitForDisk();
  });
});

describe("what one tab has dismissed", () => {
  it("is gone in the others when somebody looks at them, or dismisses it there, too", async () => {
    await using user = await visit(folder, makeRaw(folder, "dismissed", DISK_BYTES));
    const first = user.driver;
    await first.tryIt();
    await first.setSpeed("1 MiB/s");
    await first.reload();
    await first.waitForDisk();
    await first.cancel();
    const second = await user.openTab();
    await second.waitForDisk();
    for (const tab of [first, second]) {
      await tab.page.getByTestId("recovery").waitFor();
      await tab.until("it is told", async () => (await tab.history()).length === 1);
    }
    await first.page.getByTestId("recovery-dismiss").click();
    await first.page.getByTestId("recovery").waitFor({ state: "detached" });
    await second.page.getByTestId("recovery-dismiss").click();
    await second.page.getByTestId("recovery").waitFor({ state: "detached" });
    await first.page.getByTestId("history").locator("summary").click();
    await first.page.getByTestId("history-clear").click();
    await first.page.getByTestId("history").waitFor({ state: "detached" });
    await second.page.getByTestId("history").locator("summary").click();
    await second.page.getByTestId("history").getByRole("button").last().click();
    await second.page.getByTestId("history").waitFor({ state: "detached" });
    expect([await first.errors(), await second.errors()]).toEqual([[], []]);

    await first.startAgain();
    await first.waitForOutcome();
    await second.until("it is told", async () => (await second.history()).length === 1);
    await first.page.getByTestId("history").locator("summary").click();
    await first.page.getByTestId("history-clear").click();
    await first.page.getByTestId("history").waitFor({ state: "detached" });
    await second.page.evaluate(() => document.dispatchEvent(new Event("visibilitychange")));
    await second.page.getByTestId("history").waitFor({ state: "detached" });
  });
});

describe("a second disk", () => {
  it("is not made when two tabs make one at the same time: both have the one that there is", async () => {
    await using user = await visit(folder, makeRaw(folder, "race", DISK_BYTES));
    const first = user.driver;
    const tabs = [first, await user.openTab()];
    await Promise.all(tabs.map(({ page }) => page.getByTestId("try-it").waitFor()));
    await Promise.all(tabs.map(({ page }) => page.getByTestId("try-it").dispatchEvent("click")));
    // What one of them says against it goes away with the disk.
    await Promise.all(tabs.map(({ page }) => page.getByTestId("sector-view").waitFor()));
    // Nothing, if the disk was there before the other click came.
    const said = tabs.flatMap(({ consoleErrors }) => consoleErrors);
    const refusal = expect.stringMatching(/Another tab is making the disk|disk already/);
    expect(said).toEqual(said.length === 0 ? [] : [refusal]);
    await write(user, 1);
    const [seen] = user.writes;
    expect(await tabs[1]!.readSector(seen!.offset)).toEqual(seen!.bytes);
    for (const tab of tabs) await tab.waitForOutcome();
    await expect
      .poll(() => first.history(), { timeout: 10_000 })
      .toEqual([expect.stringMatching(/^stream pull-vda-\S+completed/)]);
    await user.expectDiskAndFile();
  });

  it("is not put in the place of a file that is there, whoever has made that", async () => {
    await using user = await visit(folder, makeRaw(folder, "there", DISK_BYTES));
    const { page } = user.driver;
    await page.getByTestId("try-it").waitFor();
    const files = () => page.evaluate(() => window.blocktab!.client.listFiles());
    await page.evaluate(async () => {
      const { client } = window.blocktab!;
      const options = { driver: "opfs", filename: "disk.qcow2", size: 4096 } as const;
      await client.execute("blockdev-create", { "job-id": "make", options });
      await client.waitForJob("make", "concluded");
    });
    const before = await files();
    await page.getByTestId("try-it").click();
    const error = page.getByTestId("error");
    await error.waitFor();
    expect(await error.innerText()).toMatch(/There is a disk already/);
    expect(await files()).toEqual(before);
  });
});

/** Writes sectors on the page, others each time. */
async function write(user: User, count: number): Promise<void> {
  const all = writesOn(DISK_BYTES, 64);
  for (const { offset, bytes } of all.slice(user.written, user.written + count)) {
    await user.write(offset, bytes);
  }
}
