/**
 * The engine where it is meant to be: in a dedicated worker of a real browser, seen from the page
 * through its client, without cross-origin isolation.
 */

import { afterEach, describe, expect, it } from "vitest";
import {
  type Client,
  type ConnectOptions,
  type CreateOptions,
  connect,
} from "../../../src/engine/client.ts";

const KiB = 1024;
const MiB = 1024 * KiB;
const FILE = "engine-test.img";

const clients: Client[] = [];

afterEach(async () => {
  for (const client of clients.splice(0).reverse()) await client.close();
});

async function connected(options: ConnectOptions = {}): Promise<Client> {
  const client = await connect(options);
  clients.push(client);
  return client;
}

describe("the worker", () => {
  it("starts without cross-origin isolation, and greets", async () => {
    expect(globalThis.crossOriginIsolated).toBe(false);
    const log: object[] = [];
    const client = await connected({ log: ({ message }) => log.push(message) });
    expect(log[0]).toMatchObject({ QMP: { version: { qemu: {} }, capabilities: ["oob"] } });
    const { package: name } = await client.execute("query-version");
    expect(name).toMatch(/^blocktab \d/);
  });

  it("moves bytes by transfer, in pieces, both ways", async () => {
    const client = await connected();
    await memoryDevice(client, 8 * MiB);
    const disk = await client.openDevice("d");
    const data = Uint8Array.from({ length: 3 * MiB + 5 }, (_, index) => (index * 7) % 253);
    await disk.write(12345, data);
    expect(data).toHaveLength(3 * MiB + 5);
    const seen = await disk.read(12345, data.length);
    expect(seen.every((byte, index) => byte === data[index])).toBe(true);
    await disk.writeZeroes(12345, 100);
    await disk.flush();
    expect((await disk.read(12345, 101)).filter((byte) => byte !== 0)).toHaveLength(1);
    await expect(disk.read(8 * MiB, 1)).rejects.toMatchObject({ errno: "EINVAL" });
  });

  it("keeps images in OPFS, from one engine to the next", async () => {
    const first = await connected();
    await openImage(first, true);
    const disk = await first.openDevice("d");
    await disk.write(70_000, new Uint8Array(5000).fill(0xa5));
    await expect(first.getFile(FILE)).rejects.toMatchObject({ errno: "EBUSY" });
    await expect(first.removeFile(FILE)).rejects.toMatchObject({ errno: "EBUSY" });
    // Not a word of flush or blockdev-del: close() does all that.
    clients.length = 0;
    await first.close();

    const second = await connected();
    await openImage(second, false);
    const again = await second.openDevice("d");
    const seen = await again.read(69_999, 5002);
    expect([seen[0], seen[1], seen[5000], seen[5001]]).toEqual([0, 0xa5, 0xa5, 0]);
    await second.execute("block-export-del", { id: "d", mode: "hard" });
    await second.execute("blockdev-del", { "node-name": "n" });
    await second.execute("blockdev-del", { "node-name": "f" });

    const file = await second.getFile(FILE);
    expect(file).toBeInstanceOf(File);
    expect((await second.listFiles()).find(({ filename }) => filename === FILE)).toEqual({
      filename: FILE,
      size: file.size,
    });
    const head = new Uint8Array(await file.slice(0, 4).arrayBuffer());
    expect([...head]).toEqual([0x51, 0x46, 0x49, 0xfb]);
    await second.removeFile(FILE);
    await expect(second.getFile(FILE)).rejects.toMatchObject({ errno: "ENOENT" });
  });

  it("reads what the page hands over as a Blob", async () => {
    const client = await connected();
    await client.addBlob("picked", new Blob([new Uint8Array(2 * MiB).fill(3), "tail"]));
    const blob = { driver: "blob", "node-name": "b", name: "picked", "read-only": true } as const;
    await client.execute("blockdev-add", blob);
    await client.execute("block-export-add", { type: "message-port", id: "d", "node-name": "b" });
    const disk = await client.openDevice("d");
    expect(disk.size).toBe(2 * MiB + 4);
    const seen = await disk.read(2 * MiB - 1, 5);
    expect(new TextDecoder().decode(seen)).toBe("\x03tail");
    await expect(disk.write(0, seen)).rejects.toMatchObject({ errno: "EACCES" });
  });

  it("serves several clients, and ends with the one that made it", async () => {
    const one = await connected();
    const two = await connect({ worker: one.worker! });
    const events = two.events();
    await memoryDevice(one, MiB);
    const [a, b] = [await one.openDevice("d"), await two.openDevice("d")];
    await a.write(0, new Uint8Array([42]));
    expect([...(await b.read(0, 1))]).toEqual([42]);
    await a.close();
    const remove = () => one.execute("block-export-del", { id: "d" });
    await expect(remove()).rejects.toThrow(/in use/);
    // With a client go its devices.
    const three = await connect({ worker: one.worker! });
    const gone = three.events();
    await two.close();
    await remove();
    expect((await gone.next()).value).toMatchObject({ event: "BLOCK_EXPORT_DELETED" });
    await expect(events.next()).rejects.toMatchObject({ errno: "ENOMEDIUM" });
    await three.close();
  });

  it("streams a chain while the page reads and writes it", async () => {
    const client = await connected();
    await chain(client);
    const disk = await client.openDevice("d");
    const job = { "job-id": "s", device: "d", speed: 8 * MiB, "auto-dismiss": false };
    await client.execute("block-stream", job);
    await disk.write(3 * MiB, new Uint8Array(1000).fill(9));
    expect((await disk.read(3 * MiB - 1, 2)).join()).toBe("7,9");
    expect(await client.waitForJob("s", "concluded")).toEqual({ status: "concluded" });
    const nodes = await client.execute("query-named-block-nodes", { flat: true });
    expect(nodes.find((node) => node["node-name"] === "top")?.children).toHaveLength(1);
    await client.execute("blockdev-del", { "node-name": "base" });
    const whole = await disk.read(0, 4 * MiB);
    const wrong = whole.findIndex((byte, at) => {
      const written = at >= 3 * MiB && at < 3 * MiB + 1000;
      return byte !== (written ? 9 : 7);
    });
    expect(wrong).toBe(-1);
  });
});

