import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { KiB, MiB, writeU16, writeU32, writeU64 } from "../../../../src/base/bytes.ts";
import { seededRandom } from "../../../../src/base/random.ts";
import { Secrets } from "../../../../src/block/secrets.ts";
import type { AmendOptions } from "../../../../src/drivers/format/qcow2/amend.ts";
import type { CreateOptions } from "../../../../src/drivers/format/qcow2/create.ts";
import { qcow2Driver } from "../../../../src/drivers/format/qcow2/index.ts";
import { fileDriver } from "../../../../src/drivers/protocol/file.ts";
import { runWell } from "../../../spawn.ts";
import {
  type Disk,
  firstDifference,
  hasQemu,
  mixedData,
  openDisk,
  qemuImg,
  readAll,
  testFolder,
  testGraph,
  writeRaw,
} from "../rig.ts";

const folder = testFolder();
const PASSPHRASES = { s: "hunter2", t: "other", wrong: "hunter3" };
const SECRET_ARGS = Object.entries(PASSPHRASES).flatMap(([id, data]) => [
  "--object",
  `secret,id=${id},data=${data}`,
]);
const QUICK = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=1";

const opts = (image: string, secret = "s") =>
  `driver=qcow2,file.filename=${image},encrypt.format=luks,encrypt.key-secret=${secret}`;

function secrets(): Secrets {
  const all = new Secrets();
  for (const [id, text] of Object.entries(PASSPHRASES)) all.add(id, new TextEncoder().encode(text));
  return all;
}

interface Opened {
  readonly secret?: string | null;
  readonly readOnly?: boolean;
  readonly more?: object;
}

async function open(image: string, { secret = "s", readOnly, more }: Opened = {}): Promise<Disk> {
  const graph = await testGraph();
  for (const [id, text] of Object.entries(PASSPHRASES)) {
    graph.secrets.add(id, new TextEncoder().encode(text));
  }
  return openDisk(graph, {
    driver: "qcow2",
    file: { driver: "file", filename: join(folder, image) },
    ...(secret !== null && { encrypt: { format: "luks", "key-secret": secret } }),
    ...(readOnly && { "read-only": true }),
    ...more,
  });
}

async function create(
  name: string,
  options: Partial<CreateOptions> = {},
  encrypt: object = {},
): Promise<void> {
  const graph = await testGraph();
  const { world } = graph;
  const filename = join(folder, name);
  await fileDriver().create!({ world, options: { filename, size: 0 } });
  const store = await openDisk(graph, { driver: "file", filename });
  try {
    await qcow2Driver().create!({
      world,
      file: store.backend.edge,
      secrets: secrets(),
      options: {
        size: 4 * MiB,
        encrypt: { format: "luks", "key-secret": "s", "iter-time": 1, ...encrypt } as never,
        ...options,
      },
    });
  } finally {
    await store.close();
  }
}

const img = (...args: string[]) => {
  const [command, ...rest] = args;
  return qemuImg(folder, command!, ...SECRET_ARGS, ...rest);
};

function io(image: string, ...commands: string[]): void {
  const args = [...SECRET_ARGS, "--image-opts", ...commands.flatMap((one) => ["-c", one])];
  const out = runWell("qemu-io", [...args, opts(image)], { cwd: folder });
  if (/failed|error/i.test(out)) throw new Error(`qemu-io: ${out}`);
}

/** What QEMU reads of an image, which it also finds clean. */
function qemuReads(image: string, secret = "s", more = ""): Uint8Array {
  expect(img("check", "--image-opts", opts(image, secret) + more)).toContain("No errors");
  img("convert", "--image-opts", opts(image, secret) + more, "-O", "raw", "oracle.raw");
  return new Uint8Array(readFileSync(join(folder, "oracle.raw")));
}

const bytesOf = (image: string) => new Uint8Array(readFileSync(join(folder, image)));
const infoOf = (image: string) => JSON.parse(qemuImg(folder, "info", "--output=json", image));

