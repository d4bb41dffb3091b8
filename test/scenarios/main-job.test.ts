/** The main job: an overlay over a template on a web server becomes whole and local. */

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { KiB, MiB } from "../../src/base/bytes.ts";
import { type Random, seededRandom } from "../../src/base/random.ts";
import type { Device } from "../../src/engine/client.ts";
import { faultyDriver } from "../blockjob/faulty.ts";
import { type Layer, makeRig, type Rig } from "./rig.ts";

let rig: Rig;
afterEach(() => rig.end());

/** Five images whose sizes and clusters all differ. */
const FIVE: readonly Layer[] = [
  layer(6 * MiB, "cluster_size=512", ["write -P 1 0 3M", "write -P 2 5M 1M"]),
  layer(4 * MiB, "cluster_size=4k,compat=0.10", ["write -P 3 100k 70k", "write -P 4 3900k 100k"]),
  layer(8 * MiB, "cluster_size=64k,extended_l2=on", ["write -P 5 1M 10k", "write -z 2M 64k"]),
  layer(7 * MiB, "cluster_size=1M", ["write -P 6 6500k 3k", "write -z 0 1M"]),
  layer(9 * MiB, "cluster_size=2M,refcount_bits=1", ["write -P 7 8600k 512"]),
];

describe("the main job", () => {
  it("streams a chain of five unlike images byte for byte, guest writes included", async () => {
    for (const [seed, clusterSize] of [512, 4 * KiB, 64 * KiB, 2 * MiB].entries()) {
      rig = await makeRig();
      const random = seededRandom(seed);
      const chain = rig.chain(FIVE);
      const { template } = chain;
      const content = chain.content();
      const disk = await rig.openOverlay(template, { "cluster-size": clusterSize });
      expect(same(await disk.read(0, disk.size), content), "readable at once").toBe(true);

      const ended = stream({ speed: 16 * MiB });
      let running = true;
      const job = ended.then(() => {
        running = false;
      });
      while (running) await guestWrite(disk, content, random);
      await job;
      expect((await ended).error, `seed ${seed}`).toBeUndefined();
      await rig.client.execute("job-dismiss", { id: "stream0" });
      expect(await chainLength()).toBe(1);
      expect(same(await disk.read(0, disk.size), content), `seed ${seed}`).toBe(true);

      await rig.closeOverlay();
      rig.qemuImg("check", "-q", "overlay.qcow2");
      expect(rig.qemuImg("info", "overlay.qcow2")).not.toContain("backing");
      expect(same(rig.overlayContent(), content), `seed ${seed}, as QEMU reads it`).toBe(true);
      if (seed < 3) await rig.end();
    }
  });

  it("cancelled anywhere leaves a valid overlay, and goes on from there (seeded)", async () => {
    rig = await makeRig();
    const random = seededRandom(7);
    const { template, content } = rig.chain(FIVE);
    await rig.openOverlay(template);
    let before = -1;
    for (let round = 0; round < 6; round++) {
      const ended = stream({ speed: MiB });
      await pauseFor(random.below(400));
      await rig.client.execute("job-cancel", { id: "stream0" });
      expect((await ended).error).toBe("Operation canceled");
      await rig.client.execute("job-dismiss", { id: "stream0" });
      await rig.closeOverlay();
      rig.qemuImg("check", "-q", "overlay.qcow2");
      const local = allocatedBytes();
      expect(local, "what was copied stays").toBeGreaterThanOrEqual(before);
      before = local;
      await reopen(template);
    }
    expect((await stream({})).error).toBeUndefined();
    await rig.closeOverlay();
    rig.qemuImg("check", "-q", "overlay.qcow2");
    expect(same(rig.overlayContent(), content())).toBe(true);
  });

  it("fails with the URL and the bytes named when the server dies, on-error report", async () => {
    rig = await makeRig();
    const { template } = rig.chain(FIVE.slice(0, 1));
    await rig.openOverlay(template);
    rig.server.behave("layer0.qcow2", { status: 503 });
    const { error } = await stream({});
    expect(error).toMatch(/bytes \d+-\d+ of 'http:.*layer0\.qcow2' failed.* 503/);
    rig.server.behave("layer0.qcow2", {});
    await rig.client.execute("job-dismiss", { id: "stream0" });
    expect(await chainLength()).toBe(2);
    await rig.closeOverlay();
    rig.qemuImg("check", "-q", "overlay.qcow2");
  });

  it("pauses when the server dies, and goes on when it is back, on-error stop", async () => {
    rig = await makeRig();
    const { template, content } = rig.chain(FIVE.slice(0, 1));
    const disk = await rig.openOverlay(template);
    rig.server.behave("layer0.qcow2", { resetAfter: 1000 });
    const ended = stream({ "on-error": "stop" });
    await rig.client.waitForJob("stream0", "paused");
    const [job] = await rig.client.execute("query-block-jobs");
    expect(job).toMatchObject({ "io-status": "failed", paused: true });
    rig.server.behave("layer0.qcow2", {});
    await rig.client.execute("job-resume", { id: "stream0" });
    expect((await ended).error).toBeUndefined();
    expect(same(await disk.read(0, disk.size), content())).toBe(true);
  });

  it("stops, and does not mix bytes, when the template changes on the server", async () => {
    rig = await makeRig();
    const { template } = rig.chain(FIVE.slice(0, 1));
    await rig.openOverlay(template);
    rig.server.behave("layer0.qcow2", { etag: '"another"' });
    const { error } = await stream({});
    expect(error).toMatch(/changed on the server/);
    expect(await chainLength()).toBe(2);
  });

  it("fails by policy when the store is full, and the image still checks clean", async () => {
    const store = faultyDriver("full");
    rig = await makeRig([store]);
    const { template } = rig.chain(FIVE.slice(0, 1));
    for (const after of [0, 1, 2, 3, 5, 8, 13, 21]) {
      store.fault = null;
      const { client } = rig;
      await client.execute("blockdev-add", {
        driver: "full",
        "node-name": "store",
        size: 0,
      } as never);
      const disk = await rig.openIn("store", template);
      store.fault = { op: "write", errno: "ENOSPC", after };
      const { error } = await stream({});
      if (error !== undefined) expect(error).toContain("Injected write error");
      await client.execute("job-dismiss", { id: "stream0" });
      store.fault = null;
      await disk.write(0, new Uint8Array(1000).fill(9));
      await disk.flush();
      expect((await disk.read(999, 2)).join()).toBe("9,1");
      await rig.closeOverlay();
      await dump("store", "dump.qcow2");
      await client.execute("blockdev-del", { "node-name": "store" });
      expect(() => rig.qemuImg("check", "-q", "dump.qcow2"), `after ${after}`).not.toThrow();
    }
  });

  it("passes an 8 TiB disk of holes at once", { timeout: 30_000 }, async () => {
    rig = await makeRig();
    const size = 8 * 1024 * 1024 * MiB;
    const { template } = rig.chain([layer(size, "cluster_size=64k", ["write -P 5 4T 1M"])]);
    const disk = await rig.openOverlay(template);
    expect((await stream({})).error).toBeUndefined();
    expect((await disk.read(size / 2, 4)).join()).toBe("5,5,5,5");
    await rig.closeOverlay();
    rig.qemuImg("check", "-q", "overlay.qcow2");
  });
});

