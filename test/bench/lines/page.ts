/** Whether the page keeps answering while a job runs: long tasks of its main thread. */

import type { Page } from "playwright";
import { ensurePage } from "../../../scripts/page.ts";
import { PageDriver } from "../../../scripts/page-driver.ts";
import { type RunningServer, startServer } from "../../../scripts/server.ts";
import { resolveTemplate } from "../../../scripts/template.ts";
import type { Lab } from "../lab.ts";
import type { Line } from "../line.ts";
import { Trace } from "../trace.ts";
import { BASE, BASE_RECIPE } from "./stream.ts";

/** How long the job with a speed limit is watched; at the page's own limit it runs for a minute. */
const THROTTLED_MS = 10_000;

export const PAGE_LINES: readonly Line[] = [
  line("page-long-tasks", "without a speed limit, to its end", async (driver) => {
    await driver.setSpeed("unlimited");
    const { outcome } = await driver.waitForOutcome();
    if (outcome !== "completed") throw new Error(`The page's job was ${outcome}`);
  }),
  line("page-long-tasks-throttled", "at the page's own speed limit, for 10 s", async (driver) => {
    await driver.page.waitForTimeout(THROTTLED_MS);
    const job = await driver.job();
    if (job?.outcome !== "") throw new Error("The page's job did not run all the time");
    await driver.cancel();
  }),
];

/** @param run what happens to the job after "Try it" */
function line(name: string, how: string, run: (driver: PageDriver) => Promise<void>): Line {
  return {
    name,
    unit: "long tasks",
    reference:
      "tasks over 50 ms of the page's main thread in as long a time without a job (n to 0 counts " +
      `as n, and 0 to 0 as 0); the job streams 512 MiB from HTTP ${how}`,
    aim: { atMost: 0 },
    runs: 3,
    async prepare(lab) {
      const template = await resolveTemplate(await lab.image(BASE, BASE_RECIPE));
      const server = await startServer({ page: await ensurePage(), template, port: 0 });
      let jobMs = 0;
      let cpuMs = 0;
      const seen: string[] = [];
      return {
        warmUp: false,
        async ours() {
          const { page, driver } = await openPage(lab, server);
          const trace = await Trace.start(page);
          const startMs = await page.evaluate(() => performance.now());
          await driver.tryIt();
          await run(driver);
          jobMs = (await page.evaluate(() => performance.now())) - startMs;
          const tasks = await longTasks(page, startMs);
          seen.push(...tasks);
          cpuMs = Math.max(cpuMs, await trace.end());
          await leave(lab, server, page);
          return tasks.length;
        },
        async theirs() {
          const { page } = await openPage(lab, server);
          const startMs = await page.evaluate(() => performance.now());
          await page.waitForTimeout(jobMs);
          const tasks = await longTasks(page, startMs);
          await leave(lab, server, page);
          return tasks.length;
        },
        // A machine with other work makes tasks long that are not ours to shorten.
        note: () =>
          `${seen.length === 0 ? "None was long" : `Long ones: ${seen.join(", ")}`}; the task that ` +
          `used the processor most had it for ${cpuMs.toFixed(0)} ms`,
        ratio: (ours, theirs) => ours / Math.max(1, theirs),
        done: () => server.close(),
      };
    },
  };
}

async function openPage(lab: Lab, server: RunningServer) {
  const page = await (await lab.chromium()).newPage();
  await page.addInitScript(() => {
    const tasks: PerformanceEntry[] = [];
    (window as WindowWithTasks).longTasks = tasks;
    new PerformanceObserver((list) => {
      tasks.push(...list.getEntries());
    }).observe({ type: "longtask", buffered: true });
  });
  const driver = new PageDriver(page);
  await driver.goto(server.url);
  await page.getByTestId("try-it").waitFor();
  return { page, driver };
}

type WindowWithTasks = Window & { longTasks?: PerformanceEntry[] };

/** Those that began since `startMs`: "62 ms after 1.3 s". */
function longTasks(page: Page, startMs: number): Promise<string[]> {
  return page.evaluate(
    (startMs) =>
      (window as WindowWithTasks)
        .longTasks!.filter(({ startTime }) => startTime >= startMs)
        .map(({ startTime, duration }) => {
          const seconds = ((startTime - startMs) / 1000).toFixed(1);
          return `${duration.toFixed(0)} ms after ${seconds} s`;
        }),
    startMs,
  );
}

/** Closes the page and clears away what it has stored. */
async function leave(lab: Lab, server: RunningServer, page: Page): Promise<void> {
  await page.close();
  const chromium = await lab.chromium();
  const cdp = await chromium.newCDPSession(chromium.pages()[0]!);
  const { origin } = new URL(server.url);
  await cdp.send("Storage.clearDataForOrigin", { origin, storageTypes: "all" });
  await cdp.detach();
}
