/**
 * A web server for images, on 127.0.0.1, that answers Range requests and misbehaves as told. Tests on
 * Node hold it in their hands; tests in a browser tell it by requests:
 *
 *   PUT  /<name>          keeps the body under that name
 *   POST /<name>          takes a JSON Behaviour for that name
 *   GET  /<name>?log      the requests so far, as JSON
 */

import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

/** How answers differ from what they should be. Everything is off unless given. */
export interface Behaviour {
  /** Only the next so many GETs misbehave; then all is well. */
  times?: number;
  /** Answer with this status and no body. */
  status?: number;
  retryAfter?: string;
  /** Answer 200 with the whole image. */
  ignoreRange?: boolean;
  /** Another Content-Range than asked. */
  contentRange?: string;
  /** Total in Content-Range is '*', and HEAD has no Content-Length. */
  hideLength?: boolean;
  /** Total in Content-Range is '*'; HEAD tells. */
  hideTotal?: boolean;
  etag?: string | null;
  lastModified?: string;
  encoding?: string;
  /** Close the connection after so many bytes of the body. */
  resetAfter?: number;
  /** End the body, in good order, so many bytes early (negative: late), with no Content-Length. */
  shortBy?: number;
  /** Send so many bytes, then nothing more. */
  stallAfter?: number;
  /** Without Access-Control-Allow-Origin. */
  noCors?: boolean;
  /** With Access-Control-Allow-Origin, but without Access-Control-Expose-Headers. */
  noExpose?: boolean;
  /** Milliseconds before each answer. */
  delay?: number;
  /** Answer a HEAD with this status. */
  headStatus?: number;
  /** Answer 302 to this name. */
  redirect?: string;
}

export interface LoggedRequest {
  readonly method: string;
  readonly range: string | undefined;
  /** How many requests for this image were under way, with this one. */
  readonly parallel: number;
}

interface Image {
  bytes: Uint8Array;
  behaviour: Behaviour;
  log: LoggedRequest[];
  parallel: number;
}

export interface ImageServer {
  /** Without a slash at the end. */
  readonly url: string;
  /** @returns the image's URL */
  put(name: string, bytes: Uint8Array, behaviour?: Behaviour): string;
  behave(name: string, behaviour: Behaviour): void;
  log(name: string): readonly LoggedRequest[];
  close(): Promise<void>;
}

export async function startImageServer(): Promise<ImageServer> {
  const images = new Map<string, Image>();
  const put = (name: string, bytes: Uint8Array, behaviour: Behaviour = {}) => {
    images.set(name, { bytes, behaviour, log: [], parallel: 0 });
  };
  const server = createServer((request, response) => {
    const { pathname, search } = new URL(request.url ?? "/", "http://localhost");
    const name = pathname.slice(1);
    if (request.method === "GET" && search === "")
      return void serve(images, name, request, response);
    if (request.method === "HEAD") return void serve(images, name, request, response);
    void control(images, put, name, request, response);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return {
    url,
    put(name, bytes, behaviour) {
      put(name, bytes, behaviour);
      return `${url}/${name}`;
    },
    behave(name, behaviour) {
      images.get(name)!.behaviour = behaviour;
    },
    log: (name) => images.get(name)!.log,
    close: () => closed(server),
  };
}

function closed(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    server.closeAllConnections();
  });
}

async function control(
  images: Map<string, Image>,
  put: (name: string, bytes: Uint8Array) => void,
  name: string,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const parts: Buffer[] = [];
  for await (const part of request) parts.push(part as Buffer);
  const body = Buffer.concat(parts);
  if (request.method === "PUT") put(name, new Uint8Array(body));
  if (request.method === "POST") images.get(name)!.behaviour = JSON.parse(body.toString());
  response.setHeader("Access-Control-Allow-Origin", "*");
  response.setHeader("Access-Control-Allow-Methods", "*");
  response.setHeader("Access-Control-Allow-Headers", "*");
  response.end(request.method === "GET" ? JSON.stringify(images.get(name)!.log) : "");
}

