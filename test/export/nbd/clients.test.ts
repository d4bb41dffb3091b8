/**
 * The real clients against ours, over a unix socket: libnbd's nbdinfo, nbdcopy and nbdsh, QEMU's
 * qemu-img and qemu-io. Skipped by name where they are not installed.
 */

import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { seededRandom } from "../../../src/base/random.ts";
import {
  hasLibnbd,
  hasQemu,
  must,
  nbdsh,
  type OurServer,
  ours,
  qemus,
  type Served,
  testFolder,
  tool,
  uri,
} from "./rig.ts";

const folder = testFolder();
const SIZE = 8 * 1024 * 1024;
let our: OurServer;
let images = 0;

beforeAll(async () => {
  our = await ours(folder);
});
afterAll(() => our.close());

/** Opens an image and exports it. @returns its URI */
async function exported(
  served: Served,
  file: string,
  { format = "raw", ...more }: { format?: string; [member: string]: unknown } = {},
): Promise<string> {
  const name = `d${images++}`;
  await served.execute("blockdev-add", {
    driver: format,
    "node-name": name,
    discard: "unmap",
    file: { driver: "file", filename: file, discard: "unmap" },
  });
  const own = { type: "nbd", id: name, "node-name": name, writable: true };
  await served.execute("block-export-add", { ...own, ...more });
  return uri(served.socket, name);
}

/** A file with parts of random bytes and parts of none. */
function patchy(): { readonly file: string; readonly content: Buffer } {
  const random = seededRandom(images + 1);
  const content = Buffer.alloc(SIZE);
  for (let at = 0; at < SIZE; at += 65536) {
    if (random.below(2) === 0) random.fill(content.subarray(at, at + 65536));
  }
  const file = join(folder, `patchy-${images++}.raw`);
  writeFileSync(file, content);
  return { file, content };
}

async function qcow2(...commands: readonly string[]): Promise<string> {
  const file = join(folder, `image-${images++}.qcow2`);
  await must("qemu-img", "create", "-q", "-f", "qcow2", file, `${SIZE}`);
  const each = commands.flatMap((command) => ["-c", command]);
  if (each.length > 0) await must("qemu-io", ...each, file);
  return file;
}

const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");