/** Writes of all kinds; the model is changed alike. */
async function writeMuch(disk: Disk, model: Uint8Array, seed: number): Promise<void> {
  const random = seededRandom(seed);
  for (let step = 0; step < 60; step++) {
    const granule = [1, 512, 4 * KiB][random.below(3)]!;
    const at = random.below(Math.floor(model.length / granule)) * granule;
    const most = Math.min(model.length - at, 200 * KiB);
    const bytes = Math.max(granule, Math.floor(random.below(most) / granule) * granule);
    if (at + bytes > model.length) continue;
    const kind = random.below(6);
    if (kind === 0) {
      await disk.backend.writeZeroes(at, bytes, { mayUnmap: random.below(2) === 0 });
      model.fill(0, at, at + bytes);
    } else {
      const data = mixedData(random, bytes);
      const asked = data.slice();
      await disk.backend.write(data, at);
      // A borrowed buffer stays as it is.
      expect(firstDifference(data, asked)).toBe(-1);
      model.set(data, at);
    }
    if (kind === 5) await disk.backend.flush();
  }
}

const SHAPES: [string, Partial<CreateOptions>][] = [
  ["defaults", {}],
  ["version 2", { version: "v2" }],
  ["512 B clusters", { "cluster-size": 512 }],
  ["2 MiB clusters", { "cluster-size": 2 * MiB }],
  ["extended L2", { "extended-l2": true }],
];

