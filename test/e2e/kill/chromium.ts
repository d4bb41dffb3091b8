/**
 * A Chromium that can be killed without a chance to put anything in order: all of its processes are in
 * one group, and the group gets SIGKILL.
 */

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { type Browser, type BrowserContext, chromium, type Page } from "playwright";
import { CHROMIUM_FLAGS, systemChromium } from "../../../scripts/chromium.mjs";

const ADDRESS = /DevTools listening on (ws:\/\/\S+)/;

export class KillableChromium {
  readonly page: Page;
  readonly #process: ChildProcess;
  readonly #browser: Browser;

  private constructor(process: ChildProcess, browser: Browser, page: Page) {
    this.#process = process;
    this.#browser = browser;
    this.page = page;
  }

  static async launch(profile: string): Promise<KillableChromium> {
    const program = systemChromium() ?? chromium.executablePath();
    const own = ["--headless", "--remote-debugging-port=0", `--user-data-dir=${profile}`];
    const child = spawn(program, [...CHROMIUM_FLAGS, ...own, "about:blank"], {
      detached: true,
      stdio: ["ignore", "ignore", "pipe"],
    });
    const address = await new Promise<string>((resolve, reject) => {
      let said = "";
      child.on("exit", () => reject(new Error(`Chromium has ended: ${said}`)));
      child.stderr.setEncoding("utf8").on("data", (text: string) => {
        said += text;
        const found = ADDRESS.exec(said)?.[1];
        if (found !== undefined) resolve(found);
      });
    });
    // As people have it: of Playwright's own settings one keeps every tab visible, whatever is before it.
    const browser = await chromium.connectOverCDP(address, { noDefaults: true });
    const [context] = browser.contexts();
    const page = context!.pages()[0] ?? (await context!.newPage());
    return new KillableChromium(child, browser, page);
  }

  get context(): BrowserContext {
    return this.page.context();
  }

  async kill(): Promise<void> {
    const { pid, exitCode, signalCode } = this.#process;
    if (pid === undefined || exitCode !== null || signalCode !== null) return;
    const gone = once(this.#process, "exit");
    process.kill(-pid, "SIGKILL");
    await gone;
    await this.#browser.close().catch(() => {});
  }
}
