/**
 * Drives the page as a person does: clicks what can be clicked, types into what can be typed into,
 * reads what is shown. Used by the demo and by the end-to-end tests.
 *
 * What the page calls an error is one here, too: every wait ends early with its words.
 */

import { mkdir } from "node:fs/promises";
import { type BrowserContext, chromium, errors, type Page } from "playwright";
import { chromiumLaunchOptions } from "./chromium.mjs";

const WAIT_MS = 30_000;
const POLL_MS = 100;

/** The page says that something went wrong. */
export class PageError extends Error {
  override readonly name = "PageError";
}

/** The job panel, as shown. */
export interface ShownJob {
  /** QEMU's word: running, paused, concluded, … */
  readonly status: string;
  /** "" while it goes on, then completed, cancelled or failed. */
  readonly outcome: string;
  readonly offset: number;
  readonly len: number;
  /** "7.9 MiB/s", or "–". */
  readonly rate: string;
  /** "12 s", or "–". */
  readonly eta: string;
}

/** A row of the Jobs panel, as shown. */
export interface ListedJob {
  /** QEMU's word, or how it has ended: completed, cancelled, failed. */
  readonly status: string;
  readonly offset: number;
  readonly len: number;
  /** Why it failed, or stands still; "" if nothing is wrong. */
  readonly problem: string;
  /** The labels of what can be done to it. */
  readonly verbs: readonly string[];
}

/**
 * A headless Chromium with a profile of its own. A persistent one: in any other the browser keeps
 * OPFS in memory, and little of it.
 *
 * @param profile folder for it; made if it is not there
 */
export async function launchChromium(profile: string): Promise<BrowserContext> {
  await mkdir(profile, { recursive: true });
  return chromium.launchPersistentContext(profile, {
    headless: true,
    acceptDownloads: true,
    // Who launches it closes it, after its own cleaning up.
    handleSIGINT: false,
    handleSIGTERM: false,
    handleSIGHUP: false,
    ...chromiumLaunchOptions(),
  });
}

export class PageDriver {
  readonly page: Page;
  /** What the page's console said in red, and exceptions nobody caught. */
  readonly consoleErrors: string[] = [];

  constructor(page: Page) {
    this.page = page;
    page.setDefaultTimeout(WAIT_MS);
    page.on("pageerror", (error) => this.consoleErrors.push(String(error)));
    page.on("console", (message) => {
      if (message.type() === "error") this.consoleErrors.push(message.text());
    });
  }

  async goto(url: string): Promise<void> {
    await this.page.goto(url);
  }

  async reload(): Promise<void> {
    await this.page.reload();
  }

  /** Clicks the one button; resolves when the disk can be read and the job is there. */
  async tryIt(): Promise<void> {
    await this.#click("try-it");
    await this.waitForDisk();
    await this.until("there is a job", async () => (await this.job()) !== null);
  }

  /** Resolves when the disk is open. */
  async waitForDisk(): Promise<void> {
    await this.until("the disk is open", async () => (await this.images()) > 0);
    await this.#at("sector-view").waitFor();
  }

  /** How many images the drawing of the chain shows; 0 without a drawing. */
  async images(): Promise<number> {
    const chain = this.#at("chain");
    if ((await chain.count()) === 0) return 0;
    return Number(await chain.getAttribute("data-images"));
  }

  /** The drawing of the chain as text: "[http top.qcow2] <── [opfs disk.qcow2]". */
  async chain(): Promise<string> {
    const names = await this.#at("chain").locator(".name").allInnerTexts();
    return names.map((name) => name.replace(/\s+/g, " ").trim()).join(" <── ");
  }

  /** null while there is no job on the page. */
  job(): Promise<ShownJob | null> {
    // No named function in there: what compiles this module would give it a helper that the page
    // does not have.
    return this.page.evaluate(() => {
      const panel = document.querySelector<HTMLElement>('[data-testid="job"]');
      const progress = panel?.querySelector<HTMLElement>('[data-testid="job-progress"]');
      if (!panel || !progress) return null;
      return {
        status: panel.querySelector('[data-testid="job-status"]')?.textContent ?? "",
        outcome: panel.dataset["outcome"] ?? "",
        offset: Number(progress.dataset["offset"]),
        len: Number(progress.dataset["len"]),
        rate: panel.querySelector('[data-testid="job-rate"]')?.textContent ?? "–",
        eta: panel.querySelector('[data-testid="job-eta"]')?.textContent ?? "–",
      };
    });
  }