describe.skipIf(!hasQemu)("encrypted images", () => {
  it.each([
    ["defaults", ""],
    ["aes-128 and sha1", ",encrypt.cipher-alg=aes-128,encrypt.hash-alg=sha1"],
  ])("of QEMU are read and written: %s", async (_name, more) => {
    img("create", "-q", "-f", "qcow2", "-o", QUICK + more, "q.qcow2", "4M");
    if (more === "") {
      // They are placed in the file as ours are.
      await create("place.qcow2");
      const [ours, theirs] = [bytesOf("place.qcow2"), bytesOf("q.qcow2")];
      expect(ours.length).toBe(theirs.length);
      const head = (bytes: Uint8Array) => bytes.subarray(0, 256 * KiB);
      expect(firstDifference(head(ours), head(theirs))).toBe(-1);
    }
    io("q.qcow2", "write -P 7 1000k 300k", "write -P 9 3M 512");
    const model = new Uint8Array(4 * MiB).fill(7, 1000 * KiB, 1300 * KiB);
    model.fill(9, 3 * MiB, 3 * MiB + 512);
    const disk = await open("q.qcow2");
    expect(firstDifference(await readAll(disk), model)).toBe(-1);
    await writeMuch(disk, model, 11);
    expect(firstDifference(await readAll(disk), model)).toBe(-1);
    await disk.close();
    expect(firstDifference(qemuReads("q.qcow2"), model)).toBe(-1);
  });

  it.each(SHAPES)("of ours are read and written by QEMU: %s", async (_name, options) => {
    await create("o.qcow2", options);
    expect(qemuReads("o.qcow2").every((byte) => byte === 0)).toBe(true);
    const model = new Uint8Array(4 * MiB);
    const disk = await open("o.qcow2");
    await writeMuch(disk, model, 12);
    await disk.close();
    expect(firstDifference(qemuReads("o.qcow2"), model)).toBe(-1);
    // And on: QEMU writes, we read.
    io("o.qcow2", "write -P 5 2M 70k");
    model.fill(5, 2 * MiB, 2 * MiB + 70 * KiB);
    const again = await open("o.qcow2", { readOnly: true });
    expect(firstDifference(await readAll(again), model)).toBe(-1);
    await again.close();
  });

  it.each([
    ["aes-128", "sha1"],
    ["aes-192", "sha256"],
    ["aes-256", "sha512"],
  ])("with %s and %s are opened by QEMU", async (cipher, hash) => {
    await create("c.qcow2", {}, { "cipher-alg": cipher, "hash-alg": hash });
    io("c.qcow2", "write -P 3 1M 1M");
    const disk = await open("c.qcow2");
    const model = new Uint8Array(4 * MiB).fill(3, MiB, 2 * MiB);
    expect(firstDifference(await readAll(disk), model)).toBe(-1);
    await disk.close();
  });

  it("never have a guest's bytes in the file", async () => {
    const secret = new TextEncoder().encode("a line that nobody else may read ".repeat(40));
    await create("plain.qcow2");
    const disk = await open("plain.qcow2");
    await disk.backend.write(secret, 12_345);
    await disk.close();
    expect(Buffer.from(bytesOf("plain.qcow2")).includes("nobody else")).toBe(false);
    const again = await open("plain.qcow2");
    const found = new Uint8Array(secret.length);
    await again.backend.read(found, 12_345);
    expect(found).toEqual(secret);
    await again.close();
  });

  it("keep their data in a data file as QEMU does", async () => {
    await create("d.qcow2", { "data-file": "d.raw" });
    writeRaw(folder, "d.raw", new Uint8Array(4 * MiB));
    const model = new Uint8Array(4 * MiB);
    const more = { "data-file": { driver: "file", filename: join(folder, "d.raw") } };
    const disk = await open("d.qcow2", { more });
    await writeMuch(disk, model, 13);
    await disk.close();
    expect(firstDifference(qemuReads("d.qcow2"), model)).toBe(-1);
  });

  it("stand over a backing file, and copy what a small write leaves of a cluster", async () => {
    const base = mixedData(seededRandom(5), 4 * MiB);
    writeRaw(folder, "base.raw", base);
    await create("over.qcow2", { "backing-file": "base.raw", "backing-fmt": "raw" });
    const backing = {
      driver: "raw",
      "read-only": true,
      file: { driver: "file", filename: join(folder, "base.raw") },
    };
    const disk = await open("over.qcow2", { more: { backing } });
    await writeMuch(disk, base, 14);
    await disk.close();
    expect(firstDifference(qemuReads("over.qcow2"), base)).toBe(-1);
  });

  it("hold snapshots, and stay encrypted after them", async () => {
    await create("snap.qcow2");
    const model = new Uint8Array(4 * MiB);
    const disk = await open("snap.qcow2");
    await writeMuch(disk, model, 15);
    const before = model.slice();
    const store = () => disk.node.state.snapshots!;
    await disk.backend.flush();
    const taken = await store().create("one", { seconds: 1, nanoseconds: 0 });
    await writeMuch(disk, model, 16);
    await disk.close();
    expect(firstDifference(qemuReads("snap.qcow2"), model)).toBe(-1);
    const again = await open("snap.qcow2");
    await again.node.state.snapshots!.apply(taken.id);
    expect(firstDifference(await readAll(again), before)).toBe(-1);
    await again.close();
    expect(firstDifference(qemuReads("snap.qcow2"), before)).toBe(-1);
  });

  it.each([
    ["of its own", false, 1500160],
    ["of its own, cut off", false, 900096],
    ["shared with a snapshot", true, 1500160],
    ["shared with a snapshot, cut off", true, 900096],
  ])("keep the last cluster, %s, when they change their size", async (_what, shares, size) => {
    await create("size.qcow2", { size: 1000448 });
    const model = mixedData(seededRandom(17), 1000448).fill(5, 800 * KiB);
    const disk = await open("size.qcow2");
    await disk.backend.write(model, 0);
    await disk.backend.flush();
    const taken = { seconds: 1, nanoseconds: 0 };
    if (shares) await disk.node.state.snapshots!.create("one", taken);
    await disk.backend.truncate(size);
    await disk.backend.truncate(2 * MiB);
    const expected = new Uint8Array(2 * MiB);
    expected.set(model.subarray(0, Math.min(size, model.length)));
    expect(firstDifference(await readAll(disk), expected)).toBe(-1);
    await disk.close();
    expect(firstDifference(qemuReads("size.qcow2"), expected)).toBe(-1);
  });

  it.each(["metadata", "falloc", "full"] as const)(
    "read as zeroes with all their room set aside: %s",
    async (preallocation) => {
      await create("pre.qcow2", { preallocation });
      expect(qemuReads("pre.qcow2").every((byte) => byte === 0)).toBe(true);
      const disk = await open("pre.qcow2");
      const before = bytesOf("pre.qcow2").length;
      const model = new Uint8Array(4 * MiB).fill(8);
      await disk.backend.write(model, 0);
      await disk.close();
      expect(firstDifference(qemuReads("pre.qcow2"), model)).toBe(-1);
      expect(bytesOf("pre.qcow2").length).toBe(before);
    },
  );

  it("take no compressed clusters, as with QEMU's convert", async () => {
    await create("z.qcow2");
    const disk = await open("z.qcow2");
    const cluster = new Uint8Array(64 * KiB);
    await expect(disk.backend.writeCompressed(cluster, 0)).rejects.toMatchObject({
      errno: "ENOTSUP",
    });
    await disk.close();
  });

  it("tell of themselves what QEMU tells", async () => {
    await create("info.qcow2");
    const disk = await open("info.qcow2");
    const info = disk.node.state.info!();
    expect(info.encrypted).toBe(true);
    const ours = info["format-specific"]!.data as { encrypt: Record<string, unknown> };
    const theirs = infoOf("info.qcow2");
    expect(theirs.encrypted).toBe(true);
    // QEMU has it since 9.0.
    const { "detached-header": detached, ...encrypt } = ours.encrypt;
    expect(detached).toBe(false);
    const { "detached-header": _, ...expected } = theirs["format-specific"].data.encrypt;
    expect(encrypt).toEqual(expected);
    await disk.close();
  });

  it("are mapped without places, as QEMU shows them", async () => {
    await create("map.qcow2");
    const disk = await open("map.qcow2");
    await disk.backend.write(new Uint8Array(64 * KiB).fill(1), 0);
    const status = await disk.backend.edge.status(0, 64 * KiB);
    expect(status).toEqual({
      bytes: 64 * KiB,
      allocated: true,
      zero: false,
      data: true,
      compressed: false,
    });
    await disk.close();
    const map = JSON.parse(img("map", "--output=json", "--image-opts", opts("map.qcow2")));
    expect(map[0]).toMatchObject({ start: 0, length: 64 * KiB, zero: false, data: true });
    expect(map[0].offset).toBeUndefined();
  });
});

