/**
 * What all lines need, made when the first one asks for it: the bench page as a production build, a
 * server for it and for the images, and Chromium on a profile of its own.
 *
 * The profile must be persistent, or the browser keeps OPFS in memory; everything is on the
 * checkout's own disk, since a folder for temporary files may well be in memory, too.
 */

import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import type { BrowserContext, Page } from "playwright";
import sirv from "sirv";
import { build } from "vite";
import { launchChromium } from "../../scripts/page-driver.ts";
import { sendFile } from "../../scripts/send-file.ts";
import { ROOT } from "../../scripts/setup.mjs";
import { type ImageRecipe, makeImage } from "./images.ts";
import type { Operations } from "./page/worker.ts";
import { WorkerSession } from "./worker-session.ts";

type Argument<Name extends keyof Operations> = Parameters<Operations[Name]>[0];
type Result<Name extends keyof Operations> = Awaited<ReturnType<Operations[Name]>>;

export class Lab {
  readonly #folder: string;
  readonly #imports = new Set<string>();
  #server: Server | undefined;
  #chromium: BrowserContext | undefined;
  #page: Page | undefined;

  constructor() {
    mkdirSync(join(ROOT, ".blocktab"), { recursive: true });
    this.#folder = mkdtempSync(join(ROOT, ".blocktab", "bench-"));
  }

  async chromium(): Promise<BrowserContext> {
    this.#chromium ??= await launchChromium(join(this.#folder, "profile"));
    return this.#chromium;
  }

  /** Runs an operation of page/worker.ts in the bench's worker. */
  async call<Name extends keyof Operations>(
    name: Name,
    argument: Argument<Name>,
  ): Promise<Result<Name>> {
    const page = await this.#benchPage();
    const call: { name: string; argument: unknown } = { name, argument };
    return page.evaluate(
      ({ name, argument }) => window.bench.call(name, argument),
      call,
    ) as Promise<Result<Name>>;
  }

  /** The worker's debugger. Starts a new worker, whose heap is empty. */
  async freshWorker(): Promise<WorkerSession> {
    const page = await this.#benchPage();
    return WorkerSession.attach(page, () => page.evaluate(() => window.bench.restart()));
  }

  /** After a failure: lets go of the files that the worker has open. */
  async recover(): Promise<void> {
    await this.#page?.evaluate(() => window.bench.restart());
  }

  /** An image as a file, made at its first use. @returns its path */
  async image(name: string, recipe: ImageRecipe): Promise<string> {
    const path = join(this.#folder, name);
    if (!existsSync(path)) await makeImage(ROOT, path, recipe);
    return path;
  }

  /** A name in the lab's folder for a file that a line makes and removes by itself. */
  file(name: string): string {
    return join(this.#folder, name);
  }

  /** The same image in OPFS, under its name. */
  async imported(name: string, recipe: ImageRecipe): Promise<void> {
    await this.image(name, recipe);
    if (this.#imports.has(name)) return;
    await this.call("importFile", { url: urlOf(name), filename: name });
    this.#imports.add(name);
  }

  /** Makes room: an image will not be needed any more. */
  async forget(name: string): Promise<void> {
    if (this.#imports.delete(name)) await this.call("removeFile", name);
    rmSync(join(this.#folder, name), { force: true });
  }

  async close(): Promise<void> {
    await this.#chromium?.close();
    this.#server?.closeAllConnections();
    this.#server?.close();
    rmSync(this.#folder, { recursive: true, force: true, maxRetries: 5 });
  }

  async #benchPage(): Promise<Page> {
    if (this.#page) return this.#page;
    const built = join(this.#folder, "page");
    await build({
      configFile: false,
      root: join(import.meta.dirname, "page"),
      base: "./",
      logLevel: "error",
      // Not minified: it makes no difference to speed, and stacks and profiles have names.
      build: {
        outDir: built,
        emptyOutDir: true,
        assetsInlineLimit: 0,
        target: "es2022",
        minify: false,
      },
      worker: { format: "es" },
    });
    const url = await this.#serve(built);
    const page = await (await this.chromium()).newPage();
    page.on("console", (message) => {
      if (message.type() === "error") process.stderr.write(`  page: ${message.text()}\n`);
    });
    await page.goto(url);
    await page.waitForFunction(() => "bench" in window);
    this.#page = page;
    return page;
  }

  async #serve(built: string): Promise<string> {
    const page = sirv(built, { dev: true });
    this.#server = createServer((request, response) => {
      const name = /^\/images\/([\w.-]+)$/.exec(request.url ?? "")?.[1];
      if (name === undefined) return page(request, response);
      sendFile(request, response, join(this.#folder, name)).catch((error: unknown) => {
        console.error(error);
        response.destroy();
      });
    });
    this.#server.listen(0, "127.0.0.1");
    await once(this.#server, "listening");
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}/`;
  }
}

/** Where the bench page finds an image. */
export function urlOf(name: string): string {
  return `/images/${name}`;
}
