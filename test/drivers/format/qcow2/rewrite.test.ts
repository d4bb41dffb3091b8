import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { KiB, MiB, writeU64 } from "../../../../src/base/bytes.ts";
import { seededRandom } from "../../../../src/base/random.ts";
import { Graph } from "../../../../src/block/graph.ts";
import { Perm } from "../../../../src/block/permissions.ts";
import {
  ExtensionType,
  parseExtensions,
  serializeTail,
} from "../../../../src/drivers/format/qcow2/extensions.ts";
import { parseHeader } from "../../../../src/drivers/format/qcow2/header.ts";
import { qcow2Driver } from "../../../../src/drivers/format/qcow2/index.ts";
import type { Entry } from "../../../crash/log.ts";
import { crashState } from "../../../crash/states.ts";
import { LogStore, logStoreDriver } from "../log-store.ts";
import { hasQemu, qemuImg, testFolder, testWorld } from "../rig.ts";

type Label = readonly [name: string | null, format: string | null];

const LABELS: readonly Label[] = [
  ["base", "raw"],
  [`somewhere/${"else/".repeat(60)}base.qcow2`, "qcow2"],
  ["mid", "qcow2"],
  ["opfs", "memory"],
  [null, null],
  ["mid", null],
  ["base", "qcow2"],
];

const folder = testFolder();

describe.each(["v2", "v3"])("another backing file's name in a header of %s", (version) => {
  it.each([512, 4 * KiB])(
    "is the old one or the new one after a crash: clusters of %i bytes",
    async (cluster) => {
      const random = seededRandom(7);
      const store = new LogStore(new Uint8Array(0));
      const { graph, node } = await image(store, { version, "cluster-size": cluster });
      let old: string | null = "first";
      for (const [name, format] of LABELS.filter(([text]) => (text ?? "").length < cluster / 2)) {
        const start = store.bytes.slice();
        store.log.length = 0;
        await node.state.changeBackingFile!(name, format);
        const seen = new Set<string | null>();
        for (let i = 0; i < 40; i++) {
          const cut = random.below(store.log.length + 1);
          seen.add(nameIn(crashState(start, store.log, cut, random)));
        }
        expect([...seen].sort(), `${old} to ${name}`).toEqual([old, name].sort());
        old = name;
      }
      await graph.remove(node.name);
    },
  );

  it.skipIf(!hasQemu)("is what qemu-img reads", async () => {
    const store = new LogStore(new Uint8Array(0));
    const { graph, node } = await image(store, { version });
    for (const [name, format] of LABELS) {
      if (format?.includes("memory")) continue;
      await node.state.changeBackingFile!(name, format);
      writeFileSync(join(folder, "image.qcow2"), store.bytes);
      const info = JSON.parse(qemuImg(folder, "info", "--output=json", "image.qcow2"));
      expect(info["backing-filename"] ?? null).toBe(name);
      if (name !== null) expect(info["backing-filename-format"] ?? null).toBe(format);
    }
    await graph.remove(node.name);
  });
});

describe("a header that could not be written", () => {
  it.each([
    ["the write", 1, 1],
    ["the flush", 2, 1],
    ["the write and the next one", 1, 2],
  ])("is put back, and the disk goes on: %s fails", async (_name, after, failures) => {
    const store = new LogStore(new Uint8Array(0));
    const { graph, node } = await image(store, {});
    const change = () => node.state.changeBackingFile!("other", "raw");
    // The last write and the last flush are those of the header.
    const dry = new LogStore(store.bytes.slice());
    const tried = await opened(dry);
    await tried.node.state.changeBackingFile!("other", "raw");
    store.failures = failures;
    store.failAt = store.changes + dry.changes - 2 + after;
    await expect(change()).rejects.toMatchObject({ errno: "ENOSPC" });
    store.failAt = 0;
    expect(nameIn(store.bytes)).toBe("first");
    await write(graph, node);
    await change();
    expect(nameIn(store.bytes)).toBe("other");
    await graph.remove(node.name);
  });

  it("is left alone when it cannot be put back either", async () => {
    const store = new LogStore(new Uint8Array(0));
    const { graph, node } = await image(store, {});
    const dry = new LogStore(store.bytes.slice());
    await (await opened(dry)).node.state.changeBackingFile!("other", "raw");
    store.failures = 100;
    store.failAt = store.changes + dry.changes;
    const change = () => node.state.changeBackingFile!("other", "raw");
    await expect(change()).rejects.toMatchObject({ errno: "ENOSPC" });
    store.failAt = 0;
    await expect(write(graph, node)).rejects.toMatchObject({ errno: "EIO" });
  });
});

type Made = Awaited<ReturnType<typeof opened>>;