function layer(size: number, options: string, writes: readonly string[]): Layer {
  return { size, options, writes };
}

/** Resolves when the job is concluded. */
async function stream(options: object): Promise<{ readonly error?: string }> {
  await rig.client.execute("block-stream", {
    "job-id": "stream0",
    device: "vda",
    "auto-dismiss": false,
    ...options,
  } as never);
  return rig.client.waitForJob("stream0", "concluded");
}

async function guestWrite(disk: Device, content: Buffer, random: Random): Promise<void> {
  const offset = random.below(disk.size - 70_000);
  const bytes = 1 + random.below(random.below(5) === 0 ? 70_000 : 3000);
  if (random.below(4) === 0) {
    content.fill(0, offset, offset + bytes);
    return disk.writeZeroes(offset, bytes, { mayUnmap: random.below(2) === 0 });
  }
  const data = new Uint8Array(bytes);
  random.fill(data);
  content.set(data, offset);
  await disk.write(offset, data);
  if (random.below(10) === 0) await disk.flush();
}

async function chainLength(): Promise<number> {
  const nodes = await rig.client.execute("query-named-block-nodes");
  const disk = nodes.find((node) => node["node-name"] === "disk")!;
  return disk.backing_file_depth + 1;
}

/** Bytes that overlay.qcow2 itself holds, as QEMU counts. */
function allocatedBytes(): number {
  const out = rig.qemuImg("map", "--output=json", "-U", "--image-opts", OVERLAY_ALONE);
  const runs = JSON.parse(out) as { length: number; data: boolean; zero: boolean; depth: number }[];
  return runs.reduce((sum, run) => sum + (run.data ? run.length : 0), 0);
}
const OVERLAY_ALONE = "driver=qcow2,file.filename=overlay.qcow2,file.driver=file,backing=";

async function reopen(template: object): Promise<void> {
  const { client, folder } = rig;
  await client.execute("blockdev-add", {
    driver: "qcow2",
    "node-name": "disk",
    file: { driver: "file", filename: `${folder}/overlay.qcow2` },
    backing: template,
  } as never);
  await client.execute("block-export-add", {
    type: "message-port",
    id: "vda",
    "node-name": "disk",
    writable: true,
  });
}

/** Writes the bytes of a node to a file in the rig's folder. */
async function dump(node: string, filename: string): Promise<void> {
  const { client, folder } = rig;
  await client.execute("block-export-add", { type: "message-port", id: "dump", "node-name": node });
  const device = await client.openDevice("dump");
  writeFileSync(join(folder, filename), await device.read(0, device.size));
  await device.close();
  await client.execute("block-export-del", { id: "dump" });
}

function pauseFor(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

const same = (a: Uint8Array, b: Uint8Array) => Buffer.compare(a, b) === 0;