describe.skipIf(!hasLibnbd || !hasQemu)("libnbd", () => {
  it("nbdcopy takes a whole disk out, and puts one in", async () => {
    const { file, content } = patchy();
    const from = await exported(our, file, { writable: false });
    const copy = join(folder, "copy.raw");
    await must("nbdcopy", from, copy);
    expect(sha256(readFileSync(copy))).toBe(sha256(content));
    const target = join(folder, "target.raw");
    writeFileSync(target, Buffer.alloc(SIZE));
    const into = await exported(our, target);
    await must("nbdcopy", "--flush", file, into);
    expect(sha256(readFileSync(target))).toBe(sha256(content));
    // Between two of ours, with several connections and requests of every size.
    const other = await exported(our, await qcow2(), { format: "qcow2" });
    await must("nbdcopy", "--connections=4", "--requests=32", from, other);
    await must("nbdcopy", "--request-size=4096", other, copy);
    expect(sha256(readFileSync(copy))).toBe(sha256(content));
  });

  it("nbdinfo sees the same as of the real qemu-storage-daemon", async () => {
    const theirs = await qemus(folder);
    const file = await qcow2("write 64k 128k", "write -z 1M 64k", "write 4M 4M");
    await must("qemu-img", "bitmap", "--add", "-g", "64k", file, "b");
    await must("qemu-io", "-c", "write 2M 70000", "-c", "write 5M 1M", file);
    const heard: string[] = [];
    // One after the other: each has the image for itself.
    for (const served of [our, theirs]) {
      const name = "seen";
      await served.execute("blockdev-add", {
        driver: "qcow2",
        "node-name": name,
        "read-only": true,
        file: { driver: "file", filename: file },
      });
      await served.execute("block-export-add", {
        type: "nbd",
        id: name,
        "node-name": name,
        description: "what is seen",
        bitmaps: ["b"],
        "allocation-depth": true,
      });
      const at = uri(served.socket, name);
      const maps = ["base:allocation", "qemu:allocation-depth", "qemu:dirty-bitmap:b"];
      const said = [await must("nbdinfo", "--json", at), await must("nbdinfo", at)];
      for (const map of maps) said.push(await must("nbdinfo", `--map=${map}`, at));
      heard.push(said.join("\n").replaceAll(served.socket, "SOCKET"));
      await served.execute("block-export-del", { id: name });
      await served.execute("blockdev-del", { "node-name": name });
    }
    await theirs.close();
    expect(heard[0]).toContain("dirty");
    expect(heard[0]).toBe(heard[1]);
  });

  it.each([true, false])("nbdsh does all it knows, structured replies: %s", async (structured) => {
    const { file, content } = patchy();
    const at = await exported(our, file);
    const said = await nbdsh(
      `h.set_request_structured_replies(${structured ? "True" : "False"})`,
      `h.add_meta_context("base:allocation")`,
      `h.connect_uri("${at}")`,
      `assert h.get_structured_replies_negotiated() == ${structured ? "True" : "False"}`,
      `assert h.get_size() == ${SIZE} and not h.is_read_only() and h.can_multi_conn()`,
      `import hashlib`,
      `print(hashlib.sha256(b"".join(h.pread(1 << 20, i << 20) for i in range(8))).hexdigest())`,
      `h.pwrite(b"x" * 700, 12345, nbd.CMD_FLAG_FUA)`,
      `assert h.pread(702, 12344)[1:701] == b"x" * 700`,
      `h.zero(65536, 65536)`,
      `h.zero(65536, 2 * 65536, nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FUA)`,
      `assert h.pread(131072, 65536) == bytearray(131072)`,
      `h.trim(65536, 0)`,
      `h.trim(65536, 0, nbd.CMD_FLAG_FUA)`,
      `h.cache(1 << 20, 0)`,
      `h.flush()`,
      structured
        ? [
            `chunks = []`,
            `def chunk(data, offset, kind, err): chunks.append((offset, len(data), kind))`,
            `h.pread_structured(1 << 20, 0, chunk)`,
            `assert sum(c[1] for c in chunks) == 1 << 20, chunks`,
            `del chunks[:]`,
            `h.pread_structured(1 << 20, 0, chunk, nbd.CMD_FLAG_DF)`,
            `assert len(chunks) == 1, chunks`,
            `extents = []`,
            `h.block_status(1 << 20, 0, lambda name, offset, e, err: extents.extend(e))`,
            `assert sum(extents[0::2]) == 1 << 20, extents`,
          ].join("\n")
        : `assert not h.can_df()`,
      `h.set_strict_mode(0)`,
      `def errno(call):`,
      `    try: call()`,
      `    except nbd.Error as e: return e.errno`,
      `print(errno(lambda: h.pread(512, ${SIZE})), errno(lambda: h.pwrite(bytes(512), ${SIZE})))`,
      `h.shutdown()`,
    );
    expect(said.trim().split("\n")).toEqual([sha256(content), "EINVAL EINVAL"]);
  });

  it("keeps many requests under way, and reads what it has written", async () => {
    const at = await exported(our, await qcow2(), { format: "qcow2" });
    await nbdsh(
      `import random`,
      `random.seed(4)`,
      `hs = [nbd.NBD() for _ in range(3)]`,
      `for c in hs: c.connect_uri("${at}")`,
      `model = bytearray(${SIZE})`,
      `for round in range(6):`,
      `    busy = []`,
      `    for i in range(40):`,
      `        offset = i * (${SIZE} // 40) // 512 * 512`,
      `        count = random.randrange(1, 60000)`,
      `        data = bytes([random.randrange(256)]) * count`,
      `        model[offset:offset + count] = data`,
      `        c = hs[i % 3]`,
      `        busy.append((c, c.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(data)), offset)))`,
      `    for c, cookie in busy:`,
      `        while not c.aio_command_completed(cookie): c.poll(-1)`,
      `hs[0].flush()`,
      `assert b"".join(hs[1].pread(1 << 20, i << 20) for i in range(8)) == model`,
    );
  });
});