  /** Waits for a job's status, or for its end. */
  async waitForStatus(status: string): Promise<ShownJob> {
    let job: ShownJob | null = null;
    await this.until(`the job is ${status}`, async () => {
      job = await this.job();
      return job?.status === status;
    });
    return job!;
  }

  /**
   * Waits for the end of the job, however long that takes.
   *
   * @param onProgress told a few times a second
   * @throws PageError if the job fails, or stops for an error
   */
  async waitForOutcome(
    onProgress: (job: ShownJob) => void | Promise<void> = () => {},
  ): Promise<ShownJob> {
    for (;;) {
      const job = await this.job();
      if (job !== null) await onProgress(job);
      if (job !== null && job.outcome !== "") return job;
      await this.throwIfError();
      await this.page.waitForTimeout(POLL_MS);
    }
  }

  async pause(): Promise<void> {
    await this.#click("pause");
    await this.waitForStatus("paused");
  }

  async resume(): Promise<void> {
    await this.#click("resume");
    await this.until("the job goes on", async () => (await this.job())?.status !== "paused");
  }

  async cancel(): Promise<void> {
    await this.#click("cancel");
    await this.until(
      "the job is cancelled",
      async () => (await this.job())?.outcome === "cancelled",
    );
  }

  async startAgain(): Promise<void> {
    await this.#click("start-again");
    await this.until("the job is there", async () => (await this.job())?.outcome === "");
  }

  /**
   * @param speed as people write it: "8 MiB/s", "unlimited"
   * @returns false if the job has ended before it could be asked
   */
  async setSpeed(speed: string): Promise<boolean> {
    while ((await this.job())?.outcome === "") {
      try {
        await this.#at("speed").fill(speed, { timeout: 1000 });
        await this.#at("speed-set").click({ timeout: 1000, trial: true });
        // Not to be given up half done: a second click would find no job where the first has ended it.
        await this.#at("speed-set").click();
        return true;
      } catch (error) {
        // The controls go away with the job.
        if (!(error instanceof errors.TimeoutError)) throw error;
        await this.throwIfError();
      }
    }
    return false;
  }

