/**
 * The commands around the NBD server, told to ours and to the real qemu-storage-daemon: the same
 * answers, error classes, and events in the same places.
 */

import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { dial, hasQemu, ours, qemus, type Served, testFolder } from "./rig.ts";

const folder = testFolder();
const raw = join(folder, "disk.raw");
writeFileSync(raw, Buffer.alloc(1 << 20));
const SECOND = process.env["QEMU_STORAGE_DAEMON_10"];

const file = (node: string, more = {}) =>
  ["blockdev-add", { driver: "file", "node-name": node, filename: raw, ...more }] as const;
const add = (id: string, node: string, more = {}) =>
  ["block-export-add", { type: "nbd", id, "node-name": node, ...more }] as const;
const del = (id: string, more = {}) => ["block-export-del", { id, ...more }] as const;
const start = (path: string, more = {}) =>
  ["nbd-server-start", { addr: { type: "unix", data: { path } }, ...more }] as const;
const inet = (data: object) => ["nbd-server-start", { addr: { type: "inet", data } }] as const;
const bitmap = (name: string) => ["block-dirty-bitmap-add", { node: "n", name }] as const;
const clear = (name: string) => ["block-dirty-bitmap-clear", { node: "n", name }] as const;
const STOP = ["nbd-server-stop"] as const;
const EXPORTS = ["query-block-exports"] as const;

type Step = readonly [command: string, args?: object];

/** Both servers run already. */
const SCRIPTS: Record<string, readonly Step[]> = {
  "starts once, stops once": [
    start("other.sock"),
    STOP,
    STOP,
    start(join(folder, "no", "such")),
    start(folder),
    ["nbd-server-start", { addr: { type: "nope", data: {} } }],
    ["nbd-server-start", { addr: { type: "unix", data: {} } }],
    ["nbd-server-start", { addr: { type: "unix" } }],
    ["nbd-server-start", {}],
    start(join(folder, "x.sock"), { "tls-creds": "none" }),
    start(join(folder, "x.sock"), { "max-connections": -1 }),
    start(join(folder, "x.sock"), { unknown: 1 }),
    inet({ host: "127.0.0.1", port: "nonsense" }),
    inet({ host: "127.0.0.1" }),
    inet({ host: "127.0.0.1", port: "0" }),
    STOP,
  ],
  "exports nodes": [
    file("n"),
    file("ro", { "read-only": true }),
    add("e", "n"),
    add("e", "n"),
    add("e", "nope"),
    add("0e", "n"),
    add("f", "nope"),
    add("f", "n"),
    add("f", "ro", { writable: true }),
    add("f", "ro", { name: "" }),
    add("g", "n", { name: "x", iothread: "none" }),
    add("g", "n", { name: "x".repeat(4097) }),
    add("g", "n", { name: "x", description: "x".repeat(4097) }),
    add("g", "n", { name: "x", description: 1 }),
    add("g", "n", { name: "x", "fixed-iothread": true, writethrough: true, writable: true }),
    add("h", "n", { name: "y", unknown: 1 }),
    add("h", "n", { name: "y", bitmaps: "b" }),
    ["block-export-add", { type: "nope", id: "h", "node-name": "n" }],
    ["block-export-add", { type: "nbd", id: "h" }],
    ["block-export-add", { type: "nbd", "node-name": "n" }],
    EXPORTS,
    ["query-block"],
    ["blockdev-del", { "node-name": "n" }],
    del("nope"),
    del("e", { mode: "nope" }),
    del("e"),
    del("e"),
    del("f", { mode: "hard" }),
    EXPORTS,
    STOP,
    add("e", "n"),
    ["blockdev-del", { "node-name": "n" }],
    ["blockdev-del", { "node-name": "ro" }],
  ],
  "has the older commands, too": [
    file("n"),
    file("ro", { "read-only": true }),
    ["nbd-server-add", { device: "nope" }],
    ["nbd-server-add", { device: "n" }],
    ["nbd-server-add", { device: "n" }],
    ["nbd-server-add", { device: "n", name: "0" }],
    ["nbd-server-add", { device: "n", name: "x", bitmap: "nope" }],
    ["nbd-server-add", { device: "ro", name: "silently", writable: true, description: "ro" }],
    EXPORTS,
    ["nbd-server-remove", { name: "nope" }],
    ["nbd-server-remove", { name: "n", mode: "nope" }],
    ["nbd-server-remove", { name: "n" }],
    ["nbd-server-remove", { name: "n", mode: "hard" }],
    STOP,
    EXPORTS,
    ["nbd-server-add", { device: "n" }],
    ["nbd-server-remove", { name: "n" }],
  ],
  "holds the bitmaps that it exports": [
    file("n"),
    bitmap("b0"),
    bitmap("b1"),
    add("e", "n", { bitmaps: ["b0"] }),
    add("e", "n", { bitmaps: ["nope"], writable: true }),
    add("e", "n", { bitmaps: [{ node: "n", name: "nope" }] }),
    add("e", "n", { bitmaps: [{ node: "nope", name: "b0" }] }),
    add("e", "n", { bitmaps: ["b0", "nope"], writable: true }),
    clear("b0"),
    add("e", "n", { bitmaps: ["b0", { node: "n", name: "b1" }], writable: true }),
    clear("b0"),
    ["block-dirty-bitmap-remove", { node: "n", name: "b1" }],
    ["block-dirty-bitmap-disable", { node: "n", name: "b1" }],
    add("f", "n", { name: "f", bitmaps: ["b0"], writable: true }),
    add("f", "n", { name: "f", bitmaps: [{ node: "n", name: "b1" }] }),
    ["query-named-block-nodes"],
    del("e"),
    clear("b0"),
    add("f", "n", { name: "f", bitmaps: [{ node: "n", name: "b1" }] }),
    del("f"),
    ["block-dirty-bitmap-disable", { node: "n", name: "b1" }],
    add("f", "n", { name: "f", bitmaps: ["b1"] }),
    STOP,
  ],
};

