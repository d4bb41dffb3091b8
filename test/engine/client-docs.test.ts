/** The examples of docs/client.md: each is code of client-examples.ts, and that code runs. */

import { readFileSync } from "node:fs";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import type { Client } from "../../src/engine/client.ts";
import type { Engine } from "../../src/engine/engine.ts";
import { connectLocally, createNodeEngine } from "../../src/engine/node.ts";
import * as examples from "./client-examples.ts";

const read = (path: string) => readFileSync(new URL(path, import.meta.url), "utf8");

let engine: Engine;
let client: Client;
const said: unknown[] = [];

beforeEach(async () => {
  engine = await createNodeEngine();
  client = await connectLocally(engine);
  said.length = 0;
  vi.spyOn(console, "log").mockImplementation((...words) => void said.push(...words));
});
afterEach(async () => {
  vi.restoreAllMocks();
  await engine.close();
});

it("each block of code in the document is that of an example that is compiled", () => {
  const blocks = [...read("../../docs/client.md").matchAll(/```ts\n([\s\S]*?)```/g)];
  expect(blocks).toHaveLength(13);
  const source = read("client-examples.ts");
  for (const [, code] of blocks) expect(source).toContain(code);
});

it("a disk is made and written to", async () => {
  await examples.makeDisk(client);
  const device = await client.openDevice("d");
  expect(new TextDecoder().decode(await device.read(0, 5))).toBe("hello");
});

it("errors are told by class and text", async () => {
  await examples.handleErrors(client);
  expect(said).toEqual(["GenericError", expect.stringContaining("nobody")]);
});

it("events are followed until a job has concluded, and jobs run to their end", async () => {
  const followed = examples.followEvents(client);
  await examples.runJob(client);
  await followed;
  expect(await client.execute("query-jobs")).toEqual([]);
  expect(said).toEqual([]);
});

it("waits are given up by signal", async () => {
  await examples.makeDisk(client);
  await examples.giveUp(client);
  expect(said).toEqual([["disk"]]);
});

it("monitors speak in objects and in text", async () => {
  await examples.rawMonitor(client);
  await examples.textMonitor(client);
  await expect.poll(() => said.length).toBe(3);
  expect(said.slice(1)).toEqual(['{"return": {}}\r\n', '{"return": []}\r\n']);
});

it("monitors are handed over, and taken over", async () => {
  const scope: Parameters<typeof examples.takeOver>[0] = { onmessage: null };
  examples.takeOver(scope);
  const { port1, port2 } = new MessageChannel();
  port2.onmessage = ({ data }) => scope.onmessage?.(new MessageEvent("message", { data }));
  await examples.handOver(client, port1);
  await expect.poll(() => said).toEqual([[]]);
  port1.close();
});
