/** The template server, asked as a browser's fetch asks. */

import { appendFileSync, mkdtempSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { request as httpRequest, type IncomingHttpHeaders } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parseRange } from "../../scripts/send-file.ts";
import { type RunningServer, startServer } from "../../scripts/server.ts";
import { seededRandom } from "../../src/base/random.ts";

/** Not a whole number of anything. */
const LENGTH = 3 * 1024 * 1024 + 77;

let folder: string;
let image: string;
let bytes: Buffer;
let server: RunningServer;
let url: string;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "blocktab-send-"));
  image = join(folder, "a disk #1.raw");
  bytes = Buffer.alloc(LENGTH);
  seededRandom(7).fill(bytes);
  writeFileSync(image, bytes);
  writeFileSync(join(folder, "index.html"), "<title>page</title>");
  server = await serve(image);
  url = `${server.url}template/0/a%20disk%20%231.raw`;
});

afterAll(async () => {
  await server.close();
  rmSync(folder, { recursive: true });
});

describe("parseRange", () => {
  it.each([
    ["bytes=0-0", { offset: 0, bytes: 1 }],
    ["bytes=10-19", { offset: 10, bytes: 10 }],
    ["bytes=90-", { offset: 90, bytes: 10 }],
    ["bytes=90-200", { offset: 90, bytes: 10 }],
    ["bytes=-10", { offset: 90, bytes: 10 }],
    ["bytes=-1000", { offset: 0, bytes: 100 }],
    ["Bytes = 1 - 2", { offset: 1, bytes: 2 }],
    ["bytes=100-", "unsatisfiable"],
    ["bytes=100-100", "unsatisfiable"],
    ["bytes=99999999999999999999-", "unsatisfiable"],
    ["bytes=-0", "unsatisfiable"],
    ["bytes=20-10", null],
    ["bytes=-", null],
    ["bytes=", null],
    ["bytes=a-b", null],
    ["bytes=1-2,4-5", null],
    ["clusters=1-2", null],
  ])("of 100 bytes, %s is %o", (header, expected) => {
    expect(parseRange(header, 100)).toEqual(expected);
  });

  it("finds nothing in an empty file", () => {
    expect(parseRange("bytes=0-", 0)).toBe("unsatisfiable");
    expect(parseRange("bytes=-5", 0)).toBe("unsatisfiable");
  });
});