describe.skipIf(!hasQemu)("QEMU's tools", () => {
  it("qemu-img converts, maps, compares and measures", async () => {
    const { file, content } = patchy();
    const from = await exported(our, file, { writable: false });
    expect(await must("qemu-img", "compare", "-f", "raw", "-F", "raw", file, from)).toContain(
      "identical",
    );
    expect(JSON.parse(await must("qemu-img", "info", "--output=json", from))).toMatchObject({
      "virtual-size": SIZE,
      format: "raw",
    });
    const into = await exported(our, await qcow2(), { format: "qcow2" });
    await must("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", file, into);
    const map = JSON.parse(await must("qemu-img", "map", "-f", "raw", "--output=json", into));
    expect(map.some(({ zero }: { zero: boolean }) => zero)).toBe(true);
    const back = join(folder, "back.raw");
    await must("qemu-img", "convert", "-f", "raw", "-O", "raw", into, back);
    expect(sha256(readFileSync(back))).toBe(sha256(content));
    for (const depth of ["1", "64"]) {
      const bench = ["bench", "-f", "raw", "-c", "1000", "-d", depth, "-s", "4096"];
      await must("qemu-img", ...bench, from);
      await must("qemu-img", ...bench, "-w", "--flush-interval=100", into);
    }
  });

  it("qemu-io writes, verifies, zeroes, discards and flushes", async () => {
    const at = await exported(our, await qcow2(), { format: "qcow2" });
    const said = await must(
      "qemu-io",
      ...["-f", "raw", "-c", "write -P 1 0 1M", "-c", "write -f -P 2 100 70000", "-c", "flush"],
      ...["-c", "read -P 2 100 70000", "-c", "read -P 1 0 100", "-c", "write -z -u 64k 64k"],
      ...["-c", "read -P 0 64k 64k", "-c", "discard 0 64k", "-c", "read -P 0 0 64k"],
      ...["-c", "aio_write -P 3 2M 1M", "-c", "aio_write -P 4 3M 1M", "-c", "aio_flush"],
      ...["-c", "read -P 3 2M 1M", "-c", "read -P 4 3M 1M", at],
    );
    expect(said).not.toMatch(/fail|error/i);
  });

  it("a second writer's conflict is refused by permissions, and so is a resize", async () => {
    const file = await qcow2();
    const at = await exported(our, file, { format: "qcow2" });
    const name = new URL(at).pathname.slice(1);
    await expect(
      our.execute("block_resize", { "node-name": name, size: 2 * SIZE }),
    ).rejects.toThrow(/resize/);
    // The image's file is its format's alone.
    const [child] = our.engine.graph.get(name).children.values();
    const own = { type: "nbd", id: "file", name: "file", writable: true };
    await expect(
      our.execute("block-export-add", { ...own, "node-name": child!.node.name }),
    ).rejects.toThrow(/Permission conflict/);
    // Another export of the disk itself shares all but its size.
    await our.execute("block-export-add", { ...own, "node-name": name });
  });

  it("writing to a read-only export fails, and changes nothing", async () => {
    const { file, content } = patchy();
    const at = await exported(our, file, { writable: false });
    const { status, output } = await tool("qemu-io", "-f", "raw", "-c", "write 0 512", at);
    expect(status).not.toBe(0);
    expect(output).toMatch(/Permission denied/);
    expect(sha256(readFileSync(file))).toBe(sha256(content));
  });
});