describe.skipIf(!hasQemu)("against the real qemu-storage-daemon, it", () => {
  it.each(Object.entries(SCRIPTS))("%s", async (_, steps) => {
    const heard = await tell(await ours(folder), steps);
    for (const binary of ["qemu-storage-daemon", ...(SECOND ? [SECOND] : [])]) {
      expect(heard).toEqual(await tell(await qemus(folder, {}, binary), steps));
    }
  });
});

/** What came back of each step, and which events before it. */
async function tell(served: Served, steps: readonly Step[]): Promise<string[]> {
  const heard: string[] = [];
  for (const [command, args] of steps) {
    const before = served.events.length;
    let answer: string;
    try {
      answer = shown(command, await served.execute(command, args));
    } catch (error) {
      answer = (error as Error).message.split(":")[0]!;
    }
    const events = served.events
      .slice(before)
      .map(({ event, data }) => `${event} ${JSON.stringify(data)}`);
    heard.push(
      [`${command} ${JSON.stringify(args)?.slice(0, 100)}`, ...events, answer].join("\n  "),
    );
  }
  await served.close();
  return heard;
}

/** What is equal of the two. */
function shown(command: string, answer: unknown): string {
  if (command === "query-named-block-nodes") {
    const nodes = answer as { "dirty-bitmaps"?: { name: string; busy: boolean }[] }[];
    const bitmaps = nodes.flatMap((node) => node["dirty-bitmaps"] ?? []);
    return JSON.stringify(bitmaps.map(({ name, busy }) => `${name} ${busy}`).sort());
  }
  if (command !== "query-block-exports") return JSON.stringify(answer);
  const list = answer as Record<string, unknown>[];
  return list.map((one) => `${one["id"]} ${one["type"]} ${one["node-name"]}`).join(", ");
}

describe("a unix socket", () => {
  it("that a server has left behind is taken over; its path goes with the server", async () => {
    const left = await ours(folder);
    expect(existsSync(left.socket)).toBe(true);
    // As after a crash: a socket that nobody listens at.
    const path = join(folder, "stale.sock");
    await left.execute("nbd-server-stop");
    expect(existsSync(left.socket)).toBe(false);
    const { createServer } = await import("node:net");
    const stale = createServer();
    await new Promise<void>((resolve) => stale.listen(path, resolve));
    await left.execute("nbd-server-start", { addr: { type: "unix", data: { path } } });
    (await dial(path)).destroy();
    await left.close();
    stale.close();
    expect(existsSync(path)).toBe(false);
  });

  it("is not left behind by a server that was about to listen when the engine closed", async () => {
    const served = await ours(folder);
    await served.execute("nbd-server-stop");
    const path = join(folder, "late.sock");
    const late = served.execute("nbd-server-start", { addr: { type: "unix", data: { path } } });
    const refused = expect(late).rejects.toThrow("closing down");
    await served.close();
    await refused;
    expect(existsSync(path)).toBe(false);
  });

  it("does not take the place of a file", async () => {
    const path = join(folder, "precious");
    writeFileSync(path, "data");
    const served = await ours(folder);
    await served.execute("nbd-server-stop");
    const addr = { type: "unix", data: { path } };
    await expect(served.execute("nbd-server-start", { addr })).rejects.toThrow(/EADDRINUSE/);
    expect(readFileSync(path, "utf8")).toBe("data");
    await served.close();
  });
});

describe("an inet socket", () => {
  it("tries ports up to the last one that it may", async () => {
    const first = await ours(folder);
    const second = await ours(folder);
    for (const served of [first, second]) await served.execute("nbd-server-stop");
    const { createServer } = await import("node:net");
    const taken = createServer();
    const port = await new Promise<number>((resolve) => {
      taken.listen(0, "127.0.0.1", () => resolve((taken.address() as { port: number }).port));
    });
    const at = (to?: number) => ({
      addr: { type: "inet", data: { host: "127.0.0.1", port: `${port}`, ...(to && { to }) } },
    });
    await expect(first.execute("nbd-server-start", at())).rejects.toThrow(/EADDRINUSE/);
    await first.execute("nbd-server-start", at(port + 20));
    await second.execute("nbd-server-start", at(port + 20));
    taken.close();
    await first.close();
    await second.close();
  });
});