describe("an image on the server", () => {
  it("comes whole, with its length and identity", async () => {
    const answer = await fetch(url);
    expect(answer.status).toBe(200);
    expect(answer.headers.get("content-length")).toBe(String(LENGTH));
    expect(answer.headers.get("accept-ranges")).toBe("bytes");
    expect(answer.headers.get("etag")).toMatch(/^"[0-9a-z-]+"$/);
    expect(answer.headers.get("last-modified")).not.toBeNull();
    expect(Buffer.from(await answer.arrayBuffer()).equals(bytes)).toBe(true);
  });

  it.each([
    ["bytes=0-511", 0, 512],
    [`bytes=${LENGTH - 5}-`, LENGTH - 5, LENGTH],
    ["bytes=-77", LENGTH - 77, LENGTH],
    ["bytes=1000-2000000", 1000, 2000001],
  ])("comes by %s as 206 with just these bytes", async (range, start, end) => {
    const answer = await fetch(url, { headers: { range } });
    expect(answer.status).toBe(206);
    expect(answer.headers.get("content-range")).toBe(`bytes ${start}-${end - 1}/${LENGTH}`);
    expect(answer.headers.get("content-length")).toBe(String(end - start));
    expect(Buffer.from(await answer.arrayBuffer()).equals(bytes.subarray(start, end))).toBe(true);
  });

  it("answers 416 with its length to a range past the end", async () => {
    const answer = await fetch(url, { headers: { range: `bytes=${LENGTH}-` } });
    expect(answer.status).toBe(416);
    expect(answer.headers.get("content-range")).toBe(`bytes */${LENGTH}`);
    expect(await answer.text()).toBe("");
  });

  it("answers HEAD as GET, without a body, whatever the range", async () => {
    const answer = await fetch(url, { method: "HEAD", headers: { range: "bytes=5-9" } });
    expect(answer.status).toBe(200);
    expect(answer.headers.get("content-length")).toBe(String(LENGTH));
    expect(answer.headers.get("etag")).not.toBeNull();
    expect(await answer.text()).toBe("");
  });

  it("gives the range under If-Range of its own tag, and else the whole", async () => {
    const etag = (await fetch(url, { method: "HEAD" })).headers.get("etag")!;
    const ask = async (ifRange: string) => {
      const answer = await fetch(url, { headers: { range: "bytes=0-9", "if-range": ifRange } });
      await answer.body?.cancel();
      return answer.status;
    };
    expect(await ask(etag)).toBe(206);
    expect(await ask('"another"')).toBe(200);
    expect(await ask(`W/${etag}`)).toBe(200);
    expect(await ask(new Date().toUTCString())).toBe(200);
  });

  it("says 304 to whoever has it", async () => {
    const etag = (await fetch(url, { method: "HEAD" })).headers.get("etag")!;
    expect((await raw(url, { "if-none-match": `"x", ${etag}` })).status).toBe(304);
    expect((await raw(url, { "if-none-match": '"x"' })).status).toBe(200);
  });

  it("has another tag after any change, also one that keeps its length and its second", async () => {
    const path = join(folder, "changing.raw");
    writeFileSync(path, "aaaa");
    utimesSync(path, 1000, 1000.1);
    const changing = await serve(path);
    const tag = async () =>
      (await fetch(`${changing.url}template/0/changing.raw`)).headers.get("etag");
    const tags = [await tag()];
    writeFileSync(path, "bbbb");
    utimesSync(path, 1000, 1000.2);
    tags.push(await tag());
    appendFileSync(path, "b");
    utimesSync(path, 1000, 1000.2);
    tags.push(await tag());
    // Another file under the same name, with length and times of the old one.
    rmSync(path);
    writeFileSync(join(folder, "placeholder"), "");
    writeFileSync(path, "ccccc");
    utimesSync(path, 1000, 1000.2);
    tags.push(await tag());
    await changing.close();
    expect(new Set(tags).size).toBe(4);
  });

  it("breaks the connection when the file changes under an answer", async () => {
    const path = join(folder, "grown.raw");
    // Large enough not to fit the buffers between the two ends.
    writeFileSync(path, Buffer.alloc(64 * 1024 * 1024));
    const changing = await serve(path);
    const answer = await fetch(`${changing.url}template/0/grown.raw`);
    const reader = answer.body!.getReader();
    await reader.read();
    appendFileSync(path, "more");
    await expect(
      (async () => {
        for (;;) if ((await reader.read()).done) return;
      })(),
    ).rejects.toThrow();
    await changing.close();
  });

  it("may be read by pages of this machine and by no others", async () => {
    const near = await raw(url, { origin: "http://localhost:5173", range: "bytes=0-0" });
    expect(near.headers["access-control-allow-origin"]).toBe("http://localhost:5173");
    expect(near.headers["access-control-expose-headers"]).toMatch(/Content-Range.*ETag/);
    const far = await raw(url, { origin: "https://example.org", range: "bytes=0-0" });
    expect(far.headers["access-control-allow-origin"]).toBeUndefined();
    expect((await raw(url, { host: "example.org" })).status).toBe(403);
  });

  it("answers the preflight of a range with a condition", async () => {
    const answer = await raw(url, { origin: "http://localhost:5173" }, "OPTIONS");
    expect(answer.status).toBe(204);
    expect(answer.headers["access-control-allow-headers"]).toMatch(/If-Range/);
    expect((await raw(url, {}, "POST")).status).toBe(405);
  });

  it.each([
    "template/0/other.raw",
    "template/0/",
    "template/1/a%20disk%20%231.raw",
    "template/0/..%2f..%2findex.html",
  ])("is all that there is: no %s", async (path) => {
    expect((await fetch(server.url + path)).status).toBe(404);
  });

  it("is gone while the template is down, but the page is not", async () => {
    server.templateUp = false;
    await expect(fetch(url)).rejects.toThrow();
    expect((await fetch(server.url)).status).toBe(200);
    server.templateUp = true;
    expect((await fetch(url, { method: "HEAD" })).status).toBe(200);
  });

  it("is described for the page", async () => {
    expect(await (await fetch(`${server.url}template.json`)).json()).toEqual({
      name: "a disk #1.raw",
      "virtual-size": LENGTH,
      chain: [{ name: "a disk #1.raw", url: "template/0/a%20disk%20%231.raw", format: "raw" }],
      demo: false,
    });
  });
});

describe("startServer", () => {
  it("takes the next free port, but the one that was asked for or none", async () => {
    const first = await startServer({ page: folder, template: templateOf(image) });
    const second = await startServer({ page: folder, template: templateOf(image) });
    expect(second.url).not.toBe(first.url);
    const port = Number(new URL(first.url).port);
    await expect(startServer({ page: folder, template: templateOf(image), port })).rejects.toThrow(
      `port ${port} is in use`,
    );
    await first.close();
    await second.close();
  });
});

function serve(path: string): Promise<RunningServer> {
  return startServer({ page: folder, template: templateOf(path), port: 0 });
}

function templateOf(path: string) {
  const name = path.slice(path.lastIndexOf("/") + 1);
  return {
    name,
    virtualSize: LENGTH,
    chain: [{ path, format: "raw" as const }],
    demo: false,
  };
}

/** fetch() keeps some headers for itself (Origin, Host) and hides some answers (304). */
function raw(
  url: string,
  headers: Record<string, string>,
  method = "GET",
): Promise<{ status: number; headers: IncomingHttpHeaders }> {
  return new Promise((resolve, reject) => {
    const request = httpRequest(url, { method, headers }, (answer) => {
      answer.resume();
      answer.on("end", () => resolve({ status: answer.statusCode!, headers: answer.headers }));
    });
    request.on("error", reject);
    request.end();
  });
}
