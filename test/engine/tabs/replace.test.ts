/** A disk gets other content while tabs keep writes: nothing older comes back over it when the owner is lost. */

import { describe, expect, it } from "vitest";
import { DISK_BYTES, threeTabs } from "./tab.ts";

const SNAPSHOT = { tag: "s", vmstate: "disk", devices: ["disk"] };
const bytes = (value: number) => new Uint8Array(512).fill(value);

/** An owner and two more tabs; the snapshot has ones, the disk has twos that nobody has flushed. */
async function saved(seed: number) {
  const { clock, run, tabs } = await threeTabs(seed);
  const [owner, writer, loader] = tabs;
  const disk = await run(writer.client.openDevice("d"));
  await run(disk.write(0, bytes(1)));
  await run(loader.client.execute("snapshot-save", { "job-id": "save", ...SNAPSHOT }));
  await run(loader.client.waitForJob("save", "concluded"));
  await run(disk.write(0, bytes(2)));
  const first = async () => (await run(disk.read(0, 512)))[0];
  return { clock, run, owner, loader, disk, first };
}

describe("a snapshot is loaded", () => {
  it.each([false, true])("through a monitor (text: %s)", async (text) => {
    const { clock, run, owner, loader, first } = await saved(1);
    const port = await run(loader.client.openMonitor({ text }));
    const say = (request: object) => port.postMessage(text ? JSON.stringify(request) : request);
    const heard: string[] = [];
    port.onmessage = ({ data }) =>
      heard.push(typeof data === "string" ? data : JSON.stringify(data));
    say({ execute: "qmp_capabilities" });
    say({ execute: "snapshot-load", arguments: { "job-id": "load", ...SNAPSHOT }, id: "asked" });
    while (!heard.some((message) => message.includes("asked"))) {
      await new Promise((resolve) => setImmediate(resolve));
      await clock.advance(1);
    }
    const outcome = await run(loader.client.waitForJob("load", "concluded"));
    expect(outcome).toEqual({ status: "concluded" });
    expect(await first()).toBe(1);
    port.close();
    owner.crash();
    expect(await first()).toBe(1);
  });

  it("while writes come in: after a crash the disk is what it was before", async () => {
    for (let seed = 1; seed <= 3; seed++) {
      const { run, owner, loader, disk } = await saved(seed);
      // Each sector once: what the load takes away stays away.
      const write = async (lane: number) => {
        for (let n = 0; n < 16; n++) await disk.write(512 * (8 * n + lane), bytes(3));
      };
      const writers = Promise.all([0, 1, 2, 3, 4, 5, 6, 7].map(write));
      const load = loader.client.execute("snapshot-load", { "job-id": "load", ...SNAPSHOT });
      await run(load.then(() => loader.client.waitForJob("load", "concluded")));
      await run(writers);
      const before = await run(disk.read(0, 65_536));
      owner.crash();
      expect({ seed, disk: await run(disk.read(0, 65_536)) }).toEqual({ seed, disk: before });
    }
  });
});

/** A byte at the end of the disk that nobody has flushed, and whoever changes the disk. */
async function written() {
  const { run, tabs } = await threeTabs(1);
  const [owner, writer, other] = tabs;
  const disk = await run(writer.client.openDevice("d"));
  const end = DISK_BYTES - 512;
  await run(disk.write(end, bytes(1)));
  const atEnd = async () => (await run(disk.read(end, 512)))[0];
  return { run, owner, disk, atEnd, execute: other.client.execute.bind(other.client), other };
}

describe("what was written to the end of a disk that is made shorter", () => {
  const resizeTo = (size: number) => ["block_resize", { "node-name": "disk", size }] as const;

  it("does not come back when it grows again", async () => {
    const { run, owner, atEnd, execute } = await written();
    await run(execute(...resizeTo(DISK_BYTES / 2)));
    await run(execute(...resizeTo(DISK_BYTES)));
    owner.crash();
    expect(await atEnd()).toBe(0);
  });

  it("is not missed", async () => {
    const { run, owner, disk, execute } = await written();
    await run(execute(...resizeTo(DISK_BYTES / 2)));
    owner.crash();
    await run(disk.flush());
  });
});

it("a node is given another file: what was written to the one before is not written to that", async () => {
  const { run, owner, other, atEnd, execute } = await written();
  const file = "second";
  await run(
    execute("blockdev-add", { driver: "shelf", "node-name": file, filename: file } as never),
  );
  const options = { driver: "qcow2", file, size: DISK_BYTES, "cluster-size": 4096 } as const;
  await run(execute("blockdev-create", { "job-id": "make", options }));
  await run(other.client.waitForJob("make", "concluded"));
  const disk = { driver: "qcow2", "node-name": "disk", file } as const;
  await run(execute("blockdev-reopen", { options: [disk] }));
  owner.crash();
  expect(await atEnd()).toBe(0);
});

it("a node is given another part of its file: what was written to the one before is not written to that", async () => {
  const { run, owner, other, execute } = await written();
  const file = { driver: "shelf", "node-name": "file", filename: "file" };
  await run(execute("blockdev-add", file as never));
  await run(execute("block_resize", { "node-name": "file", size: 4096 }));
  const part = { driver: "raw", "node-name": "part", file: "file", size: 1024 } as const;
  await run(execute("blockdev-add", { ...part, offset: 0 }));
  const writable = { type: "message-port", "node-name": "part", writable: true } as const;
  await run(execute("block-export-add", { ...writable, id: "p" }));
  const device = await run(other.client.openDevice("p"));
  await run(device.write(0, bytes(1)));
  await run(execute("blockdev-reopen", { options: [{ ...part, offset: 2048 }] }));
  owner.crash();
  expect((await run(device.read(0, 512)))[0]).toBe(0);
});
