/**
 * Ranges of one resource on a web server, byte-exact or not at all.
 *
 * Every answer must be status 206 with exactly the bytes that were asked for, of the same version of
 * the resource as at open. What may pass (a lost connection, a busy server) is tried again for a
 * while; what will not pass (no ranges, gone, changed) is said at once and in full.
 *
 * A browser hides most headers of other origins (all but Content-Length and Last-Modified) unless
 * the server lists them in Access-Control-Expose-Headers: what is hidden cannot be checked.
 */

import type { Clock } from "../../base/clock.ts";
import { sleep } from "../../base/clock.ts";
import { BlockError, throwIfAborted } from "../../base/errors.ts";
import type { Random } from "../../base/random.ts";

/** The platform's fetch(), or one that adds credentials or the like to it. */
export type Fetch = (url: string, init: RequestInit) => Promise<Response>;

/** What tells one version of a resource from another. A member that the server hides is missing. */
export interface Identity {
  readonly etag?: string;
  readonly "last-modified"?: string;
  /** Of the whole resource, in bytes. */
  readonly length?: number;
}

export interface Resource {
  readonly url: string;
  readonly fetch: Fetch;
  readonly clock: Clock;
  readonly random: Random;
  /** How long a failing request is tried again. */
  readonly retryMs: number;
  /** How long a server may send nothing. */
  readonly timeoutMs: number;
}

/** A failure that may pass. `waitMs` is what the server asked for, if it did. */
class Passing {
  readonly error: BlockError;
  readonly waitMs: number;

  constructor(error: BlockError, waitMs = 0) {
    this.error = error;
    this.waitMs = waitMs;
  }
}

const FIRST_WAIT_MS = 100;
const MOST_WAIT_MS = 2000;

/**
 * Fills the buffers, which stand one behind the other in the resource, from `offset` on.
 *
 * @param identity what the resource was at open
 * @throws BlockError ESTALE if it has changed; ENOENT, EACCES, ENOTSUP, EIO if the server says so;
 *   EIO or ETIMEDOUT once resource.retryMs are over; ECANCELED if the signal is raised
 */
export async function readRange(
  resource: Resource,
  identity: Identity,
  buffers: readonly Uint8Array[],
  offset: number,
  signal?: AbortSignal,
): Promise<void> {
  const bytes = buffers.reduce((sum, buf) => sum + buf.length, 0);
  const range: Range = { offset, bytes };
  await exchange(resource, "GET", range, signal, async (response, alive) => {
    checkStatus(resource, response, range, identity);
    checkIdentity(resource, response, identity);
    checkRange(resource, response, range);
    await readBody(resource, response, buffers, range, alive);
  });
}

/**
 * Finds out what the resource is, from its first byte and, where that leaves the length open, HEAD.
 *
 * @throws BlockError as readRange(); ENOTSUP if the server has no ranges or hides the length
 */
export async function identify(resource: Resource, signal?: AbortSignal): Promise<Identity> {
  const first = { offset: 0, bytes: 1 };
  const identity = await exchange(resource, "GET", first, signal, async (response, alive) => {
    if (response.status === 416 && lengthIn(response) === 0) return identityIn(response);
    checkStatus(resource, response, first, {});
    checkRange(resource, response, first);
    await readBody(resource, response, [new Uint8Array(1)], first, alive);
    return identityIn(response);
  });
  if (identity.length !== undefined) return identity;

  const head = await exchange(resource, "HEAD", undefined, signal, async (response) => {
    if (response.status === 405 || response.status === 501) return null;
    if (!response.ok) throw refusal(resource, response, undefined);
    checkIdentity(resource, response, identity);
    checkEncoding(resource, response, undefined);
    return response.headers.get("content-length");
  });
  // An empty HEAD's "0" is no proof: the first byte has just been read.
  if (head === null || !/^[1-9]\d*$/.test(head) || !Number.isSafeInteger(Number(head))) {
    return identity;
  }
  return { ...identity, length: Number(head) };
}

/** @throws BlockError ESTALE with both versions, if an expected member differs or is missing */
export function compareIdentity(
  url: string,
  expected: Identity,
  actual: Identity,
  complaint: string,
): void {
  for (const member of ["etag", "last-modified", "length"] as const) {
    const [wanted, found] = [expected[member], actual[member]];
    if (wanted === undefined || wanted === found) continue;
    const shown = found === undefined ? "does not show one" : `has '${found}' now`;
    throw new BlockError(
      "ESTALE",
      `'${url}' ${complaint}: its ${member} was '${wanted}' and the server ${shown}`,
    );
  }
}