describe("the passphrase of an encrypted image", () => {
  it("must be given, must be known, and must be right; nothing changes else", async () => {
    await create("p.qcow2");
    const before = bytesOf("p.qcow2");
    const failing = (secret: string | null) => open("p.qcow2", { secret });
    await expect(failing(null)).rejects.toThrow(/'encrypt.key-secret' is missing/);
    await expect(failing("nope")).rejects.toThrow(/No secret with id 'nope'/);
    await expect(failing("wrong")).rejects.toMatchObject({ errno: "EACCES" });
    await expect(failing("wrong")).rejects.not.toThrow(/hunter/);
    expect(firstDifference(bytesOf("p.qcow2"), before)).toBe(-1);
  });

  it("is not asked for again when the image is reopened", async () => {
    await create("r.qcow2");
    const disk = await open("r.qcow2");
    await disk.backend.write(new Uint8Array(1000).fill(4), 100);
    disk.graph.secrets.remove("wrong");
    await disk.backend.flush();
    await disk.node.state.reopen!(true);
    await disk.node.state.reopen!(false);
    const buf = new Uint8Array(1000);
    await disk.backend.read(buf, 100);
    expect(buf.every((byte) => byte === 4)).toBe(true);
    await disk.close();
  });

  it("may be one of several, which come and go", async () => {
    await create("k.qcow2");
    const disk = await open("k.qcow2");
    const all = secrets();
    const amend = (encrypt: object, force = false) =>
      disk.node.state.amend!({ encrypt: { format: "luks", ...encrypt } } as AmendOptions, {
        force,
        secrets: all,
      });
    const quick = { state: "active", "iter-time": 1 };
    await amend({ ...quick, "new-secret": "t" });
    await amend({ ...quick, "new-secret": "t", keyslot: 6 });
    const active = () => {
      const info = disk.node.state.info!()["format-specific"]!.data;
      const { slots } = (info as { encrypt: { slots: { active: boolean }[] } }).encrypt;
      return slots.flatMap(({ active }, i) => (active ? [i] : []));
    };
    expect(active()).toEqual([0, 1, 6]);
    const fails = async (encrypt: object, errno: string) => {
      const before = bytesOf("k.qcow2");
      await expect(amend(encrypt)).rejects.toMatchObject({ errno });
      expect(firstDifference(bytesOf("k.qcow2"), before)).toBe(-1);
    };
    await fails({ ...quick, "new-secret": "t", keyslot: 6 }, "EPERM");
    await fails({ ...quick, "new-secret": "t", keyslot: 8 }, "EINVAL");
    await fails({ ...quick, "new-secret": "t", keyslot: -1 }, "EINVAL");
    await fails({ ...quick }, "EINVAL");
    await fails({ ...quick, "new-secret": "t", "old-secret": "s" }, "EINVAL");
    await fails({ ...quick, "new-secret": "t", secret: "wrong" }, "EACCES");
    await fails({ state: "inactive" }, "EINVAL");
    await fails({ state: "inactive", "old-secret": "wrong" }, "EACCES");
    await fails({ state: "inactive", "old-secret": "s", keyslot: 6 }, "EACCES");
    await fails({ state: "inactive", keyslot: 3 }, "EPERM");
    await fails({ state: "inactive", "new-secret": "s", keyslot: 1 }, "EINVAL");
    await fails({ state: "inactive", "iter-time": 5, keyslot: 1 }, "EINVAL");
    await amend({ state: "inactive", "old-secret": "t" });
    expect(active()).toEqual([0]);
    await fails({ state: "inactive", keyslot: 0 }, "EPERM");
    await amend({ ...quick, "new-secret": "t", keyslot: 7 });
    await amend({ state: "inactive", keyslot: 0 });
    expect(active()).toEqual([7]);
    await disk.close();
    await expect(open("k.qcow2")).rejects.toMatchObject({ errno: "EACCES" });
    const other = await open("k.qcow2", { secret: "t" });
    await other.close();
    if (hasQemu) qemuReads("k.qcow2", "t");
  });
});