async function write(graph: Made["graph"], node: Made["node"]): Promise<void> {
  const permissions = { take: Perm.write | Perm.consistentRead, share: Perm.all };
  const backend = graph.openBackend(node, { name: "w", description: "w", permissions });
  try {
    await backend.write(new Uint8Array(5000).fill(7), 100_000);
    await backend.flush();
  } finally {
    await graph.closeBackend(backend);
  }
}

const SECTOR_BYTES = 512;
const UNKNOWN = 0x12345678;
/** The data of what stands before and after the bitmaps in the header. */
const TAILS: readonly [number, number][] = [
  [0, 40],
  [40, 0],
  [300, 120],
  [380, 40],
  [420, 100],
  [700, 80],
];

describe("bitmaps that come into a header and leave it", () => {
  it.each(TAILS)("never change what it names: %i bytes before them, %i after", async (...sizes) => {
    for (const cluster of [KiB, 4 * KiB]) {
      const clean = new LogStore(new Uint8Array(0));
      const made = await image(clean, { version: "v3", "cluster-size": cluster });
      made.node.bitmaps.add({ name: "b", persistent: true });
      await made.graph.remove("overlay");
      const store = new LogStore(withTail(clean.bytes.slice(), cluster, sizes));
      const where = `clusters of ${cluster}`;
      const wanted = seenIn(store.bytes);
      for (const isThere of [false, true, false, true]) {
        const start = store.bytes.slice();
        store.log.length = 0;
        const { graph, node } = await opened(store);
        const old = node.bitmaps.find("b");
        if (old) node.bitmaps.remove(old);
        if (isThere) node.bitmaps.add({ name: "b", persistent: true });
        await graph.remove("overlay");
        for (const torn of tornHeads(start.slice(0, cluster), store.log)) {
          expect(seenIn(torn), `${where}: ${isThere}`).toEqual(wanted);
        }
        expect(seenIn(store.bytes), where).toEqual(wanted);
        const last = await opened(new LogStore(store.bytes.slice()));
        expect(last.node.bitmaps.named().length, where).toBe(isThere ? 1 : 0);
      }
    }
  });
});

/** The header's tail as somebody else may have written it: the bitmaps between other extensions. */
function withTail(bytes: Uint8Array, cluster: number, sizes: readonly number[]): Uint8Array {
  const header = parseHeader(bytes);
  const { list, backingName } = parseExtensions(bytes, header);
  const bitmaps = list.find(({ type }) => type === ExtensionType.bitmaps)!;
  const [before, behind] = sizes.map((size, i) =>
    size > 0 ? [{ type: UNKNOWN + i, data: new Uint8Array(size).fill(0x61 + i) }] : [],
  );
  const all = [...before!, bitmaps, ...behind!];
  const tail = serializeTail(all, backingName, header.headerBytes, cluster);
  bytes.fill(0, header.headerBytes, cluster);
  bytes.set(tail.bytes, header.headerBytes);
  writeU64(bytes, 8, tail.nameOffset);
  return bytes;
}

/** The first cluster as each write to it leaves it when only its first or its last sectors land. */
function* tornHeads(head: Uint8Array, log: readonly Entry[]): Generator<Uint8Array> {
  for (const entry of log) {
    if (entry.kind !== "write" || entry.offset >= head.length) continue;
    const old = head.slice();
    head.set(entry.bytes.subarray(0, head.length - entry.offset), entry.offset);
    for (let cut = 0; cut <= head.length; cut += SECTOR_BYTES) {
      const first = old.slice();
      first.set(head.subarray(0, cut));
      yield first;
      const last = head.slice();
      last.set(old.subarray(0, cut));
      yield last;
    }
  }
}

/** What must not change. */
function seenIn(bytes: Uint8Array): object {
  const { list, backingName } = parseExtensions(bytes, parseHeader(bytes));
  const kept = list.filter(({ type }) => type === UNKNOWN || type === UNKNOWN + 1);
  return { backingName, kept };
}

async function opened(store: LogStore) {
  const graph = new Graph(await testWorld(), [qcow2Driver(), logStoreDriver(store)] as never);
  const node = await graph.add({
    driver: "qcow2",
    "node-name": "overlay",
    file: { driver: "log-store" },
    backing: null,
  });
  return { graph, node };
}

async function image(store: LogStore, options: object) {
  const graph = new Graph(await testWorld(), [qcow2Driver(), logStoreDriver(store)] as never);
  const file = await graph.add({ driver: "log-store", "node-name": "new" });
  const backend = graph.openBackend(file, {
    name: "",
    description: "create",
    permissions: { take: Perm.all, share: Perm.all },
  });
  const given = { size: MiB, "backing-file": "first", "backing-fmt": "qcow2", ...options };
  await graph.driver("qcow2").create!({
    world: graph.world,
    options: given as never,
    file: backend.edge,
  });
  await graph.closeBackend(backend);
  await graph.remove("new");
  return opened(store);
}

function nameIn(bytes: Uint8Array): string | null {
  return parseExtensions(bytes, parseHeader(bytes)).backingName;
}
