/**
 * One file over HTTP, whole or by range, so that a reader can trust what it got: every answer names
 * the file's identity in its ETag, and a body ends as promised only if the file was the same file
 * from its first byte to its last. A file that changes on the way breaks the connection instead.
 *
 * Source: RFC 9110, sections 8.8 (validators), 13 (preconditions) and 14 (ranges).
 */

import type { BigIntStats } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import type { IncomingMessage, ServerResponse } from "node:http";
import { pipeline } from "node:stream/promises";

/** Bytes read at a time; what one answer holds in memory is a small multiple of it. */
const CHUNK = 256 * 1024;

export interface ByteRange {
  readonly offset: number;
  readonly bytes: number;
}

/**
 * What a Range header asks of a file of `length` bytes.
 *
 * @returns the one range, cut at the end of the file; "unsatisfiable" (416) if none of it is in the
 *   file; null (200, the whole) for what is no single byte range: RFC 9110 14.2 lets a server pass
 *   over a Range that it does not take
 */
export function parseRange(header: string, length: number): ByteRange | "unsatisfiable" | null {
  const match = /^\s*bytes\s*=\s*(\d*)\s*-\s*(\d*)\s*$/i.exec(header);
  if (match === null) return null;
  const [, first, last] = match;
  if (first === "" && last === "") return null;
  if (first === "") {
    const bytes = Math.min(Number(last), length);
    return bytes === 0 ? "unsatisfiable" : { offset: length - bytes, bytes };
  }
  const offset = Number(first);
  const end = last === "" ? length : Math.min(Number(last) + 1, length);
  if (last !== "" && Number(last) < offset) return null;
  return offset >= length ? "unsatisfiable" : { offset, bytes: end - offset };
}

/**
 * A strong validator: another file, another length or another time of change, another tag. That of the content can be
 * set, and a number of a file that is gone is another one's soon; the other time is the system's alone. Not the device:
 * its number may be another one after the next boot, and overlays outlive that.
 */
export function entityTag(stat: BigIntStats): string {
  return `"${[stat.ino, stat.size, stat.mtimeNs, stat.ctimeNs].map((n) => n.toString(36)).join("-")}"`;
}

/**
 * Answers GET and HEAD for the file. A file that is not there or cannot be read is a 404.
 *
 * @param onBytes told of every piece of a body before it is sent
 */
export async function sendFile(
  request: IncomingMessage,
  response: ServerResponse,
  path: string,
  onBytes: (bytes: number) => void = () => {},
): Promise<void> {
  const handle = await openFile(path);
  if (handle === null) {
    response.writeHead(404, { "Content-Type": "text/plain" }).end("The file cannot be opened\n");
    return;
  }
  try {
    const stat = await handle.stat({ bigint: true });
    const range = answerHead(request, response, stat);
    if (range === null || request.method === "HEAD") response.end();
    else await pipeline(bodyOf(handle, range, stat, onBytes), response);
  } catch (error) {
    // Head and half a body are out: only a broken connection can tell the reader.
    response.destroy();
    if (!isExpected(error)) throw error;
  } finally {
    await handle.close();
  }
}

/** Writes status and headers; returns the bytes that follow, null if there is no body. */
function answerHead(
  request: IncomingMessage,
  response: ServerResponse,
  stat: BigIntStats,
): ByteRange | null {
  const length = Number(stat.size);
  const etag = entityTag(stat);
  const modified = stat.mtime.toUTCString();
  const { range: rangeHeader, "if-range": ifRange, "if-none-match": ifNoneMatch } = request.headers;
  response.setHeader("ETag", etag);
  response.setHeader("Last-Modified", modified);
  response.setHeader("Accept-Ranges", "bytes");
  response.setHeader("Cache-Control", "no-cache");
  if (ifNoneMatch !== undefined && listHas(ifNoneMatch, etag)) {
    response.writeHead(304);
    return null;
  }
  // Only GET has ranges (14.2). A date has whole seconds, in which a file can change twice: as a
  // validator for a range it is weak, so only the tag counts (13.1.5).
  const wanted = request.method === "GET" && (ifRange === undefined || ifRange === etag);
  const range = wanted && rangeHeader !== undefined ? parseRange(rangeHeader, length) : null;
  response.setHeader("Content-Type", "application/octet-stream");
  if (range === "unsatisfiable") {
    response.writeHead(416, { "Content-Range": `bytes */${length}`, "Content-Length": 0 });
    return null;
  }
  if (range === null) {
    response.writeHead(200, { "Content-Length": length });
    return { offset: 0, bytes: length };
  }
  response.writeHead(206, {
    "Content-Length": range.bytes,
    "Content-Range": `bytes ${range.offset}-${range.offset + range.bytes - 1}/${length}`,
  });
  return range;
}

/**
 * The bytes of the range. The last piece is held back until the file has been looked at again, so
 * that nobody takes a mixture of two files for one.
 */
async function* bodyOf(
  handle: FileHandle,
  { offset, bytes }: ByteRange,
  before: BigIntStats,
  onBytes: (bytes: number) => void,
): AsyncGenerator<Uint8Array> {
  for (let done = 0; done < bytes; ) {
    // A new buffer each time: the response keeps it until the network has taken it.
    const chunk = new Uint8Array(Math.min(CHUNK, bytes - done));
    const { bytesRead } = await handle.read(chunk, 0, chunk.length, offset + done);
    done += bytesRead;
    const changed =
      done === bytes && entityTag(await handle.stat({ bigint: true })) !== entityTag(before);
    if (bytesRead === 0 || changed) throw new FileChanged();
    onBytes(bytesRead);
    yield chunk.subarray(0, bytesRead);
  }
}

class FileChanged extends Error {}

/** The reader went away, or the file changed: nothing for the server to report. */
function isExpected(error: unknown): boolean {
  const code = (error as { code?: unknown }).code;
  return (
    error instanceof FileChanged ||
    code === "ERR_STREAM_PREMATURE_CLOSE" ||
    code === "ECONNRESET" ||
    code === "EPIPE"
  );
}

/** Whether an If-None-Match names the tag; comparison is weak (13.1.2). */
function listHas(header: string, etag: string): boolean {
  const tags = header.split(",").map((tag) => tag.trim().replace(/^W\//, ""));
  return tags.includes("*") || tags.includes(etag);
}

async function openFile(path: string): Promise<FileHandle | null> {
  try {
    return await open(path, "r");
  } catch (error) {
    if (typeof (error as { code?: unknown }).code === "string") return null;
    throw error;
  }
}
