import * as v from "valibot";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { MiB } from "../../../src/base/bytes.ts";
import { check } from "../../../src/base/check.ts";
import type { BlockState } from "../../../src/block/driver.ts";
import { httpDriver } from "../../../src/drivers/protocol/http.ts";
import {
  describeProtocol,
  expectBytes,
  failure,
  noise,
  readAll,
  storeWorld,
} from "../../conformance/protocol.ts";
import {
  type Behaviour,
  type ImageServer,
  startImageServer,
} from "../../conformance/protocol-http-server.ts";

const world = storeWorld();
const content = noise(3 * MiB + 17);
let server: ImageServer;
let count = 0;

beforeAll(async () => {
  server = await startImageServer();
});
afterAll(() => server.close());

describeProtocol("http", { writable: false, sharedReaders: true, far: 0 }, async (bytes) => {
  const url = server.put(`image${++count}`, bytes);
  return { open: (readOnly) => opened(url, {}, readOnly) };
});

/** As blockdev-add would open it, but soon tired of trying again. */
function opened(url: string, options: object = {}, readOnly = true): Promise<BlockState> {
  const given = { url, "retry-time": 0.4, ...options };
  const checked = check(v.strictObject(httpDriver().openOptions), given);
  return httpDriver().open({
    world,
    options: checked as never,
    nodeName: "n",
    readOnly,
    children: {},
  });
}

/** An image that is well at open, and misbehaves afterwards. */
async function turned(behaviour: Behaviour, options: object = {}): Promise<[BlockState, string]> {
  const name = `image${++count}`;
  const state = await opened(server.put(name, content), options);
  server.behave(name, behaviour);
  return [state, name];
}

describe("httpDriver, opening", () => {
  it.each<[string, Behaviour, string, string]>([
    ["no ranges", { ignoreRange: true }, "ENOTSUP", "must support Range requests"],
    ["404", { status: 404 }, "ENOENT", "404"],
    ["410", { status: 410 }, "ENOENT", "410"],
    ["403", { status: 403 }, "EACCES", "403"],
    ["400", { status: 400 }, "EIO", "400"],
    ["500, again and again", { status: 500 }, "EIO", "Gave up after"],
    ["no length", { hideLength: true }, "ENOTSUP", "does not tell the length"],
    ["compression", { encoding: "br" }, "ENOTSUP", "Content-Encoding 'br'"],
    ["another range", { contentRange: "bytes 1-1/9" }, "EIO", "bytes 1-1/9"],
    ["a reset connection", { resetAfter: 0 }, "EIO", "Gave up after"],
    ["silence", { stallAfter: 0 }, "ETIMEDOUT", "nothing came for 300 ms"],
  ])("fails for %s, naming the URL", async (_, behaviour, errno, text) => {
    const url = server.put(`image${++count}`, content, behaviour);
    const timeout = behaviour.stallAfter === undefined ? 30 : 0.3;
    const { message } = await failure(opened(url, { timeout }), errno);
    expect(message).toContain(text);
    expect(message).toContain(url);
  });

  it("fails for a server that is not there", async () => {
    const gone = await startImageServer();
    const url = gone.put("x", content);
    await gone.close();
    const { message } = await failure(opened(url), "EIO");
    expect(message).toContain("unreachable");
  });

  it("asks HEAD where Content-Range has no total", async () => {
    const state = await opened(server.put(`image${++count}`, content, { hideTotal: true }));
    expect(state.getLength?.()).toBe(content.length);
    expectBytes(await readAll(state, content.length - 9, 9), content.subarray(-9));
  });

  it("takes an expected length where the server tells none", async () => {
    const url = server.put(`image${++count}`, content, { hideLength: true });
    const state = await opened(url, { expect: { length: content.length } });
    expectBytes(await readAll(state, content.length - 9, 9), content.subarray(-9));
  });

  it.each([405, 501])("takes an expected length where HEAD is answered with %i", async (status) => {
    const behaviour = { hideTotal: true, headStatus: status };
    const url = server.put(`image${++count}`, content, behaviour);
    await failure(opened(url), "ENOTSUP");
    const state = await opened(url, { expect: { length: content.length } });
    expect(state.getLength?.()).toBe(content.length);
  });

  it("opens an empty image", async () => {
    const state = await opened(server.put(`image${++count}`, new Uint8Array(0)));
    expect(state.getLength?.()).toBe(0);
  });

  it("follows a redirect", async () => {
    const url = server.put(`image${++count}`, content);
    const state = await opened(server.put(`image${++count}`, new Uint8Array(1), { redirect: url }));
    expectBytes(await readAll(state, 5, 100), content.subarray(5, 105));
  });

  it("tells what the resource is, and takes that as what to expect", async () => {
    const lastModified = "Mon, 02 Nov 2026 10:00:00 GMT";
    const url = server.put(`image${++count}`, content, { etag: 'W/"7"', lastModified });
    const { data } = (await opened(url)).info!()["format-specific"]!;
    expect(data).toEqual({
      url,
      etag: 'W/"7"',
      "last-modified": lastModified,
      length: content.length,
    });
    const { url: _, ...identity } = data as { url: string };
    await opened(url, { expect: identity });
    const { message } = await failure(opened(url, { expect: { etag: '"8"' } }), "ESTALE");
    expect(message).toContain(`etag was '"8"'`);
    expect(message).toContain(`'W/"7"'`);
    await failure(opened(url, { expect: { length: 5 } }), "ESTALE");
  });

  it("fails for an expected validator that the server does not show", async () => {
    const url = server.put(`image${++count}`, content, { etag: null });
    await failure(opened(url, { expect: { etag: '"v1"' } }), "ESTALE");
  });

  it("is not for writing", async () => {
    const url = server.put(`image${++count}`, content);
    await failure(opened(url, {}, false), "EACCES");
  });

  it("refuses what is no web address", () => {
    for (const url of ["image.raw", "ftp://x/y", "http://me:secret@x/y", "http://", ""]) {
      expect(() => opened(url), url).toThrow("Parameter 'url' expects an absolute http");
    }
  });
});