async function serve(
  images: Map<string, Image>,
  name: string,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const image = images.get(name);
  if (!image) {
    response.setHeader("Access-Control-Allow-Origin", "*");
    response.writeHead(404).end();
    return;
  }
  const { range } = request.headers;
  image.parallel += 1;
  response.on("close", () => {
    image.parallel -= 1;
  });
  image.log.push({ method: request.method!, range, parallel: image.parallel });
  const behaviour = behaviourNow(image, request.method!);
  if (behaviour.delay) await new Promise((resolve) => setTimeout(resolve, behaviour.delay));
  writeHeaders(behaviour, response);
  const isHead = request.method === "HEAD";
  if (isHead && behaviour.headStatus) response.writeHead(behaviour.headStatus).end();
  else if (behaviour.status) response.writeHead(behaviour.status).end();
  else if (behaviour.redirect) response.writeHead(302, { Location: behaviour.redirect }).end();
  else if (isHead) answerHead(image, behaviour, response);
  else answerGet(image, behaviour, range, response);
}

function behaviourNow(image: Image, method: string): Behaviour {
  const { times } = image.behaviour;
  if (times === undefined || method !== "GET") return image.behaviour;
  if (times === 0) return {};
  image.behaviour = { ...image.behaviour, times: times - 1 };
  return image.behaviour;
}

function writeHeaders(behaviour: Behaviour, response: ServerResponse): void {
  if (!behaviour.noCors) response.setHeader("Access-Control-Allow-Origin", "*");
  if (!behaviour.noExpose) {
    const exposed = "ETag, Content-Range, Retry-After, Content-Encoding";
    response.setHeader("Access-Control-Expose-Headers", exposed);
  }
  if (behaviour.etag !== null) response.setHeader("ETag", behaviour.etag ?? '"v1"');
  if (behaviour.lastModified) response.setHeader("Last-Modified", behaviour.lastModified);
  if (behaviour.retryAfter) response.setHeader("Retry-After", behaviour.retryAfter);
  if (behaviour.encoding) response.setHeader("Content-Encoding", behaviour.encoding);
}

function answerHead(image: Image, behaviour: Behaviour, response: ServerResponse): void {
  if (behaviour.hideLength) response.removeHeader("Content-Length");
  else response.setHeader("Content-Length", image.bytes.length);
  response.end();
}

function answerGet(
  image: Image,
  behaviour: Behaviour,
  range: string | undefined,
  response: ServerResponse,
): void {
  const { bytes } = image;
  const [, from, to] = /^bytes=(\d+)-(\d*)$/.exec(range ?? "") ?? [];
  if (from === undefined || behaviour.ignoreRange) {
    response.writeHead(200, { "Content-Length": bytes.length }).end(bytes);
    return;
  }
  const first = Number(from);
  const last = Math.min(bytes.length - 1, to ? Number(to) : Number.POSITIVE_INFINITY);
  const total = behaviour.hideLength || behaviour.hideTotal ? "*" : bytes.length;
  if (first > last) {
    response.writeHead(416, { "Content-Range": `bytes */${total}` }).end();
    return;
  }
  const contentRange = behaviour.contentRange ?? `bytes ${first}-${last}/${total}`;
  response.setHeader("Content-Range", contentRange);
  sendBody(bytes.subarray(first, last + 1), behaviour, response);
}

function sendBody(body: Uint8Array, behaviour: Behaviour, response: ServerResponse): void {
  const { resetAfter, shortBy, stallAfter } = behaviour;
  if (shortBy !== undefined) {
    // Chunked: the client cannot know what is still to come.
    response.writeHead(206);
    response.write(body.subarray(0, Math.max(0, body.length - shortBy)));
    response.end(shortBy < 0 ? new Uint8Array(-shortBy) : undefined);
    return;
  }
  response.writeHead(206, { "Content-Length": body.length });
  if (resetAfter !== undefined) {
    response.write(body.subarray(0, resetAfter), () => response.destroy());
  } else if (stallAfter !== undefined) {
    response.write(body.subarray(0, stallAfter));
  } else {
    response.end(body);
  }
}
