/**
 * What tests in a browser ask of the machinery that drives it (Vitest browser commands), and the
 * image server, which cannot run in a browser.
 */

import type { BrowserCommand, TestProject } from "vitest/node";
import { startImageServer } from "../../conformance/protocol-http-server.ts";

/** Sets the quota of the tests' origin in bytes, or back to what it was. */
export const overrideQuota: BrowserCommand<[quota: number | null]> = async (
  { context, page },
  quota,
) => {
  const session = await context.newCDPSession(page);
  const { origin } = new URL(page.url());
  await session.send("Storage.overrideQuotaForOrigin", {
    origin,
    ...(quota !== null && { quotaSize: quota }),
  });
};

/** Clears the databases of the tests' origin, as "clear site data" does: they are open, and go. */
export const clearIndexeddb: BrowserCommand<[]> = async ({ context, page }) => {
  const session = await context.newCDPSession(page);
  const { origin } = new URL(page.url());
  await session.send("Storage.clearDataForOrigin", { origin, storageTypes: "indexeddb" });
};

/** Vitest's globalSetup of the browser project. @returns what to do at the end */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const server = await startImageServer();
  project.provide("imageServer", server.url);
  return () => server.close();
}

declare module "vitest" {
  interface ProvidedContext {
    imageServer: string;
  }
}

declare module "vitest/browser" {
  interface BrowserCommands {
    overrideQuota(quota: number | null): Promise<void>;
    clearIndexeddb(): Promise<void>;
  }
}
