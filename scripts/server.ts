/**
 * The server of `npm start`, of the demo and of the end-to-end tests: the built page, and below
 * /template/ the images of one chain, on this machine only.
 *
 *     /                       the page, from dist/
 *     /template.json          the chain, top first, as the page reads it (TemplateDescription)
 *     /template/0/top.qcow2   its images by range; the names are those of the list, and nothing else
 *     /template/1/base.raw    can be asked for: no path from a request ever reaches the disk
 */

import { once } from "node:events";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { basename } from "node:path";
import sirv from "sirv";
import { sendFile } from "./send-file.ts";
import { UserError } from "./setup.mjs";
import type { Template } from "./template.ts";

export const DEFAULT_PORT = 5170;

/** How many ports are tried, from the default on, when nobody asked for one. */
const PORT_TRIES = 20;

/** The only names under which a browser on this machine asks for it. */
const LOOPBACK = new Set(["127.0.0.1", "localhost", "[::1]"]);

/** /template.json. URLs are relative to the page. */
export interface TemplateDescription {
  readonly name: string;
  readonly "virtual-size": number;
  readonly chain: readonly {
    readonly name: string;
    readonly url: string;
    readonly format: "raw" | "qcow2";
    readonly "data-file"?: { readonly url: string };
  }[];
  /** Made by blocktab itself, not given by the user. */
  readonly demo: boolean;
}

export interface ServerOptions {
  /** Folder of the built page. */
  readonly page: string;
  readonly template: Template;
  /** 0: any free one. Missing: the default one or the next free. */
  readonly port?: number;
}

export interface RunningServer {
  /** With a slash at the end. */
  readonly url: string;
  /** Whether the images are served. While false, whoever asks for one loses the connection. */
  templateUp: boolean;
  /** Bytes of images sent so far. */
  readonly templateBytes: number;
  /** Breaks what is under way and frees the port. */
  close(): Promise<void>;
}

/** @throws UserError if the port is taken */
export async function startServer(options: ServerOptions): Promise<RunningServer> {
  const description = describe(options.template);
  const files = filesOf(options.template);
  const page = sirv(options.page, { dev: true, etag: true });
  const running = { templateUp: true, templateBytes: 0 };
  const count = (bytes: number) => {
    running.templateBytes += bytes;
  };

  const server = createServer((request, response) => {
    if (!allowed(request, response)) return;
    const asked = request.url ?? "/";
    if (!URL.canParse(asked, "http://localhost")) return void response.writeHead(400).end();
    const path = new URL(asked, "http://localhost").pathname;
    if (path === "/template.json") return sendJson(request, response, description);
    if (!path.startsWith("/template/")) return page(request, response);
    const file = files.get(path);
    if (!running.templateUp) return void request.socket.destroy();
    if (file === undefined) return void response.writeHead(404).end();
    sendFile(request, response, file, count).catch((error) => {
      console.error(error);
      response.destroy();
    });
  });
  const port = await listen(server, options.port);

  return Object.assign(running, {
    url: `http://127.0.0.1:${port}/`,
    async close() {
      server.close();
      server.closeAllConnections();
      await once(server, "close");
    },
  });
}

/** The chain as the page is told of it. */
function describe({ name, virtualSize, chain, demo }: Template): TemplateDescription {
  return {
    name,
    "virtual-size": virtualSize,
    chain: chain.map((image, i) => ({
      name: basename(image.path),
      url: urlOf(i, image.path),
      format: image.format,
      ...(image.dataFile !== undefined && { "data-file": { url: urlOf(i, image.dataFile) } }),
    })),
    demo,
  };
}

function urlOf(index: number, path: string): string {
  return `template/${index}/${encodeURIComponent(basename(path))}`;
}

/** By path of the request, as it stands in the URL. */
function filesOf({ chain }: Template): Map<string, string> {
  const files = new Map<string, string>();
  for (const [i, { path, dataFile }] of chain.entries()) {
    files.set(`/${urlOf(i, path)}`, path);
    if (dataFile !== undefined) files.set(`/${urlOf(i, dataFile)}`, dataFile);
  }
  return files;
}

/**
 * Keeps strangers out. The images may be private, and any site that the user visits can make the
 * browser ask this server: by a name of its own that points to 127.0.0.1 (so Host is checked), or
 * across origins (so only pages of this machine may read the answers).
 *
 * @returns false if the request has been answered here
 */
function allowed(request: IncomingMessage, response: ServerResponse): boolean {
  const { host, origin } = request.headers;
  if (!isLoopback(`http://${host}`)) {
    response.writeHead(403, { "Content-Type": "text/plain" });
    response.end("This server answers to the name 127.0.0.1 or localhost only\n");
    return false;
  }
  response.setHeader("Vary", "Origin");
  if (origin !== undefined && isLoopback(origin)) {
    response.setHeader("Access-Control-Allow-Origin", origin);
    response.setHeader(
      "Access-Control-Expose-Headers",
      "Accept-Ranges, Content-Length, Content-Range, ETag, Last-Modified",
    );
  }
  switch (request.method) {
    case "GET":
    case "HEAD":
      return true;
    case "OPTIONS":
      response.setHeader("Access-Control-Allow-Methods", "GET, HEAD");
      response.setHeader("Access-Control-Allow-Headers", "Range, If-Range, If-None-Match");
      response.writeHead(204).end();
      return false;
    default:
      response.writeHead(405, { Allow: "GET, HEAD, OPTIONS" }).end();
      return false;
  }
}

function isLoopback(origin: string): boolean {
  return URL.canParse(origin) && LOOPBACK.has(new URL(origin).hostname);
}

function sendJson(request: IncomingMessage, response: ServerResponse, value: object): void {
  const body = JSON.stringify(value);
  response.writeHead(200, {
    "Content-Type": "application/json",
    "Content-Length": Buffer.byteLength(body),
    "Cache-Control": "no-cache",
  });
  response.end(request.method === "HEAD" ? undefined : body);
}

/** @returns the port */
async function listen(server: Server, wanted: number | undefined): Promise<number> {
  const first = wanted ?? DEFAULT_PORT;
  const last = wanted === undefined ? first + PORT_TRIES : first;
  for (let port = first; port <= last; port++) {
    server.listen(port, "127.0.0.1");
    try {
      await once(server, "listening");
      return (server.address() as AddressInfo).port;
    } catch (error) {
      const { code } = error as { code?: string };
      if (code === "EACCES")
        throw new UserError(`may not use port ${port}; give another: --port N`);
      if (code !== "EADDRINUSE") throw error;
    }
  }
  const tried = first === last ? `port ${first} is` : `ports ${first} to ${last} are`;
  throw new UserError(`${tried} in use; give another: --port N, or --port 0 for any`);
}