describe.skipIf(!hasQemu)("key slots of QEMU", () => {
  it("are opened by any of their passphrases, and ours by QEMU", async () => {
    await create("mix.qcow2");
    img(
      ...["amend", "--image-opts", opts("mix.qcow2"), "-o"],
      "encrypt.state=active,encrypt.new-secret=t,encrypt.iter-time=1",
    );
    for (const secret of ["s", "t"]) await (await open("mix.qcow2", { secret })).close();
    img(
      ...["amend", "--image-opts", opts("mix.qcow2", "t"), "-o"],
      "encrypt.state=inactive,encrypt.old-secret=s",
    );
    await expect(open("mix.qcow2")).rejects.toMatchObject({ errno: "EACCES" });
    await (await open("mix.qcow2", { secret: "t" })).close();
  });
});

describe("a hostile LUKS header", () => {
  /** Where the header lies in an image made with defaults. */
  const LUKS = 4 * 64 * KiB;
  const slot = (i: number) => LUKS + 208 + 48 * i;
  const patches: [string, (bytes: Uint8Array) => void, string][] = [
    ["another magic", (b) => writeU32(b, LUKS, 0), "EINVAL"],
    ["version 2", (b) => writeU16(b, LUKS + 6, 2), "ENOTSUP"],
    ["another cipher", (b) => b.set([0x78], LUKS + 8), "ENOTSUP"],
    ["a cipher's name without an end", (b) => b.fill(0x61, LUKS + 8, LUKS + 40), "EINVAL"],
    ["another mode", (b) => b.set(Buffer.from("cbc-essiv:sha256\0"), LUKS + 40), "ENOTSUP"],
    ["another hash", (b) => b.set(Buffer.from("ripemd160\0"), LUKS + 72), "ENOTSUP"],
    ["a huge key", (b) => writeU32(b, LUKS + 108, 0xffffffff), "EINVAL"],
    ["a key of no bytes", (b) => writeU32(b, LUKS + 108, 0), "EINVAL"],
    ["no iterations of the digest", (b) => writeU32(b, LUKS + 164, 0), "EINVAL"],
    ["iterations of the digest for hours", (b) => writeU32(b, LUKS + 164, 0xffffffff), "EFBIG"],
    ["iterations of a slot for hours", (b) => writeU32(b, slot(0) + 4, 0xffffffff), "EFBIG"],
    ["no iterations of a slot", (b) => writeU32(b, slot(0) + 4, 0), "EINVAL"],
    ["another state of a slot", (b) => writeU32(b, slot(3), 1), "EINVAL"],
    ["no stripes", (b) => writeU32(b, slot(0) + 44, 0), "EINVAL"],
    ["four billion stripes", (b) => writeU32(b, slot(5) + 44, 0xffffffff), "EINVAL"],
    ["a slot on the header", (b) => writeU32(b, slot(0) + 40, 0), "EINVAL"],
    ["a slot outside", (b) => writeU32(b, slot(0) + 40, 0xffffffff), "EINVAL"],
    ["slots that overlap", (b) => writeU32(b, slot(1) + 40, 9), "EINVAL"],
    ["a payload before its keys", (b) => writeU32(b, LUKS + 104, 8), "EINVAL"],
    ["an extension past the file", (b) => writeU64(b, 120, 2 ** 40), "EINVAL"],
    ["an extension that is no cluster", (b) => writeU64(b, 120, LUKS + 512), "EINVAL"],
    ["an extension at 0", (b) => writeU64(b, 120, 0), "EINVAL"],
    ["an extension that is too short", (b) => writeU64(b, 128, 100), "EINVAL"],
    ["a crypt_method without an extension", (b) => writeU32(b, 112, 0x11111111), "EINVAL"],
    ["an extension without a crypt_method", (b) => writeU32(b, 32, 0), "EINVAL"],
    ["AES-CBC", (b) => writeU32(b, 32, 1), "ENOTSUP"],
    ["a method nobody knows", (b) => writeU32(b, 32, 3), "ENOTSUP"],
  ];

  it("is refused by what is wrong with it, and nothing is written", async () => {
    await create("h.qcow2");
    const good = bytesOf("h.qcow2");
    for (const [what, patch, errno] of patches) {
      const bytes = good.slice();
      patch(bytes);
      writeFileSync(join(folder, "h.qcow2"), bytes);
      await expect(open("h.qcow2"), what).rejects.toMatchObject({ errno });
      expect(firstDifference(bytesOf("h.qcow2"), bytes), what).toBe(-1);
    }
  });

  it("cannot keep anybody waiting: a wait for a key ends when it is called off", async () => {
    await create("slow.qcow2");
    const bytes = bytesOf("slow.qcow2");
    writeU32(bytes, slot(0) + 4, 2 ** 23);
    writeFileSync(join(folder, "slow.qcow2"), bytes);
    const graph = await testGraph();
    graph.secrets.add("s", new TextEncoder().encode("hunter2"));
    const signal = AbortSignal.timeout(100);
    const opening = graph.add(
      {
        driver: "qcow2",
        "node-name": "n",
        file: { driver: "file", filename: join(folder, "slow.qcow2") },
        encrypt: { format: "luks", "key-secret": "s" },
      },
      signal,
    );
    await expect(opening).rejects.toMatchObject({ errno: "ECANCELED" });
    expect(graph.find("n")).toBeUndefined();
  });
});

describe("a new encrypted image", () => {
  const refusals: [object, Partial<CreateOptions>, string][] = [
    [{ "cipher-alg": "serpent-256" }, {}, "ENOTSUP"],
    [{ "cipher-mode": "cbc" }, {}, "ENOTSUP"],
    [{ "ivgen-alg": "essiv" }, {}, "ENOTSUP"],
    [{ "hash-alg": "md5" }, {}, "ENOTSUP"],
    [{ "key-secret": "nope" }, {}, "ENOENT"],
    [{ "key-secret": undefined }, {}, "EINVAL"],
    [{ format: "qcow" }, {}, "ENOTSUP"],
    [{}, { version: "v2", preallocation: "full" }, "EINVAL"],
  ];

  it("is refused by name where it cannot be made, and the file stays as it is", async () => {
    for (const [encrypt, options, errno] of refusals) {
      const what = JSON.stringify([encrypt, options]);
      await expect(create("no.qcow2", options, encrypt), what).rejects.toMatchObject({ errno });
      expect(bytesOf("no.qcow2").length, what).toBe(0);
    }
  });
});