interface Range {
  readonly offset: number;
  readonly bytes: number;
}

/** One request and its answer, again and again while the failure may pass. */
async function exchange<T>(
  resource: Resource,
  method: "GET" | "HEAD",
  range: Range | undefined,
  signal: AbortSignal | undefined,
  receive: (response: Response, alive: () => void) => Promise<T>,
): Promise<T> {
  let end: number | undefined;
  for (let tries = 1; ; tries++) {
    throwIfAborted(signal);
    try {
      return await attempt(resource, method, range, signal, receive);
    } catch (failure) {
      if (!(failure instanceof Passing)) throw failure;
      const backOff = Math.min(MOST_WAIT_MS, FIRST_WAIT_MS * 2 ** (tries - 1));
      const jittered = backOff / 2 + resource.random.below(Math.ceil(backOff / 2) + 1);
      const wait = Math.max(Math.min(MOST_WAIT_MS, failure.waitMs), jittered);
      end ??= resource.clock.now() + resource.retryMs;
      if (resource.clock.now() + wait > end) {
        throw failure.error.prepend(`Gave up after ${tries} ${tries === 1 ? "try" : "tries"}`);
      }
      await sleep(resource.clock, wait, signal);
    }
  }
}

/**
 * @param receive reads the answer; calls alive() whenever something has come in
 * @throws Passing, or BlockError for good
 */
async function attempt<T>(
  resource: Resource,
  method: "GET" | "HEAD",
  range: Range | undefined,
  signal: AbortSignal | undefined,
  receive: (response: Response, alive: () => void) => Promise<T>,
): Promise<T> {
  const controller = new AbortController();
  const stop = () => controller.abort();
  let stalled = false;
  const arm = () =>
    resource.clock.setTimer(resource.timeoutMs, () => {
      stalled = true;
      stop();
    });
  let timer = arm();
  signal?.addEventListener("abort", stop, { once: true });
  try {
    const response = await sent(resource, method, range, controller.signal);
    return await receive(response, () => {
      timer.cancel();
      timer = arm();
    });
  } catch (failure) {
    if (!(failure instanceof Passing)) throw failure;
    throwIfAborted(signal);
    if (!stalled) throw failure;
    const text = `${what(resource, range)} failed: nothing came for ${resource.timeoutMs} ms`;
    throw new Passing(new BlockError("ETIMEDOUT", text));
  } finally {
    timer.cancel();
    signal?.removeEventListener("abort", stop);
    // Lets go of a body that nobody has read to its end; harmless after the end.
    stop();
  }
}

async function sent(
  resource: Resource,
  method: "GET" | "HEAD",
  range: Range | undefined,
  signal: AbortSignal,
): Promise<Response> {
  try {
    // Nothing but a plain Range may be added: any other header costs a preflight elsewhere.
    // With a HEAD the range says nothing, but keeps the browser from asking for compression, whose
    // Content-Length would be another.
    const asked = range ? `${range.offset}-${lastByte(range)}` : "0-";
    return await resource.fetch(resource.url, {
      method,
      headers: { Range: `bytes=${asked}` },
      cache: "no-store",
      signal,
    });
  } catch (error) {
    const text =
      `${what(resource, range)} failed: the server is unreachable or, on another origin, does not ` +
      "send Access-Control-Allow-Origin for this page";
    throw new Passing(new BlockError("EIO", text, { cause: error }));
  }
}

function checkStatus(
  resource: Resource,
  response: Response,
  range: Range,
  identity: Identity,
): void {
  if (response.status === 206) return;
  if (response.status === 416 && identity.length !== undefined) {
    checkIdentity(resource, response, identity);
  }
  throw refusal(resource, response, range);
}

/** What a status other than the one hoped for means. */
function refusal(
  resource: Resource,
  response: Response,
  range: Range | undefined,
): BlockError | Passing {
  const { status } = response;
  const text = `${what(resource, range)} failed: the server answered ${status}`;
  if (status === 200) {
    return new BlockError(
      "ENOTSUP",
      `${text} and the whole file; it must support Range requests for an image to be opened there`,
    );
  }
  if (status === 404 || status === 410) return new BlockError("ENOENT", `${text}, not found`);
  if (status === 401 || status === 403) return new BlockError("EACCES", `${text}, not allowed`);
  if (status === 416) return new BlockError("EIO", `${text}, no such range`);
  if (status >= 500 || status === 429 || status === 408) {
    return new Passing(new BlockError("EIO", text), retryAfterMs(response));
  }
  return new BlockError("EIO", text);
}

