/**
 * One of each job, where they are meant to run: in the worker of a real browser, on qcow2 in OPFS,
 * while a guest on the page's side reads, writes, zeroes, unmaps and flushes. The real qemu-img says
 * what the files are afterwards.
 */

import { afterEach, describe, expect, it } from "vitest";
import { Chain, DISK_BYTES, MiB, SPEED } from "./chain.ts";
import type { Guest } from "./guest.ts";

/** So that how a job ended can be asked for. */
const kept = { "auto-dismiss": false, speed: SPEED } as const;

let chain: Chain;

afterEach(() => chain.remove());

describe("stream", () => {
  it("makes one whole image of a chain", async () => {
    chain = await Chain.start();
    const guest = await chain.make("base", "mid", "top");
    const { client } = chain;
    await client.execute("block-stream", { "job-id": "j", device: "top", ...kept });
    await guest.during(chain.ended("j"));
    expect(await chain.layers("top")).toBe("top");
    await guest.during(client.execute("query-jobs"));
    await guest.expectDisk();
    await chain.close();
    const info = await chain.judge(["top"], guest.model);
    expect(info["backing-filename"]).toBeUndefined();
  });
});

describe("commit", () => {
  it("merges a layer in the middle down, and the chain is one image shorter", async () => {
    chain = await Chain.start();
    const guest = await chain.make("base", "mid", "top");
    const { client } = chain;
    const layers = { "top-node": "mid", "base-node": "base" };
    await client.execute("block-commit", { "job-id": "j", device: "top", ...layers, ...kept });
    await guest.during(chain.ended("j"));
    expect(await chain.layers("top")).toBe("top base");
    await guest.expectDisk();
    await chain.close();
    const info = await chain.judge(["base", "top"], guest.model);
    expect(info["backing-filename"]).toMatch(/base$/);
  });

  it("moves the disk down to the base when the active layer's is completed", async () => {
    chain = await Chain.start();
    const guest = await chain.make("base", "mid", "top");
    const { client } = chain;
    await client.execute("block-commit", { "job-id": "j", device: "top", ...kept });
    await becomesReady(guest);
    await client.execute("job-complete", { id: "j" });
    await guest.during(chain.ended("j"));
    expect(await chain.guestNode()).toBe("base");
    await guest.during(client.execute("query-jobs"));
    await guest.expectDisk();
    await chain.close();
    await chain.judge(["base"], guest.model);
  });
});

describe("mirror", () => {
  it("moves the disk over to its copy, and no write is lost before or after", async () => {
    chain = await Chain.start();
    const guest = await chain.make("base", "top");
    const { client } = chain;
    await chain.image("copy");
    const copy = { device: "top", target: "copy", sync: "full" } as const;
    await client.execute("blockdev-mirror", { "job-id": "j", ...copy, ...kept });
    await becomesReady(guest);
    await guest.rounds(10);
    await client.execute("job-complete", { id: "j" });
    await guest.during(chain.ended("j"));
    expect(await chain.guestNode()).toBe("copy");
    await guest.during(client.execute("query-jobs"));
    await guest.expectDisk();
    await chain.close();
    await chain.judge(["copy"], guest.model);
  });

  it("has every write on both sides when it blocks writes, from the change on", async () => {
    chain = await Chain.start();
    const guest = await chain.make("base", "top");
    const { client } = chain;
    await chain.image("copy");
    const copy = { device: "top", target: "copy", sync: "full" } as const;
    await client.execute("blockdev-mirror", { "job-id": "j", ...copy, ...kept });
    await guest.round();
    const change = { id: "j", type: "mirror", "copy-mode": "write-blocking" } as const;
    await client.execute("block-job-change", change);
    await guest.during(client.waitForJob("j", "ready"));
    await expect
      .poll(async () => (await client.execute("query-block-jobs"))[0])
      .toMatchObject({ "actively-synced": true });
    await guest.rounds(10);
    const [job] = await client.execute("query-block-jobs");
    expect(job).toMatchObject({ status: "ready", "actively-synced": true });
    await client.execute("job-complete", { id: "j" });
    await guest.during(chain.ended("j"));
    expect(await chain.guestNode()).toBe("copy");
    await guest.expectDisk();
    await chain.close();
    await chain.judge(["copy"], guest.model);
  });

  it("leaves a copy of the moment when it is ended softly, and the disk where it was", async () => {
    chain = await Chain.start();
    const guest = await chain.make("base", "top");
    const { client } = chain;
    await chain.image("copy");
    const copy = { device: "top", target: "copy", sync: "full" } as const;
    await client.execute("blockdev-mirror", { "job-id": "j", ...copy, ...kept });
    await becomesReady(guest);
    const atTheEnd = guest.state();
    await client.execute("block-job-cancel", { device: "j" });
    await chain.ended("j");
    await guest.during(client.execute("query-jobs"));
    expect(await chain.guestNode()).toBe("top");
    await guest.expectDisk();
    await chain.close();
    await chain.judge(["copy"], atTheEnd);
    await chain.judge(["base", "top"], guest.model);
  });

  it("leaves both images in order when it is cancelled halfway", async () => {
    chain = await Chain.start();
    const guest = await chain.make("base", "top");
    const { client } = chain;
    await chain.image("copy");
    const copy = { device: "top", target: "copy", sync: "full", speed: 2 * MiB } as const;
    await client.execute("blockdev-mirror", { "job-id": "j", ...copy, "auto-dismiss": false });
    await guest.round();
    await client.execute("job-cancel", { id: "j" });
    const { error } = await guest.during(client.waitForJob("j", "concluded"));
    expect(error).toBe("Operation canceled");
    await guest.expectDisk();
    await client.execute("job-dismiss", { id: "j" });
    await client.execute("blockdev-del", { "node-name": "copy" });
    await chain.close();
    await chain.judge(["base", "top"], guest.model);
  });
});

