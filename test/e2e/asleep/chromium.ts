/** What a browser does to a tab that nobody looks at, as the DevTools protocol has it. */

import type { Page } from "playwright";
import { LOBBY } from "../../../src/engine/tabs/lobby.ts";

/** Chromium freezes hidden tabs only, and tells them: `freeze`. */
export async function freeze(page: Page): Promise<void> {
  await setLifecycle(page, "frozen");
}

/** The tab goes on: `resume`. */
export async function thaw(page: Page): Promise<void> {
  await setLifecycle(page, "active");
}

async function setLifecycle(page: Page, state: "frozen" | "active"): Promise<void> {
  const session = await page.context().newCDPSession(page);
  await session.send("Page.setWebLifecycleState", { state });
  await session.detach();
}

/** From the next page on this tab does not hear that it will be frozen, as tabs of other browsers do not. */
export async function deafen(page: Page): Promise<void> {
  await page.addInitScript(() => {
    document.addEventListener("freeze", (event) => event.stopImmediatePropagation());
  });
}

/** What this tab's pages have come back from: "load", or "cache". */
export async function noteReturns(page: Page): Promise<void> {
  await page.addInitScript(() => {
    window.addEventListener("pageshow", ({ persisted }) => {
      window.cameFrom = persisted ? "cache" : "load";
    });
  });
}

/** What this tab's pages show, one after the other: "waiting" for the disks, "start" without any, the "disk". */
export async function noteStages(page: Page): Promise<void> {
  await page.addInitScript(() => {
    window.stages = [];
    const marks = {
      waiting: ".panel.working",
      start: "[aria-labelledby=start-title]",
      disk: "[data-testid=chain]",
    };
    new MutationObserver(() => {
      for (const [stage, mark] of Object.entries(marks)) {
        if (document.querySelector(mark) && window.stages!.at(-1) !== stage)
          window.stages!.push(stage);
      }
    }).observe(document, { childList: true, subtree: true });
  });
}

/** @returns tells of how many flushes this tab has heard since now */
export async function countFlushes(page: Page): Promise<() => Promise<number>> {
  await page.evaluate((lobby) => {
    window.flushCount = 0;
    const line = new BroadcastChannel(lobby);
    line.onmessage = ({ data }) => {
      if (data.type === "durable") window.flushCount!++;
    };
  }, LOBBY);
  return () => page.evaluate(() => window.flushCount!);
}

declare global {
  interface Window {
    cameFrom?: "load" | "cache";
    flushCount?: number;
    stages?: string[];
  }
}
