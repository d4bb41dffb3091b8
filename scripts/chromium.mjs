/** Where a Chromium is on this machine and how it is started: for tests, demo and bench alike. */

import { existsSync } from "node:fs";
import { onPath } from "./on-path.mjs";

/** Flags without which Chromium neither starts as root nor stays off the network. */
export const CHROMIUM_FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

const COMMANDS = ["chromium", "chromium-browser", "google-chrome-stable", "google-chrome"];

const APPLICATIONS = [
  "/Applications/Chromium.app/Contents/MacOS/Chromium",
  "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
];

/**
 * The Chromium to use: the one that $CHROMIUM names, else the system's.
 *
 * @returns {string | undefined} undefined if there is none; Playwright then looks for its own
 */
export function systemChromium() {
  const named = process.env.CHROMIUM;
  if (named) return named;
  for (const command of COMMANDS) {
    const path = onPath(command);
    if (path !== undefined) return path;
  }
  return APPLICATIONS.find((path) => existsSync(path));
}

/** Launch options for Playwright. Without `executablePath` it takes the browser of its own. */
export function chromiumLaunchOptions() {
  const executablePath = systemChromium();
  return { ...(executablePath !== undefined && { executablePath }), args: [...CHROMIUM_FLAGS] };
}

/**
 * Whether Playwright has downloaded the browser of its own.
 *
 * @returns {Promise<boolean>}
 */
export async function hasPlaywrightChromium() {
  const { chromium } = await import("playwright");
  return existsSync(chromium.executablePath());
}