  /**
   * Fills in the form of the Jobs panel and sends it.
   *
   * @param fields by QEMU's names; what is not named stays as it is
   * @returns the job's id
   */
  async startJob(type: string, fields: Readonly<Record<string, string | true>>): Promise<string> {
    const before = new Set(await this.#jobIds());
    await this.sendForm(type, fields);
    let id: string | undefined;
    await this.until(`there is a new ${type}`, async () => {
      id = (await this.#jobIds()).find((candidate) => !before.has(candidate));
      return id !== undefined;
    });
    return id!;
  }

  /** As startJob(), for what is no job. */
  async sendForm(type: string, fields: Readonly<Record<string, string | true>>): Promise<void> {
    const form = this.#at("start-job");
    if ((await form.getAttribute("open")) === null) await form.locator("summary").click();
    await this.#at("job-type").selectOption(type);
    for (const [name, value] of Object.entries(fields)) {
      const field = this.#at(`field-${name}`);
      if (value === true) await field.check();
      else if (await field.evaluate((element) => element.matches("select"))) {
        await field.selectOption(value);
      } else await field.fill(value);
    }
    await this.#click("job-start");
    await this.#settled("job-type");
  }

  /** null if no job of that id is listed. */
  async listedJob(id: string): Promise<ListedJob | null> {
    return this.page.evaluate((id) => {
      const row = document.querySelector<HTMLElement>(`[data-testid="job-${id}"].job-row`);
      const bar = row?.querySelector<HTMLElement>('[role="progressbar"]');
      if (!row || !bar) return null;
      return {
        status: row.querySelector('[role="status"]')?.textContent ?? "",
        offset: Number(bar.dataset["offset"]),
        len: Number(bar.dataset["len"]),
        problem: row.querySelector<HTMLElement>('[data-testid="error"]')?.innerText ?? "",
        verbs: [...row.querySelectorAll("button")].map((button) => button.innerText),
      };
    }, id);
  }

  /** Waits for what the chip of a listed job says. @throws PageError when it has a problem instead */
  async waitForListed(id: string, status: string): Promise<ListedJob> {
    let job: ListedJob | null = null;
    await this.until(`job '${id}' is ${status}`, async () => {
      job = await this.listedJob(id);
      if (job?.status === status) return true;
      if (job && job.problem !== "") throw new PageError(`job '${id}': ${job.problem}`);
      return false;
    });
    return job!;
  }

  /** Presses a button of a listed job, by its label. */
  async pressOn(id: string, label: string): Promise<void> {
    await this.#at(`job-${id}`).getByRole("button", { name: label, exact: true }).click();
  }

  /** Calls one of libvirt's verbs on vda. @param fields as shown; what is not named stays as it is */
  async callVerb(
    verb: string,
    fields: Readonly<Record<string, string | true>> = {},
  ): Promise<void> {
    const form = this.#at("disks").locator("details");
    if ((await form.getAttribute("open")) === null) await form.locator("summary").click();
    await this.#at("verb").selectOption(verb);
    for (const [name, value] of Object.entries(fields)) {
      const field = this.#at(`verb-${name}`);
      if (value === true) await field.check();
      else if (await field.evaluate((element) => element.matches("select"))) {
        await field.selectOption(value);
      } else await field.fill(value);
    }
    await this.#click("verb-call");
    await this.#settled("verb");
  }

  /** The block job of vda, as libvirt tells of it: "copy ready"; "" if there is none. */
  async blockJob(): Promise<string> {
    return this.page.evaluate(() => {
      const job = document.querySelector<HTMLElement>('[data-testid="block-job"]');
      return job ? `${job.dataset["kind"]} ${job.dataset["state"]}` : "";
    });
  }

  /** Waits for what blockJob() says. */
  async waitForBlockJob(is: string): Promise<void> {
    await this.until(`vda's job is '${is}'`, async () => (await this.blockJob()) === is);
  }

  /** Presses Pivot, or Abort, and waits for the end of the job. */
  async endBlockJob(how: "pivot" | "abort"): Promise<void> {
    await this.#click(`verb-${how}`);
    await this.waitForBlockJob("");
  }

  /** Jobs that have ended, the newest first: "stream pull-vda-… completed …". */
  async history(): Promise<string[]> {
    return this.page.evaluate(() =>
      [...document.querySelectorAll('[data-testid="history"] li')].map((item) =>
        (item.textContent ?? "").replace(/\s+/g, " ").replace(/Dismiss$/, ""),
      ),
    );
  }

  /** Which tab has the disks: owner, or guest. */
  async role(): Promise<string> {
    const { role, phase } = (await this.#at("role").evaluate(
      (chip) => (chip as HTMLElement).dataset,
    )) as Record<string, string>;
    return phase === "serving" ? role! : phase!;
  }

  /** @param as "empty", or "overlay" over the disk */
  async makeImage(filename: string, as: "empty" | "overlay" = "empty"): Promise<void> {
    await this.#at("image-name").fill(filename);
    await this.#at("image-kind").selectOption(as);
    await this.#click("image-make");
    await this.until(`there is ${filename}`, async () =>
      /open|part/.test(await this.image(filename)),
    );
    await this.until("the page is done with it", () => this.#at("image-make").isEnabled());
  }

  /** The line that the page has of another image; "" if it has none. */
  async image(filename: string): Promise<string> {
    const line = this.#at(`image-${filename}`);
    return (await line.count()) === 0 ? "" : (await line.innerText()).replace(/\s+/g, " ").trim();
  }

  /** Presses a button of another image, by its label. */
  async pressOnImage(filename: string, label: string): Promise<void> {
    await this.#at(`image-${filename}`).getByRole("button", { name: label, exact: true }).click();
    await this.until("the page is done with it", () => this.#at("image-make").isEnabled());
  }

  /** Downloads a closed image to `path`. */
  async downloadImage(filename: string, path: string): Promise<void> {
    const [download] = await Promise.all([
      this.page.waitForEvent("download"),
      this.pressOnImage(filename, "Download"),
    ]);
    await download.saveAs(path);
  }

  /** Shows the sector and reads it off the screen. @param offset bytes, a multiple of 512 */
  async readSector(offset: number): Promise<Uint8Array> {
    await this.#at("sector-offset").fill(String(offset));
    await this.#click("sector-go");
    await this.#at(`sector-view`)
      .and(this.page.locator(`[data-offset="${offset}"]`))
      .waitFor();
    await this.#settled("sector-go");
    const hex = await this.#at("sector-edit").inputValue();
    return Uint8Array.from(Buffer.from(hex.replace(/\s+/g, ""), "hex"));
  }

  /** Types the bytes over the sector's first ones and writes them. */
  async writeSector(offset: number, bytes: Uint8Array): Promise<void> {
    await this.readSector(offset);
    await this.#at("sector-edit").fill(Buffer.from(bytes).toString("hex"));
    await this.#click("sector-write");
    await this.#settled("sector-go");
  }

  /** Has the page read its whole disk. */
  async verify(
    onProgress: (offset: number) => void = () => {},
  ): Promise<{ sha256: string; bytes: number }> {
    await this.#click("verify");
    const result = this.#at("verify-result");
    const bar = this.page.getByRole("progressbar", { name: "Read" });
    while ((await result.count()) === 0) {
      const offset = await bar.getAttribute("data-offset", { timeout: 1000 }).catch(() => null);
      if (offset !== null) onProgress(Number(offset));
      await this.throwIfError();
      await this.page.waitForTimeout(POLL_MS);
    }
    return {
      sha256: (await result.getAttribute("data-sha256"))!,
      bytes: Number(await result.getAttribute("data-bytes")),
    };
  }

  /** Downloads the disk's file to `path`. */
  async download(path: string): Promise<void> {
    const [download] = await Promise.all([
      this.page.waitForEvent("download"),
      this.#click("download"),
    ]);
    await download.saveAs(path);
  }

  /** Whether the page has kept itself for a reload without a server. */
  async waitForOffline(): Promise<void> {
    await this.page.getByText("page kept for offline use").waitFor();
  }

  /** The texts of all errors on the page but those of listed jobs, which listedJob() tells. */
  errors(): Promise<string[]> {
    return this.page.locator('[data-testid="error"]:not(.job-row *)').allInnerTexts();
  }

  async throwIfError(): Promise<void> {
    const [error] = await this.errors();
    if (error !== undefined) throw new PageError(error.replace(/\s*\n\s*/g, " "));
  }

  /** @throws PageError when the page shows an error, or when it takes longer than a person waits */
  async until(what: string, isSo: () => Promise<boolean>): Promise<void> {
    const endMs = performance.now() + WAIT_MS;
    while (!(await isSo())) {
      await this.throwIfError();
      if (performance.now() > endMs) {
        const job = JSON.stringify(await this.job());
        throw new PageError(`Waited ${WAIT_MS / 1000} s until ${what}; the job is ${job}`);
      }
      await this.page.waitForTimeout(POLL_MS);
    }
  }

  #jobIds(): Promise<string[]> {
    return this.page.evaluate(() =>
      [...document.querySelectorAll<HTMLElement>(".job-row")].map((row) =>
        row.dataset["testid"]!.slice("job-".length),
      ),
    );
  }

  #at(testId: string) {
    return this.page.getByTestId(testId);
  }

  #click(testId: string): Promise<void> {
    return this.#at(testId).click();
  }

  /** Waits until a button that is off during its action is on again. */
  async #settled(testId: string): Promise<void> {
    await this.until(`'${testId}' is done`, () => this.#at(testId).isEnabled());
    await this.throwIfError();
  }
}
