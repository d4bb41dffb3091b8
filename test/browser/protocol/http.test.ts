import * as v from "valibot";
import { describe, expect, inject, it } from "vitest";
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
import type { Behaviour, LoggedRequest } from "../../conformance/protocol-http-server.ts";

/** Another origin than the tests' own: what CORS hides is hidden. */
const server = inject("imageServer");
const world = storeWorld();
const content = noise(MiB + 17);
let count = 0;

async function put(bytes: Uint8Array, behaviour: Behaviour = {}): Promise<string> {
  const url = `${server}/browser${++count}`;
  await fetch(url, { method: "PUT", body: bytes as Uint8Array<ArrayBuffer> });
  await behave(url, behaviour);
  return url;
}

async function behave(url: string, behaviour: Behaviour): Promise<void> {
  await fetch(url, { method: "POST", body: JSON.stringify(behaviour) });
}

function opened(url: string, options: object = {}): Promise<BlockState> {
  const given = { url, "retry-time": 0.4, ...options };
  const checked = check(v.strictObject(httpDriver().openOptions), given);
  return httpDriver().open({
    world,
    options: checked as never,
    nodeName: "n",
    readOnly: true,
    children: {},
  });
}

describeProtocol("http", { writable: false, sharedReaders: true, far: 0 }, async (bytes) => {
  const url = await put(bytes);
  return { open: () => opened(url) };
});

describe("httpDriver in a browser", () => {
  it.each<[string, Behaviour, string, string]>([
    ["no ranges", { ignoreRange: true }, "ENOTSUP", "must support Range requests"],
    ["404", { status: 404 }, "ENOENT", "404"],
    ["no length at all", { hideLength: true }, "ENOTSUP", "does not tell the length"],
    ["an origin that may not", { noCors: true }, "EIO", "Access-Control-Allow-Origin"],
    ["500", { status: 500 }, "EIO", "Gave up after"],
    ["a reset connection", { resetAfter: 0 }, "EIO", "Gave up after"],
  ])("fails for %s, naming the URL", async (_, behaviour, errno, text) => {
    const url = await put(content, behaviour);
    const { message } = await failure(opened(url), errno);
    expect(message).toContain(text);
    expect(message).toContain(url);
  });

  it("learns the length by HEAD where Content-Range is not exposed", async () => {
    const url = await put(content, { noExpose: true });
    const state = await opened(url);
    expect(state.getLength?.()).toBe(content.length);
    expect(state.info?.()["format-specific"]?.data).toEqual({ url, length: content.length });
    expectBytes(await readAll(state, MiB, 17), content.subarray(MiB));
  });

  it("compares Last-Modified, which no server has to expose", async () => {
    const lastModified = "Mon, 02 Nov 2026 10:00:00 GMT";
    const url = await put(content, { noExpose: true, lastModified });
    const state = await opened(url);
    await readAll(state, 0, 10);
    await behave(url, { noExpose: true, lastModified: "Tue, 03 Nov 2026 10:00:00 GMT" });
    await failure(readAll(state, MiB, 10), "ESTALE");
  });

  it.each<[string, Behaviour, string]>([
    ["another ETag", { etag: '"v2"' }, "ESTALE"],
    ["the whole file", { ignoreRange: true }, "ENOTSUP"],
    ["a body cut off", { resetAfter: 1000 }, "EIO"],
    ["a body that stops coming", { stallAfter: 1000 }, "ETIMEDOUT"],
    ["a body that is too short", { shortBy: 3 }, "EIO"],
  ])("fails for %s while in use", async (_, behaviour, errno) => {
    const url = await put(content);
    const timeout = behaviour.stallAfter === undefined ? 30 : 0.3;
    const state = await opened(url, { timeout });
    await behave(url, behaviour);
    const { message } = await failure(readAll(state, 5, 10), errno);
    expect(message).toContain(url);
  });

  it("goes on when the server is back", async () => {
    const url = await put(content);
    const state = await opened(url, { "retry-time": 10 });
    await behave(url, { status: 503, times: 2 });
    expectBytes(await readAll(state, 5, 1000), content.subarray(5, 1005));
  });

  it("costs no preflight", async () => {
    const url = await put(content);
    const state = await opened(url);
    await readAll(state, 0, content.length);
    const log = (await (await fetch(`${url}?log`)).json()) as LoggedRequest[];
    expect(log.map(({ method, range }) => `${method} ${range}`)).toEqual([
      "GET bytes=0-0",
      `GET bytes=0-${content.length - 1}`,
    ]);
  });
});
