import { playwright } from "@vitest/browser-playwright";
import { defineConfig } from "vitest/config";
import { chromiumLaunchOptions } from "./scripts/chromium.mjs";
import { judgeImages } from "./test/browser/engine/commands.ts";
import { nodeImg } from "./test/browser/img/commands.ts";
import { clearIndexeddb, overrideQuota } from "./test/browser/protocol/commands.ts";
import { serviceWorker } from "./web/sw-plugin.ts";

/**
 * What is imported in workers, or when it is needed only, Vite does not see beforehand: found late, it would
 * load the page anew amid a test, or a worker amid its first command.
 */
const optimizeDeps = {
  include: [
    "@hpcc-js/wasm-zstd",
    "@noble/hashes/legacy.js",
    "@noble/hashes/sha2.js",
    "@noble/hashes/utils.js",
    "pako",
    "zstddec",
  ],
};

export default defineConfig({
  root: "web",
  base: "./",
  cacheDir: "../node_modules/.vite",
  build: { outDir: "../dist", emptyOutDir: true, assetsInlineLimit: 0, target: "es2022" },
  worker: { format: "es" },
  optimizeDeps,
  plugins: [serviceWorker()],
  test: {
    projects: [
      {
        // Everything that needs no browser, and what drives one from outside.
        test: {
          name: "node",
          root: import.meta.dirname,
          include: ["test/**/*.test.ts"],
          exclude: ["test/browser/**", "test/e2e/**"],
          environment: "node",
          testTimeout: 60_000,
          hookTimeout: 60_000,
          // A worker loads the engine once, not for each file: half the processor time of most folders.
          // So what a file leaves behind the next one finds: modules of tests keep nothing.
          isolate: false,
        },
      },
      {
        // The same conformance suites on real OPFS and IndexedDB, in real Chromium.
        optimizeDeps,
        test: {
          name: "browser",
          root: import.meta.dirname,
          include: ["test/browser/**/*.test.ts"],
          testTimeout: 60_000,
          hookTimeout: 60_000,
          fileParallelism: false,
          globalSetup: ["test/browser/protocol/commands.ts"],
          browser: {
            enabled: true,
            commands: { overrideQuota, clearIndexeddb, judgeImages, nodeImg },
            headless: true,
            screenshotFailures: false,
            provider: playwright({
              persistentContext: true,
              launchOptions: chromiumLaunchOptions(),
            }),
            instances: [{ browser: "chromium" }],
          },
        },
      },
      {
        // The page and the commands as a user meets them: built, served, driven.
        test: {
          name: "e2e",
          root: import.meta.dirname,
          include: ["test/e2e/**/*.test.ts"],
          environment: "node",
          testTimeout: 300_000,
          hookTimeout: 300_000,
          fileParallelism: false,
        },
      },
    ],
  },
});
