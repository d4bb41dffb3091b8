import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import type { Trace } from "../../src/base/trace.ts";
import type { Engine } from "../../src/engine/engine.ts";
import { createNodeEngine } from "../../src/engine/node.ts";

const folder = mkdtempSync(join(tmpdir(), "blocktab-secret-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const PASSPHRASE = "correct horse battery staple";
const traced: string[] = [];
const received: string[] = [];
let engine: Engine;
let say: (name: string, args?: object) => Promise<Record<string, unknown>>;

beforeAll(async () => {
  const trace = new Proxy({} as Trace, {
    get:
      () =>
      (...values: unknown[]) =>
        traced.push(values.map(String).join(" ")),
  });
  engine = await createNodeEngine({ trace });
  let answered: (reply: Record<string, unknown>) => void = () => {};
  const monitor = engine.openMonitor((message) => {
    received.push(JSON.stringify(message));
    if ("return" in message || "error" in message) answered(message as Record<string, unknown>);
  });
  say = (name, args) =>
    new Promise((resolve) => {
      answered = resolve;
      monitor.receiveText(`${JSON.stringify({ execute: name, arguments: args ?? {} })}\n`);
    });
  await say("qmp_capabilities");
});
afterAll(() => engine.close());

const add = (args: object) => say("object-add", { "qom-type": "secret", ...args });
const ok = { return: {} };

/** Runs a job to its end, and tells its error. */
async function job(name: string, args: object): Promise<string | undefined> {
  expect(await say(name, { "job-id": "j", ...args })).toEqual(ok);
  for (;;) {
    const { return: jobs } = await say("query-jobs");
    const [one] = jobs as { status: string; error?: string }[];
    if (one?.status === "concluded") {
      await say("job-dismiss", { id: "j" });
      return one.error;
    }
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

it("is given as text, as base64 or in a file, and as nothing else", async () => {
  const file = join(folder, "passphrase");
  writeFileSync(file, PASSPHRASE);
  writeFileSync(`${file}.64`, `${btoa(PASSPHRASE)}\n`);
  expect(await add({ id: "a", data: PASSPHRASE })).toEqual(ok);
  expect(await add({ id: "b", data: btoa(PASSPHRASE), format: "base64" })).toEqual(ok);
  expect(await add({ id: "c", file })).toEqual(ok);
  expect(await add({ id: "d", file: `${file}.64`, format: "base64" })).toEqual(ok);
  const held = ["a", "b", "c", "d"].map((id) => engine.graph.secrets.passphrase(id));
  for (const one of held) expect(new TextDecoder().decode(one)).toBe(PASSPHRASE);

  const refused = async (args: object) =>
    ((await add({ id: "x", ...args }))["error"] as { desc: string }).desc;
  expect(await refused({ id: "a", data: "y" })).toMatch(/already/);
  expect(await refused({})).toMatch(/Either 'file' or 'data'/);
  expect(await refused({ data: "y", file })).toMatch(/exclude each other/);
  expect(await refused({ data: "not base64!", format: "base64" })).toMatch(/'data' is not/);
  expect(await refused({ file: join(folder, "nope") })).toMatch(/cannot be read: ENOENT/);
  expect(await refused({ data: "y", keyid: "a" })).toMatch(/'keyid'/);
  expect(await refused({ data: 5 })).toMatch(/'data'/);
  const group = await say("object-add", { "qom-type": "throttle-group", id: "a" });
  expect(group["error"]).toBeDefined();
});

it("opens images that are made with it, and is never told again", async () => {
  const filename = join(folder, "disk.qcow2");
  const store = { driver: "file", filename };
  expect(await job("blockdev-create", { options: { ...store, size: 0 } })).toBeUndefined();
  const encrypt = { format: "luks", "key-secret": "a" };
  const made = { driver: "qcow2", file: store, size: 1024 * 1024 };
  expect(
    await job("blockdev-create", {
      options: { ...made, encrypt: { ...encrypt, "key-secret": "nope" } },
    }),
  ).toMatch(/No secret with id 'nope'/);
  expect(
    await job("blockdev-create", { options: { ...made, encrypt: { ...encrypt, "iter-time": 1 } } }),
  ).toBeUndefined();
  const disk = { driver: "qcow2", "node-name": "n", file: store };
  expect(await say("blockdev-add", disk)).toHaveProperty("error");
  await add({ id: "wrong", data: "incorrect horse" });
  const wrong = await say("blockdev-add", {
    ...disk,
    encrypt: { ...encrypt, "key-secret": "wrong" },
  });
  expect(wrong["error"]).toMatchObject({ class: "GenericError" });
  expect(await say("blockdev-add", { ...disk, encrypt })).toEqual(ok);
  await add({ id: "next", data: `${PASSPHRASE} 2` });
  const change = { format: "luks", state: "active", "new-secret": "next", "iter-time": 1 };
  const options = { driver: "qcow2", encrypt: change };
  expect(await job("x-blockdev-amend", { "node-name": "n", options })).toBeUndefined();
  const { return: nodes } = await say("query-named-block-nodes");
  const [shown] = nodes as { encrypted: boolean; image: Record<string, unknown> }[];
  expect(shown).toMatchObject({ encrypted: true, image: { encrypted: true } });
  expect(await say("object-del", { id: "a" })).toEqual(ok);
  expect(await say("qom-get", { path: "next", property: "data" })).toHaveProperty("error");
  expect(await say("qom-list", { path: "/objects" })).toEqual({
    return: [
      { name: "type", type: "string" },
      ...["b", "c", "d", "wrong", "next"].map((name) => ({ name, type: "child<secret>" })),
    ],
  });
  expect(await say("blockdev-del", { "node-name": "n" })).toEqual(ok);
  const again = { ...disk, encrypt: { ...encrypt, "key-secret": "next" } };
  expect(await say("blockdev-add", again)).toEqual(ok);
  expect(await say("blockdev-del", { "node-name": "n" })).toEqual(ok);

  for (const text of [...traced, ...received, readFileSync(filename, "latin1")]) {
    expect(text).not.toMatch(/horse/);
    expect(text).not.toContain(btoa(PASSPHRASE));
  }
  expect(traced.some((line) => line.includes("(not shown)"))).toBe(true);
});