describe("backup", () => {
  it.each([
    ["as it was at the start", {}],
    ["compressed", { compress: true }],
  ])("copies the disk %s, while it is written to", async (_name, how) => {
    chain = await Chain.start();
    const guest = await chain.make("base", "top");
    const { client } = chain;
    await chain.image("copy");
    const copy = { device: "top", target: "copy", sync: "full", ...how } as const;
    await client.execute("blockdev-backup", { "job-id": "j", ...copy, ...kept });
    const atTheStart = guest.state();
    await guest.during(chain.ended("j"));
    await guest.expectDisk();
    expect(guest.model).not.toEqual(atTheStart);
    await chain.close();
    await chain.judge(["copy"], atTheStart);
    await chain.judge(["base", "top"], guest.model);
  });

  it("copies what has changed since the last one, over that one", async () => {
    chain = await Chain.start();
    const guest = await chain.make("base", "top");
    const { client } = chain;
    await chain.image("full");
    const bitmap = { node: "top", name: "changes" };
    const full = { "job-id": "j", device: "top", target: "full", sync: "full", ...kept } as const;
    await client.execute("transaction", {
      actions: [
        { type: "block-dirty-bitmap-add", data: bitmap },
        { type: "blockdev-backup", data: full },
      ],
    });
    const first = guest.state();
    await guest.during(chain.ended("j"));

    await chain.image("increment", { backing: "full" });
    const since = { sync: "incremental", bitmap: "changes" } as const;
    const increment = { device: "top", target: "increment", ...since, ...kept } as const;
    await client.execute("blockdev-backup", { "job-id": "j", ...increment });
    const second = guest.state();
    await guest.during(chain.ended("j"));
    await guest.expectDisk();
    await chain.close();
    await chain.judge(["full"], first);
    await chain.judge(["full", "increment"], second);
    await chain.judge(["base", "top"], guest.model);
  });
});

describe("create", () => {
  it.each([
    [{ version: "v2", "cluster-size": 4096 }, { compat: "0.10" }],
    [
      { version: "v3", "extended-l2": true, "cluster-size": 131072 },
      { compat: "1.1", "extended-l2": true },
    ],
    [{ version: "v3", "lazy-refcounts": true, "refcount-bits": 64 }, { "refcount-bits": 64 }],
  ] as const)("makes an image with %j that guests can use", async (options, data) => {
    chain = await Chain.start();
    await chain.image("disk", options);
    const guest = await chain.guest("disk");
    await guest.rounds(20);
    await guest.expectDisk();
    await chain.close();
    const info = await chain.judge(["disk"], guest.model);
    expect(info["virtual-size"]).toBe(DISK_BYTES);
    expect(info["format-specific"].data).toMatchObject(data);
  });
});