describe("a worker that fails", () => {
  it("fails everything that waits for it", async () => {
    const source = "addEventListener('message', () => { throw new Error('out of luck'); })";
    const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
    const worker = new Worker(url);
    worker.addEventListener("error", (event) => event.preventDefault());
    await expect(connect({ worker })).rejects.toMatchObject({
      name: "QmpError",
      errno: "EIO",
      desc: expect.stringContaining("out of luck"),
    });
  });

  it("that cannot be loaded is an error as well", async () => {
    const worker = new Worker("data:text/javascript,(", { type: "module" });
    await expect(connect({ worker })).rejects.toMatchObject({ errno: "EIO" });
  });
});

describe("an engine that fails", () => {
  it("tells every client of an error that nobody caught", async () => {
    const one = await connected();
    const two = await connect({ worker: one.worker! });
    const events = two.events();
    // Ports that are none: our own mistake, so it is the worker that breaks.
    one.worker!.postMessage({ type: "connect" });
    await expect(events.next()).rejects.toMatchObject({
      name: "QmpError",
      desc: expect.stringContaining("has stopped after an internal error"),
    });
    await expect(one.execute("query-jobs")).rejects.toThrow(/has stopped/);
    await expect(two.execute("query-jobs")).rejects.toThrow(/has stopped/);
  });

  it("takes no notice of messages that are not for it", async () => {
    const client = await connected();
    for (const message of ["hello", null, { type: "other" }]) client.worker!.postMessage(message);
    expect(await client.execute("query-jobs")).toEqual([]);
  });
});

async function memoryDevice(client: Client, size: number): Promise<void> {
  await client.execute("blockdev-add", { driver: "memory", "node-name": "m", size });
  await exportNode(client, "m");
}

function exportNode(client: Client, node: string) {
  const options = { type: "message-port", id: "d", "node-name": node, writable: true } as const;
  return client.execute("block-export-add", options);
}

/** A qcow2 image in OPFS as device 'd'. */
async function openImage(client: Client, create: boolean): Promise<void> {
  if (create) await make(client, { driver: "opfs", filename: FILE, size: 0 });
  const file = { driver: "opfs", "node-name": "f", filename: FILE } as const;
  await client.execute("blockdev-add", file);
  if (create) await make(client, { driver: "qcow2", file: "f", size: 64 * MiB });
  await client.execute("blockdev-add", { driver: "qcow2", "node-name": "n", file: "f" });
  await exportNode(client, "n");
}

/** [base] <── [top], device 'd': 4 MiB of sevens. */
async function chain(client: Client): Promise<void> {
  for (const name of ["base", "top"]) {
    await client.execute("blockdev-add", { driver: "memory", "node-name": `${name}-f`, size: 0 });
    await make(client, {
      driver: "qcow2",
      file: `${name}-f`,
      size: 4 * MiB,
      ...(name === "top" && { "backing-file": "base", "backing-fmt": "qcow2" }),
    });
    await client.execute("blockdev-add", {
      driver: "qcow2",
      "node-name": name,
      file: `${name}-f`,
      ...(name === "top" && { backing: "base" }),
    });
    if (name === "top") break;
    await exportNode(client, name);
    const disk = await client.openDevice("d");
    await disk.write(0, new Uint8Array(4 * MiB).fill(7));
    await client.execute("block-export-del", { id: "d", mode: "hard" });
  }
  await exportNode(client, "top");
}

async function make(client: Client, options: CreateOptions) {
  await client.execute("blockdev-create", { "job-id": "c", options });
  const { error } = await client.waitForJob("c", "concluded");
  expect(error).toBe(undefined);
  await client.execute("job-dismiss", { id: "c" });
}