describe("httpDriver, reading", () => {
  it.each<[string, Behaviour, string, string]>([
    ["the whole file", { ignoreRange: true }, "ENOTSUP", "Range"],
    ["404", { status: 404 }, "ENOENT", "404"],
    ["another range", { contentRange: "bytes 0-9/*" }, "EIO", "bytes 0-9/*"],
    ["another total", { contentRange: "bytes 0-262143/9" }, "ESTALE", "length"],
    ["more than was asked", { shortBy: -5 }, "EIO", "more than that"],
    ["less than was asked", { shortBy: 5 }, "EIO", "ended after 262139 bytes"],
    ["a reset connection", { resetAfter: 1000 }, "EIO", "Gave up after"],
    ["503, again and again", { status: 503 }, "EIO", "503"],
    ["a body that stops coming", { stallAfter: 1000 }, "ETIMEDOUT", "nothing came"],
    ["another ETag", { etag: '"v2"' }, "ESTALE", `'"v2"'`],
    ["no ETag any more", { etag: null }, "ESTALE", "does not show one"],
    ["compression", { encoding: "zstd" }, "ENOTSUP", "zstd"],
  ])("fails for %s, naming URL and bytes", async (_, behaviour, errno, text) => {
    const timeout = behaviour.stallAfter === undefined ? 30 : 0.3;
    const [state, name] = await turned(behaviour, { timeout });
    const { message } = await failure(readAll(state, 100, 1000), errno);
    expect(message).toContain(text);
    expect(message).toContain(`${server.url}/${name}`);
    if (errno !== "ESTALE") expect(message).toContain("0-262143");
  });

  it.each<[string, Behaviour]>([
    ["503", { status: 503 }],
    ["429 with Retry-After", { status: 429, retryAfter: "0" }],
    ["408", { status: 408 }],
    ["a reset connection", { resetAfter: 70_000 }],
    ["a cut-off body", { shortBy: 1 }],
    ["silence", { stallAfter: 5 }],
  ])("goes on after %s, if only twice", async (_, behaviour) => {
    const [state, name] = await turned(
      { ...behaviour, times: 2 },
      { "retry-time": 10, timeout: behaviour.stallAfter === undefined ? 30 : 0.3 },
    );
    expectBytes(await readAll(state, 0, 1000), content.subarray(0, 1000));
    expect(server.log(name)).toHaveLength(4);
  });

  it("fails with ESTALE when the file is another one now, even of another length", async () => {
    const [state, name] = await turned({});
    expectBytes(await readAll(state, 0, 10), content.subarray(0, 10));
    server.put(name, noise(1 * MiB, 8), { etag: '"v2"' });
    const { message } = await failure(readAll(state, 2 * MiB, 10), "ESTALE");
    expect(message).toContain("changed on the server while in use");
    expect(message).toContain(`'"v1"'`);
    // The same validator does not help against another length.
    server.put(name, noise(1 * MiB, 8));
    await failure(readAll(state, 2 * MiB, 10), "ESTALE");
    await failure(readAll(state, 512 * 1024, 10), "ESTALE");
  });

  it("compares Last-Modified where there is no ETag", async () => {
    const name = `image${++count}`;
    const before = { etag: null, lastModified: "Mon, 02 Nov 2026 10:00:00 GMT" };
    const state = await opened(server.put(name, content, before));
    await readAll(state, 0, 10);
    server.behave(name, { etag: null, lastModified: "Tue, 03 Nov 2026 10:00:00 GMT" });
    await failure(readAll(state, MiB, 10), "ESTALE");
  });

  it("fetches a block once, however many want it", async () => {
    const [state, name] = await turned({ delay: 30 });
    await Promise.all(Array.from({ length: 20 }, (_, i) => readAll(state, i * 1000, 5000)));
    await readAll(state, 100_000, 1000);
    expect(server.log(name).map(({ range }) => range)).toEqual(["bytes=0-0", "bytes=0-262143"]);
  });

  it("fetches neighbours in one request, at most 2 MiB, and only what is missing", async () => {
    const [state, name] = await turned({}, { readahead: 0 });
    await readAll(state, 262144 * 2, 10);
    await readAll(state, 0, content.length);
    expect(
      server
        .log(name)
        .slice(1)
        .map(({ range }) => range),
    ).toEqual([
      "bytes=524288-786431",
      "bytes=0-524287",
      "bytes=786432-2883583",
      `bytes=2883584-${content.length - 1}`,
    ]);
  });

  it("has six requests under way at most", async () => {
    const [state, name] = await turned({ delay: 20 }, { readahead: 0, "cache-size": 0 });
    for (let wave = 1; wave <= 3; wave++) {
      await Promise.all(Array.from({ length: 13 }, (_, i) => readAll(state, i * 262144, 17)));
      const log = server.log(name);
      expect(log).toHaveLength(1 + 13 * wave);
      expect(Math.max(...log.map(({ parallel }) => parallel))).toBe(6);
    }
  });

  it("keeps no more blocks than it may", async () => {
    const [state, name] = await turned({}, { "cache-size": 2 * 262144, readahead: 0 });
    for (const block of [0, 1, 0, 2, 0, 1]) await readAll(state, block * 262144, 17);
    const ranges = server.log(name).slice(1);
    expect(ranges.map(({ range }) => Number(/\d+/.exec(range!)![0]) / 262144)).toEqual([
      0, 1, 2, 1,
    ]);
  });

  it("reads without any cache", async () => {
    const [state] = await turned({}, { "cache-size": 0 });
    for (let i = 0; i < 3; i++) {
      expectBytes(await readAll(state, 100, 500_000), content.subarray(100, 500_100));
    }
  });

  it("is ahead of one who reads in order, and of no one else", async () => {
    const [state, name] = await turned({});
    await readAll(state, 0, 1000);
    await readAll(state, 5000, 1000);
    expect(server.log(name)).toHaveLength(2);
    await readAll(state, 6000, 1000);
    await until(() => server.log(name).length === 3);
    expect(server.log(name).at(-1)?.range).toBe("bytes=262144-1310719");
    expectBytes(await readAll(state, 7000, 900_000), content.subarray(7000, 907_000));
    await state.close?.();
  });

  it("does not take the others along when one reader goes", async () => {
    const [state, name] = await turned({ delay: 50 });
    const controller = new AbortController();
    const gone = state.pread!(new Uint8Array(100), 0, { signal: controller.signal });
    const stays = readAll(state, 50, 100);
    controller.abort();
    await failure(gone, "ECANCELED");
    expectBytes(await stays, content.subarray(50, 150));
    expect(server.log(name)).toHaveLength(2);
  });

  it("calls the request off when the last reader goes, and asks again for the next", async () => {
    const [state, name] = await turned({ stallAfter: 10 });
    const controller = new AbortController();
    const gone = state.pread!(new Uint8Array(100), 0, { signal: controller.signal });
    await until(() => server.log(name).length === 2);
    controller.abort();
    await failure(gone, "ECANCELED");
    server.behave(name, {});
    expectBytes(await readAll(state, 50, 100), content.subarray(50, 150));
    expect(server.log(name)).toHaveLength(3);
  });

  it("never tells a reader that another one has gone, however soon it comes after", async () => {
    for (let ticks = 0; ticks < 16; ticks++) {
      const [state, name] = await turned({ delay: 10, times: 1 });
      const controller = new AbortController();
      const gone = state.pread!(new Uint8Array(100), 0, { signal: controller.signal });
      const canceled = failure(gone, "ECANCELED");
      await until(() => server.log(name).length === 2);
      controller.abort();
      for (let tick = 0; tick < ticks; tick++) await Promise.resolve();
      expectBytes(await readAll(state, 50, 100), content.subarray(50, 150), `${ticks} ticks:`);
      await canceled;
    }
  });

  it("ends while it waits between two tries when it is called off", async () => {
    const [state] = await turned({ status: 503 }, { "retry-time": 3600 });
    const signal = AbortSignal.timeout(300);
    await failure(state.pread!(new Uint8Array(10), 0, { signal }), "ECANCELED");
  });

  it("ends what is under way when it is closed", async () => {
    const [state] = await turned({ stallAfter: 10 });
    const read = failure(readAll(state, 0, 10), "ECANCELED");
    await state.close?.();
    await read;
  });
});

/** Waits for the server's side of things, which no promise of ours tells about. */
async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 5));
}
