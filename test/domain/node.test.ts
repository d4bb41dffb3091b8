/** Domains beside an engine on Node: real files, a real socket, and QEMU's tools as the judge. */

import { execFile } from "node:child_process";
import { existsSync, linkSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { SystemClock } from "../../src/base/clock.ts";
import type { ImageDefinition } from "../../src/domain/definition.ts";
import { Connection, type Domain } from "../../src/domain/domain.ts";
import { DomainDriver } from "../../src/domain/driver.ts";
import type { DomainEvent } from "../../src/domain/events.ts";
import { BLOCK_COMMIT, BLOCK_REBASE } from "../../src/domain/flags.ts";
import { nodeFiles } from "../../src/domain/node-files.ts";
import { type DomainStore, MemoryDomainStore } from "../../src/domain/store.ts";
import type { Client } from "../../src/engine/client.ts";
import type { Engine } from "../../src/engine/engine.ts";
import { connectLocally, createNodeEngine } from "../../src/engine/node.ts";
import { hasQemu, testFolder } from "../drivers/format/rig.ts";
import { runWell } from "../spawn.ts";

const root = testFolder();
const KiB = 1024;
let folder = "";
let count = 0;
let engine: Engine;
let client: Client;
let driver: DomainDriver;
let connection: Connection;
let events: DomainEvent[];
let store: DomainStore;

async function startDriver(): Promise<void> {
  driver = await DomainDriver.start({
    qmp: client,
    store,
    clock: new SystemClock(),
    files: nodeFiles(client),
    onEvent: (event) => void events.push(event),
  });
  connection = new Connection(driver);
}

beforeEach(async () => {
  folder = join(root, `${count++}`);
  for (const name of ["a", "b", "c"]) mkdirSync(join(folder, name), { recursive: true });
  engine = await createNodeEngine();
  client = await connectLocally(engine);
  store = new MemoryDomainStore();
  events = [];
  await startDriver();
});
afterEach(async () => {
  await driver.close();
  await engine.close();
});

const run = (program: string, ...args: string[]) => runWell(program, args);
const path = (name: string) => join(folder, name);
const source = (name: string) => ({ driver: "file", filename: path(name) });
const image = (name: string, backingStore: ImageDefinition | null): ImageDefinition => ({
  format: "qcow2",
  source: source(name),
  backingStore,
});
const info = (name: string) =>
  JSON.parse(run("qemu-img", "info", "-U", "--output=json", path(name))) as Record<string, unknown>;
const sameDisk = (one: string, other: string) => run("qemu-img", "compare", "-U", one, other);

/** a/top ← b/mid ← c/low ← c/base, each naming the next by a relative name, and data in each. */
async function chain(): Promise<Domain> {
  const make = (...args: string[]) => run("qemu-img", "create", "-q", "-f", "qcow2", ...args);
  const write = (name: string, at: number) =>
    run("qemu-io", "-c", `write -P ${at + 1} ${at * 128}k 192k`, path(name));
  make(path("c/base"), "1M");
  make("-b", "base", "-F", "qcow2", path("c/low"));
  make("-b", "../c/low", "-F", "qcow2", path("b/mid"));
  make("-b", "../b/mid", "-F", "qcow2", path("a/top"));
  for (const [at, name] of ["c/base", "c/low", "b/mid", "a/top"].entries()) write(name, at);
  run("qemu-img", "convert", "-O", "qcow2", path("a/top"), path("model"));
  const top = image("a/top", image("b/mid", image("c/low", image("c/base", null))));
  const domain = await connection.define({ name: "demo", disks: [{ target: "vda", ...top }] });
  await domain.create();
  return domain;
}

const ends = () => events.filter((one) => one.event === "block-job-2");

/** Waits for what the driver tells. */
function told(count: number): Promise<void> {
  return new Promise((resolve) => {
    const look = () => {
      if (ends().length >= count) stop(resolve);
    };
    const end = connection.subscribe(look);
    const stop = (then: () => void) => {
      end();
      then();
    };
    look();
  });
}

describe.runIf(hasQemu)("with the real QEMU as the judge", () => {
  it("rebases with a relative name that QEMU follows", async () => {
    const domain = await chain();
    await domain.blockRebase("vda", path("c/base"), 0, BLOCK_REBASE.RELATIVE);
    await told(1);
    expect(ends()).toMatchObject([{ type: 1, status: 0 }]);
    expect(info("a/top")["backing-filename"]).toBe("../b/../c/base");
    sameDisk(path("a/top"), path("model"));
  });

  it("commits with a relative name that QEMU follows, and removes the files", async () => {
    const domain = await chain();
    const flags = BLOCK_COMMIT.RELATIVE | BLOCK_COMMIT.DELETE;
    await domain.blockCommit("vda", path("c/base"), path("b/mid"), 0, flags);
    await told(1);
    expect(ends()).toMatchObject([{ type: 3, status: 0 }]);
    expect(ends()[0]).not.toHaveProperty("warning");
    expect(info("a/top")["backing-filename"]).toBe("../b/../c/base");
    expect(existsSync(path("b/mid"))).toBe(false);
    expect(existsSync(path("c/low"))).toBe(false);
    sameDisk(path("a/top"), path("model"));
  });

  it("refuses a relative name where an image of the chain has none, and does nothing", async () => {
    const domain = await chain();
    await domain.destroy();
    run("qemu-img", "rebase", "-u", "-b", path("c/low"), "-F", "qcow2", path("b/mid"));
    await domain.create();
    const rebase = domain.blockRebase("vda", path("c/base"), 0, BLOCK_REBASE.RELATIVE);
    await expect(rebase).rejects.toMatchObject({ code: "OPERATION_INVALID" });
    expect(await domain.listBlockJobs()).toEqual([]);
  });

  it("keeps a file that somebody has open, under whatever name, and says so", async () => {
    const domain = await chain();
    linkSync(path("b/mid"), path("other"));
    await client.execute("blockdev-add", {
      ...source("other"),
      "node-name": "theirs",
      "read-only": true,
      locking: "off",
    } as never);
    await domain.blockCommit("vda", null, path("b/mid"), 0, BLOCK_COMMIT.DELETE);
    await told(1);
    expect(ends()).toMatchObject([{ status: 0, warning: expect.stringContaining("in use") }]);
    expect(existsSync(path("b/mid"))).toBe(true);
  });

  it("serves a backup of mode pull over NBD, with what has changed since a checkpoint", async () => {
    const domain = await chain();
    await domain.checkpointCreate({ name: "one" });
    const { disks } = await domain.info();
    const guest = await client.openDevice(disks[0]!.device!);
    await guest.write(512 * KiB, new Uint8Array(64 * KiB).fill(9));
    await guest.flush();
    // The model of this moment.
    run("qemu-io", "-c", "write -P 9 512k 64k", path("model"));
    const socket = path("nbd.sock");
    const server = { transport: "unix", socket } as const;
    const scratch = source("scratch");
    await domain.backupBegin({
      mode: "pull",
      incremental: "one",
      server,
      disks: [{ name: "vda", scratch }],
    });
    // What the guest writes now is not in it.
    await guest.write(0, new Uint8Array(1024 * KiB).fill(7));
    await guest.flush();
    await inBackground("qemu-img", "convert", "-O", "qcow2", nbd(socket), path("pulled"));
    sameDisk(path("pulled"), path("model"));
    const bitmap = "x-dirty-bitmap=qemu:dirty-bitmap:backup-vda";
    const at = `driver=nbd,export=vda,server.type=unix,server.path=${socket},${bitmap}`;
    const map = await inBackground("qemu-img", "map", "--output=json", "--image-opts", at);
    const dirty = (JSON.parse(map) as { start: number; length: number; data: boolean }[]).filter(
      ({ data }) => !data,
    );
    expect(dirty).toMatchObject([{ start: 512 * KiB, length: 64 * KiB }]);
    await domain.abortJob();
    while ((await domain.getJobStats()).type !== 0) await told(1);
    expect(await domain.getJobStats(1)).toMatchObject({ type: 3, success: true });
    expect(existsSync(path("scratch"))).toBe(false);
    await guest.close();
  });

  it("ends a backup although its server, or its job, has been ended by somebody else", async () => {
    const domain = await chain();
    const server = { transport: "unix", socket: path("nbd.sock") } as const;
    const disks = [{ name: "vda", scratch: source("scratch") }];
    await domain.backupBegin({ mode: "pull", server, disks });
    await client.execute("nbd-server-stop" as never, {} as never);
    const { execute } = client;
    // Whoever looks at the jobs finds one that is over, and dismisses it before the driver does.
    client.execute = (async (...args: Parameters<typeof execute>) => {
      if (args[0] === "job-dismiss") await execute.apply(client, args);
      return execute.apply(client, args);
    }) as typeof execute;
    await domain.abortJob();
    while ((await domain.getJobStats()).type !== 0) await told(1);
    client.execute = execute;
    expect(await domain.getJobStats(1)).toMatchObject({ type: 3, success: true });
    const target = source("copy");
    await domain.backupBegin({ disks: [{ name: "vda", target }] });
    await told(2);
    // The server is somebody else's: it is not ours to stop.
    const addr = { type: "unix", data: { path: path("other.sock") } };
    await client.execute("nbd-server-start" as never, { addr } as never);
    const again = domain.backupBegin({ mode: "pull", server, disks });
    await expect(again).rejects.toMatchObject({ code: "OPERATION_FAILED" });
    expect(await domain.getJobStats()).toEqual({ type: 0 });
    expect(existsSync(path("scratch"))).toBe(false);
    await client.execute("nbd-server-stop" as never, {} as never);
  });

  it.each([true, false])(
    "stops its server, and no other, after its driver was lost (it had started: %s)",
    async (hasStarted) => {
      const domain = await chain();
      const server = { transport: "unix", socket: path("nbd.sock") } as const;
      const disks = [{ name: "vda", scratch: source("scratch") }];
      const addr = { type: "unix", data: { path: path("other.sock") } };
      const start = () => client.execute("nbd-server-start" as never, { addr } as never);
      if (!hasStarted) await start();
      const { execute } = client;
      // From here on the driver hears nothing any more.
      const last = hasStarted ? "transaction" : "nbd-server-start";
      const lost = new Promise<void>((resolve) => {
        client.execute = (async (...args: Parameters<typeof execute>) => {
          if ((args[0] as string) !== last) return execute.apply(client, args);
          if (!hasStarted) await execute.apply(client, args).catch(() => {});
          resolve();
          return new Promise(() => {});
        }) as typeof execute;
      });
      void domain.backupBegin({ mode: "pull", server, disks });
      await lost;
      client.execute = execute;
      await driver.close();
      await startDriver();
      expect(driver.host.record.domains[0]).toMatchObject({ jobs: [], backup: null });
      if (hasStarted) await start();
      await client.execute("nbd-server-stop" as never, {} as never);
    },
  );

  it("goes on with a pull whose server is gone, says so, and shows it again when there is one", async () => {
    const domain = await chain();
    const server = { transport: "unix", socket: path("nbd.sock") } as const;
    const disks = [{ name: "vda", scratch: source("scratch") }];
    await domain.backupBegin({ mode: "pull", server, disks });
    expect(await domain.getJobStats()).not.toHaveProperty("warning");
    await client.execute("nbd-server-stop" as never, {} as never);
    const gone = /'vda' is not served: its export is not there/;
    expect((await domain.getJobStats()).warning).toMatch(gone);
    // As older drivers have left it.
    delete driver.host.record.domains[0]!.backup!.disks[0]!.exportName;
    await driver.host.save();
    await driver.close();
    await startDriver();
    const again = connection.domain("demo");
    const stats = await again.getJobStats();
    expect(stats).toMatchObject({ type: 2, warning: expect.stringMatching(/'vda'.*not running/) });
    const addr = { type: "unix", data: { path: server.socket } };
    await client.execute("nbd-server-start" as never, { addr } as never);
    await driver.close();
    await startDriver();
    const last = connection.domain("demo");
    expect(await last.getJobStats()).not.toHaveProperty("warning");
    await inBackground("qemu-img", "convert", "-O", "qcow2", nbd(server.socket), path("pulled"));
    sameDisk(path("pulled"), path("model"));
    await last.abortJob();
    while ((await last.getJobStats()).type !== 0) await told(1);
    expect(await last.getJobStats(1)).toMatchObject({ type: 3, success: true });
  });

  it("stops its server also when the domain is stopped before it has heard that it is there", async () => {
    const domain = await chain();
    const server = { transport: "unix", socket: path("nbd.sock") } as const;
    const disks = [{ name: "vda", scratch: source("scratch") }];
    const { execute } = client;
    let destroyed: Promise<void> | null = null;
    client.execute = (async (...args: Parameters<typeof execute>) => {
      const result = await execute.apply(client, args);
      if ((args[0] as string) === "nbd-server-start") destroyed = domain.destroy();
      return result;
    }) as typeof execute;
    await expect(domain.backupBegin({ mode: "pull", server, disks })).rejects.toThrow(
      "not running",
    );
    await destroyed;
    const stop = client.execute("nbd-server-stop" as never, {} as never);
    await expect(stop).rejects.toThrow("not running");
  });
});

const nbd = (socket: string) => `nbd+unix:///vda?socket=${socket}`;

/** The engine is in this process: nobody may wait for the program in it. */
function inBackground(program: string, ...args: string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    execFile(program, args, (error, stdout) => (error ? reject(error) : resolve(stdout)));
  });
}