function checkIdentity(resource: Resource, response: Response, identity: Identity): void {
  const now = identityIn(response);
  // One validator will do, the better one; servers behind one name may differ in the other.
  const { etag, length, "last-modified": lastModified } = identity;
  const expected: Identity = {
    ...(etag !== undefined && { etag }),
    ...(etag === undefined && lastModified !== undefined && { "last-modified": lastModified }),
    // Not every answer tells the length, and a browser may hide it.
    ...(length !== undefined && now.length !== undefined && { length }),
  };
  compareIdentity(resource.url, expected, now, "changed on the server while in use");
}

/** @throws BlockError EIO if the answer is not the asked range, ENOTSUP if it is encoded */
function checkRange(resource: Resource, response: Response, range: Range): void {
  checkEncoding(resource, response, range);
  const header = response.headers.get("content-range");
  if (header !== null && !header.startsWith(`bytes ${range.offset}-${lastByte(range)}/`)) {
    throw new BlockError(
      "EIO",
      `${what(resource, range)} failed: the server answered with '${header}'`,
    );
  }
  const announced = response.headers.get("content-length");
  if (announced !== null && Number(announced) !== range.bytes) {
    throw new BlockError(
      "EIO",
      `${what(resource, range)} failed: the server announced ${announced} bytes`,
    );
  }
}

function checkEncoding(resource: Resource, response: Response, range: Range | undefined): void {
  const encoding = response.headers.get("content-encoding");
  if (encoding !== null && encoding !== "identity") {
    throw new BlockError(
      "ENOTSUP",
      `${what(resource, range)} failed: the server sends it with Content-Encoding '${encoding}', ` +
        "and a range of that is no range of the image; turn compression off for this file",
    );
  }
}

/** Reads exactly what the buffers hold; whatever the server claims, nothing more is kept. */
async function readBody(
  resource: Resource,
  response: Response,
  buffers: readonly Uint8Array[],
  range: Range,
  alive: () => void,
): Promise<void> {
  const reader = response.body?.getReader();
  let received = 0;
  let buffer = 0;
  let at = 0;
  for (;;) {
    const { done, value } = (await nextPart(resource, range, received, reader)) ?? { done: true };
    if (done || value === undefined) break;
    alive();
    received += value.length;
    if (received > range.bytes) {
      throw new BlockError(
        "EIO",
        `${what(resource, range)} failed: the server sent more than that`,
      );
    }
    for (let taken = 0; taken < value.length; ) {
      const target = buffers[buffer]!;
      const count = Math.min(value.length - taken, target.length - at);
      target.set(value.subarray(taken, taken + count), at);
      taken += count;
      at += count;
      if (at === target.length) {
        buffer += 1;
        at = 0;
      }
    }
  }
  if (received < range.bytes) throw cutOff(resource, range, received);
}

async function nextPart(
  resource: Resource,
  range: Range,
  received: number,
  reader: ReadableStreamDefaultReader<Uint8Array> | undefined,
) {
  try {
    return await reader?.read();
  } catch (error) {
    throw cutOff(resource, range, received, error);
  }
}

function cutOff(resource: Resource, range: Range, received: number, cause?: unknown): Passing {
  const text = `${what(resource, range)} failed: the answer ended after ${received} bytes`;
  return new Passing(new BlockError("EIO", text, { cause }));
}

function identityIn(response: Response): Identity {
  const etag = response.headers.get("etag");
  const lastModified = response.headers.get("last-modified");
  const length = lengthIn(response);
  return {
    ...(etag !== null && { etag }),
    ...(lastModified !== null && { "last-modified": lastModified }),
    ...(length !== undefined && { length }),
  };
}

/** The total in a Content-Range, undefined if it is hidden, '*', or beyond 2^53. */
function lengthIn(response: Response): number | undefined {
  const total = /^bytes [^/]+\/(\d+)$/.exec(response.headers.get("content-range") ?? "")?.[1];
  return total !== undefined && Number.isSafeInteger(Number(total)) ? Number(total) : undefined;
}

/** Retry-After in seconds; its other shape, a date, means nothing against our clock. */
function retryAfterMs(response: Response): number {
  const seconds = response.headers.get("retry-after");
  return seconds !== null && /^\d{1,6}$/.test(seconds) ? Number(seconds) * 1000 : 0;
}

function lastByte({ offset, bytes }: Range): number {
  return offset + bytes - 1;
}

function what({ url }: Resource, range: Range | undefined): string {
  return range === undefined
    ? `Asking for the length of '${url}'`
    : `Reading bytes ${range.offset}-${lastByte(range)} of '${url}'`;
}
