/** A page that a test has built for itself, and the server that it comes from and sends its files to. */

import { once } from "node:events";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { createServer, type IncomingMessage, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { buffer } from "node:stream/consumers";
import sirv from "sirv";
import { build } from "vite";
import { ROOT } from "../../scripts/setup.mjs";

export class OwnPage {
  /** Where the files are that the page has sent. On a disk: a profile in memory would be another store. */
  readonly folder: string;
  readonly url: string;
  readonly #server: Server;

  private constructor(folder: string, server: Server) {
    this.folder = folder;
    this.#server = server;
    this.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
  }

  /** @param name of the folder in test/e2e/ whose `page/` is built */
  static async serve(name: string): Promise<OwnPage> {
    mkdirSync(join(ROOT, ".blocktab"), { recursive: true });
    const folder = mkdtempSync(join(ROOT, ".blocktab", `${name}-`));
    await build({
      configFile: false,
      root: join(import.meta.dirname, name, "page"),
      base: "./",
      logLevel: "error",
      build: {
        outDir: join(folder, "page"),
        assetsInlineLimit: 0,
        target: "es2022",
        minify: false,
      },
      worker: { format: "es" },
    });
    const page = sirv(join(folder, "page"), { dev: true });
    const server = createServer((request, response) => {
      const file = /^\/put\/([a-z0-9-]+)$/.exec(request.url ?? "")?.[1];
      if (file === undefined) return page(request, response);
      void keep(request, join(folder, file)).then((status) => response.writeHead(status).end());
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    return new OwnPage(folder, server);
  }

  close(): void {
    this.#server.closeAllConnections();
    this.#server.close();
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 5 });
  }
}

/** @returns the status: a browser that is killed sends half a file, and nobody hears that it is refused */
async function keep(request: IncomingMessage, path: string): Promise<number> {
  try {
    await writeFile(path, await buffer(request));
    return 204;
  } catch {
    return 500;
  }
}
