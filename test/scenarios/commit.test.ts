/**
 * block-commit on chains that the real qemu-img made, and that it looks at again afterwards. Lower
 * layers are nested in the options of the top and so read-only, as QEMU opens them.
 */

import { mkdirSync, readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { KiB, MiB } from "../../src/base/bytes.ts";
import { type Random, seededRandom } from "../../src/base/random.ts";
import type { Device } from "../../src/engine/client.ts";
import { runWell } from "../spawn.ts";
import { makeRig, type Rig } from "./rig.ts";

let rig: Rig;
afterEach(() => rig.end());

interface Image {
  /** Path in the rig's folder. */
  readonly name: string;
  readonly size: number;
  readonly options?: string;
  readonly writes?: readonly string[];
}

/** Sizes and clusters all differ; zeroes, packed clusters and subclusters are among them. */
const FIVE: readonly Image[] = [
  image("l0.qcow2", 5 * MiB, "cluster_size=4k,compat=0.10", ["write -P 1 0 5M"]),
  image("l1.qcow2", 4 * MiB, "cluster_size=64k", ["write -P 2 100k 700k"]),
  image("l2.qcow2", 8 * MiB, "cluster_size=64k,extended_l2=on", [
    "write -P 3 1M 10k",
    "write -z 2M 1M",
    "write -P 3 6M 2M",
  ]),
  image("l3.qcow2", 7 * MiB, "cluster_size=1M", ["write -P 4 6500k 3k", "write -z -u 0 1M"]),
  image("l4.qcow2", 9 * MiB, "cluster_size=512", ["write -P 5 8600k 512", "write -c -P 6 3M 64k"]),
];

describe("block-commit on qcow2", () => {
  it("#75 merges any part of a chain of five unlike images byte for byte, guest writes included", async () => {
    for (const [seed, [base, top]] of [
      [0, 3],
      [1, 2],
      [0, 1],
      [2, 3],
      [1, 3],
    ].entries()) {
      rig = await makeRig();
      const random = seededRandom(seed);
      makeImages(FIVE);
      const content = contentOf("l4.qcow2");
      const disk = await openChain(FIVE);
      expect(same(await disk.read(0, disk.size), content)).toBe(true);

      const ended = commit({ "top-node": `n${top}`, "base-node": `n${base}`, speed: 8 * MiB });
      let isRunning = true;
      const watched = ended.then(() => {
        isRunning = false;
      });
      while (isRunning) await guestWrite(disk, content, random);
      await watched;
      expect((await ended).error, `seed ${seed}`).toBeUndefined();
      expect(same(await disk.read(0, disk.size), content), `seed ${seed}`).toBe(true);
      const shown = (await rig.client.execute("query-named-block-nodes")).map(
        (n) => n["node-name"],
      );
      const left = ["n0", "n1", "n2", "n3", "n4"].filter((_, i) => i <= base! || i > top!);
      expect(shown.filter((name) => name.startsWith("n")).sort()).toEqual(left);
      await closeChain();

      for (const { name } of FIVE) rig.qemuImg("check", "-q", name);
      expect(same(contentOf("l4.qcow2"), content), `seed ${seed}, as QEMU reads it`).toBe(true);
      const overlay = infoOf(`l${top! + 1}.qcow2`);
      expect(overlay["backing-filename"]).toBe(`l${base}.qcow2`);
      expect(overlay["backing-filename-format"]).toBe("qcow2");
      if (seed < 4) await rig.end();
    }
  });

  it("#76 cancelled anywhere leaves valid images, a longer base, and the same disk (seeded)", async () => {
    rig = await makeRig();
    makeImages(FIVE);
    const content = contentOf("l4.qcow2");
    const random = seededRandom(3);
    for (let round = 0; round < 4; round++) {
      const disk = await openChain(FIVE);
      const ended = commit({ "top-node": "n3", "base-node": "n1", speed: 512 * KiB });
      await pauseFor(random.below(600));
      await rig.client.execute("job-cancel", { id: "commit0" });
      expect((await ended).error).toBe("Operation canceled");
      await rig.client.execute("job-dismiss", { id: "commit0" });
      expect(same(await disk.read(0, disk.size), content)).toBe(true);
      await closeChain();
      for (const { name } of FIVE) rig.qemuImg("check", "-q", name);
      expect(same(contentOf("l4.qcow2"), content), `round ${round}`).toBe(true);
      expect(infoOf("l1.qcow2")["virtual-size"]).toBe(7 * MiB);
      expect(infoOf("l4.qcow2")["backing-filename"]).toBe("l3.qcow2");
    }
  });

  it("#77 makes base zero where the layer is, and gives its clusters back", async () => {
    rig = await makeRig();
    const images = [
      image("base.qcow2", 4 * MiB, "cluster_size=64k", ["write -P 1 0 4M"]),
      image("mid.qcow2", 4 * MiB, "cluster_size=64k", ["write -z 1M 1M", "write -P 2 3M 64k"]),
      image("top.qcow2", 4 * MiB, "cluster_size=64k"),
    ];
    makeImages(images);
    const content = contentOf("mid.qcow2");
    await openChain(images);
    expect((await commit({ "top-node": "n1", "base-node": "n0" })).error).toBeUndefined();
    await closeChain();
    rig.qemuImg("check", "-q", "base.qcow2");
    expect(same(contentOf("base.qcow2"), content)).toBe(true);
    const map = JSON.parse(rig.qemuImg("map", "--output=json", "base.qcow2"));
    expect(map).toContainEqual(
      expect.objectContaining({ start: MiB, length: MiB, zero: true, data: false }),
    );
    expect(map.find((run: { start: number }) => run.start === MiB).offset).toBeUndefined();
  });

  it("#81 finds images by relative names, and writes one that leads from the overlay to base", async () => {
    for (const [top, base] of [
      ["../dir2/x/mid.qcow2", "../../dir1/sub/base.qcow2"],
      ["dir2/x/mid.qcow2", "dir1/sub/base.qcow2"],
    ]) {
      rig = await makeRig();
      const images = [
        image("dir1/sub/base.qcow2", MiB, "cluster_size=64k", ["write -P 1 0 1M"]),
        image("dir2/x/mid.qcow2", MiB, "cluster_size=64k", ["write -P 2 64k 128k"]),
        image("dir3/top.qcow2", MiB, "cluster_size=64k", ["write -P 3 128k 128k"]),
      ];
      makeImages(images);
      const content = contentOf("dir3/top.qcow2");
      await openChain(images);
      const given = top!.startsWith("..")
        ? { top, base }
        : { top: join(rig.folder, top!), base: join(rig.folder, base!) };
      expect((await commit(given)).error).toBeUndefined();
      await closeChain();
      expect(infoOf("dir3/top.qcow2")["backing-filename"]).toBe("../dir1/sub/base.qcow2");
      expect(same(contentOf("dir3/top.qcow2"), content)).toBe(true);
      if (top!.startsWith("..")) await rig.end();
    }
  });

  it("#81 writes the name that it is given, whatever there is", async () => {
    rig = await makeRig();
    makeImages(FIVE);
    await openChain(FIVE);
    const { error } = await commit({
      "top-node": "n3",
      "base-node": "n2",
      "backing-file": "elsewhere/base.qcow2",
    });
    expect(error).toBeUndefined();
    await closeChain();
    expect(infoOf("l4.qcow2")["backing-filename"]).toBe("elsewhere/base.qcow2");
  });

  it("#73 a stream does not fail where the overlay's clusters are larger than what is allocated", async () => {
    rig = await makeRig();
    const images = [
      image("base.qcow2", 5 * MiB + 512, "cluster_size=4k", [
        "write -P 1 1000k 4k",
        "write -P 2 5M 512",
      ]),
      image("top.qcow2", 5 * MiB + 512, "cluster_size=2M", ["write -P 3 4M 512"]),
    ];
    makeImages(images);
    const content = contentOf("top.qcow2");
    const disk = await openChain(images, { driver: "copy-on-read", "node-name": "cor" });
    await rig.client.execute("block-stream", {
      "job-id": "stream0",
      device: "vda",
      "auto-dismiss": false,
    });
    expect((await rig.client.waitForJob("stream0", "concluded")).error).toBeUndefined();
    expect(same(await disk.read(0, disk.size), content)).toBe(true);
    await closeChain("cor");
    rig.qemuImg("check", "-q", "top.qcow2");
    expect(infoOf("top.qcow2")["backing-filename"]).toBeUndefined();
    expect(same(contentOf("top.qcow2"), content)).toBe(true);
  });
});

function image(name: string, size: number, options = "", writes: readonly string[] = []): Image {
  return { name, size, options, writes };
}

/** Base first. The names in the headers are relative to the image that has them. */
function makeImages(images: readonly Image[]): void {
  for (const [i, { name, size, options, writes }] of images.entries()) {
    const below = images[i - 1];
    mkdirSync(join(rig.folder, dirname(name)), { recursive: true });
    const label = below && relative(dirname(name), below.name);
    const backing = label ? ["-b", label, "-F", "qcow2"] : [];
    const more = options ? ["-o", options] : [];
    rig.qemuImg("create", "-q", "-f", "qcow2", ...backing, ...more, name, `${size}`);
    const commands = (writes ?? []).flatMap((write) => ["-c", write]);
    if (commands.length === 0) continue;
    runWell("qemu-io", ["-f", "qcow2", ...commands, name], { cwd: rig.folder });
  }
}

/** Opens the chain as nodes n0, n1, … and exports the top as 'vda', through a filter if one is given. */
async function openChain(images: readonly Image[], filter?: object): Promise<Device> {
  let options: object | null = null;
  for (const [i, { name }] of images.entries()) {
    options = {
      driver: "qcow2",
      "node-name": `n${i}`,
      file: { driver: "file", filename: join(rig.folder, name) },
      backing: options,
    };
  }
  await rig.client.execute(
    "blockdev-add",
    (filter ? { ...filter, file: options } : options) as never,
  );
  await rig.client.execute("block-export-add", {
    type: "message-port",
    id: "vda",
    "node-name": filter ? "cor" : `n${images.length - 1}`,
    writable: true,
  });
  device = await rig.client.openDevice("vda");
  return device;
}
let device: Device;

async function closeChain(root?: string): Promise<void> {
  await device.close();
  await rig.client.execute("block-export-del", { id: "vda" });
  const nodes = await rig.client.execute("query-named-block-nodes");
  const names = nodes.map((node) => node["node-name"]).filter((name) => /^n\d$/.test(name));
  await rig.client.execute("blockdev-del", { "node-name": root ?? names.sort().at(-1)! });
}

/** Resolves when the job is concluded. */
async function commit(options: object): Promise<{ readonly error?: string }> {
  await rig.client.execute("block-commit", {
    "job-id": "commit0",
    device: "vda",
    "auto-dismiss": false,
    ...options,
  } as never);
  return rig.client.waitForJob("commit0", "concluded");
}

async function guestWrite(disk: Device, content: Buffer, random: Random): Promise<void> {
  const offset = random.below(disk.size - 70_000);
  const bytes = 1 + random.below(random.below(5) === 0 ? 70_000 : 3 * KiB);
  if (random.below(4) === 0) {
    content.fill(0, offset, offset + bytes);
    return disk.writeZeroes(offset, bytes, { mayUnmap: random.below(2) === 0 });
  }
  if (random.below(3) === 0) {
    const now = await disk.read(offset, bytes);
    expect(same(now, content.subarray(offset, offset + bytes)), `at ${offset}`).toBe(true);
    return;
  }
  const data = new Uint8Array(bytes);
  random.fill(data);
  content.set(data, offset);
  await disk.write(offset, data);
  if (random.below(10) === 0) await disk.flush();
}

/** As QEMU reads an image, with all that is below it. */
function contentOf(name: string): Buffer {
  rig.qemuImg("convert", "-f", "qcow2", "-O", "raw", name, "content.raw");
  return readFileSync(join(rig.folder, "content.raw"));
}

function infoOf(name: string): Record<string, unknown> {
  return JSON.parse(rig.qemuImg("info", "--output=json", name));
}

function pauseFor(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

const same = (a: Uint8Array, b: Uint8Array) => Buffer.compare(a, b) === 0;
