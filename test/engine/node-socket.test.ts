/**
 * The typed client over sockets: to what speaks QMP badly, and to the real qemu-storage-daemon, whose
 * answers must be what the types say. Skipped by name where there is none.
 */

import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as v from "valibot";
import { afterAll, afterEach, describe, expect, it } from "vitest";
import type { LogEntry, QmpClient } from "../../src/engine/client.ts";
import { connectSocket } from "../../src/engine/node-socket.ts";
import { COMMANDS } from "../../src/qmp/commands/index.ts";
import { EVENTS } from "../../src/qmp/events.ts";

const directory = mkdtempSync(join(tmpdir(), "blocktab-socket-"));
afterAll(() => rmSync(directory, { recursive: true }));

const ends: (() => unknown)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
});

const newer = process.env["QEMU_STORAGE_DAEMON_10"];
const daemons = ["qemu-storage-daemon", ...(newer === undefined ? [] : [newer])];
const has = (program: string) => spawnSync(program, ["--version"]).status === 0;

describe.each(daemons)("with the real %s", { skip: !daemons.every(has) }, (program) => {
  it.each(["off", "on"])("the same types talk to it (pretty=%s)", async (pretty) => {
    const seen: LogEntry[] = [];
    const qmp = await daemon(pretty, (entry) => seen.push(entry));
    const filename = join(directory, `${daemons.indexOf(program)}${pretty}.qcow2`);
    await create(qmp, { driver: "file", filename, size: 0 });
    await qmp.execute("blockdev-add", { driver: "file", "node-name": "f", filename });
    await create(qmp, { driver: "qcow2", file: "f", size: 1 << 20, "cluster-size": 65536 });
    await qmp.execute("blockdev-add", { driver: "qcow2", "node-name": "n", file: "f" });
    const [top] = await qmp.execute("query-named-block-nodes", { flat: true });
    expect(top).toMatchObject({ "node-name": "n", drv: "qcow2" });
    const job = { "job-id": "é", device: "n", "auto-dismiss": false };
    const refused = qmp.execute("block-stream", job);
    await expect(refused).rejects.toMatchObject({ name: "QmpError", class: "GenericError" });
    const copied = qmp.execute("blockdev-del", { "node-name": "nobody" });
    await expect(copied).rejects.toMatchObject({ class: "GenericError", errno: undefined });
    // What it told is what the types say of it.
    const received = seen.flatMap(({ direction, message }) =>
      direction === "received" ? [message as { event?: keyof typeof EVENTS; data?: unknown }] : [],
    );
    const events = received.filter(({ event }) => event !== undefined);
    expect(events.length).toBeGreaterThan(8);
    for (const { event, data } of events) v.parse(EVENTS[event!], data);
    v.parse(COMMANDS.get("query-jobs")!.returns, await qmp.execute("query-jobs"));
    v.parse(COMMANDS.get("query-version")!.returns, await qmp.execute("query-version"));
  });

  it("a wait can be given up, and the answers after it are still the right ones", async () => {
    const qmp = await daemon("off");
    const controller = new AbortController();
    const given = qmp.execute("query-version", {}, { signal: controller.signal });
    const jobs = qmp.execute("query-jobs");
    controller.abort();
    await expect(given).rejects.toMatchObject({ errno: "ECANCELED" });
    expect(await jobs).toEqual([]);
    const signal = AbortSignal.abort();
    const never = qmp.execute("query-jobs", {}, { signal });
    await expect(never).rejects.toMatchObject({ errno: "ECANCELED" });
    expect(await qmp.execute("query-jobs", {}, { signal: new AbortController().signal })).toEqual(
      [],
    );
  });

  async function daemon(pretty: string, log?: (entry: LogEntry) => void): Promise<QmpClient> {
    const path = join(directory, `${ends.length}${daemons.indexOf(program)}${pretty}.sock`);
    const child = spawn(program, [
      ...["--chardev", `socket,id=c,path=${path},server=on,wait=off`],
      ...["--monitor", `chardev=c,pretty=${pretty}`],
    ]);
    ends.push(async () => {
      child.kill();
      if (child.exitCode === null && child.signalCode === null) await once(child, "exit");
    });
    await expect.poll(() => existsSync(path), { timeout: 20_000 }).toBe(true);
    const client = await connectSocket(path, log && { log });
    ends.push(() => client.close());
    return client;
  }
});

describe("with what is no QMP server", () => {
  it("fails when nobody listens", async () => {
    const failed = connectSocket(join(directory, "nobody.sock"));
    await expect(failed).rejects.toMatchObject({
      errno: "EIO",
      desc: expect.stringMatching(/ENOENT/),
    });
  });

  it.each([
    ["no JSON", "}\n"],
    ["an answer to nothing", '{"error": {"class": "GenericError", "desc": "JSON parse error"}}\n'],
    ["no object", '["}"]}\n'],
    ["an end", null],
  ])("fails on %s", async (_what, text) => {
    const address = await server((socket) => (text === null ? socket.end() : socket.write(text)));
    await expect(connectSocket(address)).rejects.toMatchObject({ errno: "EIO" });
  });

  it("fails on a message without an end", async () => {
    const piece = " ".repeat(1 << 20);
    const address = await server((socket) => {
      const more = () => {
        while (!socket.destroyed && socket.write(piece));
      };
      socket.on("drain", more);
      more();
    });
    await expect(connectSocket(address)).rejects.toMatchObject({
      errno: "EIO",
      desc: expect.stringMatching(/no end/),
    });
  });

  it("gives up on one that says nothing, by signal", async () => {
    const address = await server(() => {});
    const controller = new AbortController();
    const failed = connectSocket(address, { signal: controller.signal });
    controller.abort();
    await expect(failed).rejects.toMatchObject({ errno: "ECANCELED" });
  });

  /** One that does that to whoever comes. */
  async function server(
    greet: (socket: import("node:net").Socket) => unknown,
  ): Promise<{ host: string; port: number }> {
    const listening: Server = createServer((socket) => {
      socket.on("error", () => {});
      ends.push(() => socket.destroy());
      greet(socket);
    });
    await once(listening.listen(0, "127.0.0.1"), "listening");
    ends.push(() => listening.close());
    return { host: "127.0.0.1", port: (listening.address() as { port: number }).port };
  }
});

async function create(
  qmp: QmpClient,
  options: import("../../src/engine/client.ts").CreateOptions,
): Promise<void> {
  await qmp.execute("blockdev-create", { "job-id": "c", options });
  expect(await qmp.waitForJob("c", "concluded")).toEqual({ status: "concluded" });
  await qmp.execute("job-dismiss", { id: "c" });
}