describe("amend", () => {
  it("makes a v3 image of a v2 image, while guests use it", async () => {
    chain = await Chain.start();
    await chain.image("disk", { version: "v2" });
    const guest = await chain.guest("disk");
    await guest.rounds(10);
    const options = { driver: "qcow2", version: "v3" } as const;
    const start = { "job-id": "j", "node-name": "disk", options };
    await chain.client.execute("x-blockdev-amend", start);
    await guest.during(chain.ended("j"));
    await guest.expectDisk();
    await chain.close();
    const info = await chain.judge(["disk"], guest.model);
    expect(info["format-specific"].data).toMatchObject({ compat: "1.1" });
  });
});

describe("snapshot-save, -load and -delete", () => {
  it("keep states inside the image, bring one back, and forget one", async () => {
    chain = await Chain.start();
    const guest = await chain.make("base", "top");
    const { client } = chain;
    const disks = { vmstate: "top", devices: ["top"] };
    const states: Record<string, Uint8Array<ArrayBuffer>> = {};
    for (const tag of ["one", "two", "three"]) {
      states[tag] = guest.state();
      await client.execute("snapshot-save", { "job-id": "j", tag, ...disks });
      await chain.ended("j");
      await guest.rounds(5);
    }
    await client.execute("snapshot-delete", { "job-id": "j", tag: "two", devices: ["top"] });
    await guest.during(chain.ended("j"));
    await guest.expectDisk();
    await client.execute("snapshot-load", { "job-id": "j", tag: "one", ...disks });
    await chain.ended("j");
    guest.model.set(states["one"]!);
    await guest.expectDisk();
    await guest.during(client.execute("query-jobs"));
    await guest.expectDisk();
    await chain.close();
    const { one, three } = states as { one: typeof guest.model; three: typeof guest.model };
    const info = await chain.judge(["base", "top"], guest.model, { one, three });
    expect(info.snapshots?.map(({ name }) => name)).toEqual(["one", "three"]);
  });

  it("save one moment of a disk that is written to: all before, nothing after", async () => {
    chain = await Chain.start();
    await chain.image("top");
    const { client } = chain;
    const { device } = await chain.guest("top");
    // A log: each write is awaited before the next, so only a prefix of it can be a moment.
    const sector = (n: number) => new Uint8Array(512).fill(1 + (n % 255));
    let written = 0;
    const write = async () => {
      await device.write(written * 4096, sector(written));
      written += 1;
    };
    while (written < 20) await write();
    const disks = { vmstate: "top", devices: ["top"] };
    await client.execute("snapshot-save", { "job-id": "j", tag: "moment", ...disks });
    let isOver = false;
    const ended = chain.ended("j").finally(() => {
      isOver = true;
    });
    while (!isOver || written < 40) await write();
    await ended;
    const now = await device.read(0, DISK_BYTES);
    await client.execute("snapshot-load", { "job-id": "j", tag: "moment", ...disks });
    await chain.ended("j");
    const then = await device.read(0, DISK_BYTES);
    let saved = 0;
    while (then[saved * 4096] !== 0) saved += 1;
    expect(saved).toBeGreaterThanOrEqual(20);
    const prefix = new Uint8Array(DISK_BYTES);
    for (let n = 0; n < saved; n++) prefix.set(sector(n), n * 4096);
    expect(then.findIndex((byte, at) => byte !== prefix[at])).toBe(-1);
    expect(now[(written - 1) * 4096]).not.toBe(0);
    await chain.close();
    await chain.judge(["top"], prefix, { moment: prefix });
  });
});

/**
 * A job in the background that is held to less than the guest writes does not come to an end: that
 * goes on for a while, then it gets the better of it.
 */
async function becomesReady(guest: Guest): Promise<void> {
  const { client } = chain;
  await guest.rounds(25);
  await client.execute("block-job-set-speed", { device: "j", speed: 0 });
  await guest.during(client.waitForJob("j", "ready"), { restMs: 20 });
}
