/**
 * Names in a header that has little room: whatever a crash leaves, sector by sector, is what was or what
 * is to be, or the change has been refused before anything was written.
 */

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { KiB, MiB, writeU32, writeU64 } from "../../../../src/base/bytes.ts";
import { BlockError } from "../../../../src/base/errors.ts";
import { type Random, seededRandom } from "../../../../src/base/random.ts";
import { Graph } from "../../../../src/block/graph.ts";
import { Perm } from "../../../../src/block/permissions.ts";
import {
  type Extension,
  featureNamesExtension,
  parseExtensions,
  serializeTail,
} from "../../../../src/drivers/format/qcow2/extensions.ts";
import { parseHeader } from "../../../../src/drivers/format/qcow2/header.ts";
import { qcow2Driver } from "../../../../src/drivers/format/qcow2/index.ts";
import { everyState } from "../../../crash/states.ts";
import { LogStore, logStoreDriver } from "../log-store.ts";
import { hasQemu, qemuImg, testFolder, testWorld } from "../rig.ts";

const folder = testFolder();
const UNKNOWN = 0x12345678;
const SEEDS = 25;
const NAME_BYTES_MAX = 1023;
const FORMATS = ["raw", "qcow2", "parallels", null];

describe.each([512, KiB, 2 * KiB])("names in a header, clusters of %i bytes", (cluster) => {
  it.each(["v2", "v3"])(
    "are the old ones or the new ones after any crash, or refused: %s",
    async (version) => {
      let done = 0;
      for (let seed = 1; seed <= SEEDS; seed++) {
        const random = seededRandom(seed);
        const start = await someImage(random, cluster, version);
        const store = new LogStore(start);
        const { graph, node } = await opened(store);
        for (let change = 0; change < 3; change++) {
          const what = `seed ${seed}, change ${change}`;
          const before = store.bytes.slice();
          store.log.length = 0;
          const name = someName(random, cluster);
          const format = name === null ? null : FORMATS[random.below(FORMATS.length)]!;
          const refused = await outcome(node.state.changeBackingFile!(name, format));
          if (refused) {
            expect(refused.message, what).toMatch(/shorter/);
            expect(store.log, what).toEqual([]);
            continue;
          }
          done++;
          const [old, now] = [seenIn(before), { ...seenIn(before), name, format }];
          const seen = new Set<string>();
          for (const state of everyState(before, store.log)) {
            seen.add(JSON.stringify(seenIn(state)));
          }
          const wanted = new Set([old, now].map((one) => JSON.stringify(one)));
          expect([...seen].sort(), what).toEqual([...wanted].sort());
          expect(seenIn(store.bytes), what).toEqual(now);
          if (hasQemu && seed % 10 === 0) expectAsQemuReads(store.bytes, name, what);
        }
        await graph.remove(node.name);
      }
      expect(done).toBeGreaterThan(SEEDS);
    },
  );
});

describe("a name that is longer than what is left", () => {
  const long = (char: string, bytes: number) => char.repeat(bytes);

  it("takes the place of the names of features, and begins in the first sector", async () => {
    const { bytes, change } = await named(2 * KiB, long("a", 1000));
    expect(await change(long("b", 850))).toBeNull();
    expect(seenIn(bytes()).name).toBe(long("b", 850));
  });

  it("has the old one moved for it", async () => {
    const { store, bytes, change } = await named(KiB, long("a", 250), 528);
    expect(await change(long("b", 500))).toBeNull();
    expect(seenIn(bytes()).name).toBe(long("b", 500));
    const switches = store.log.filter((entry) => entry.kind === "write" && entry.offset === 0);
    expect(switches).toHaveLength(2);
  });

  it("is refused with what to do, and the disk goes on", async () => {
    const { store, bytes, change } = await named(KiB, long("a", 500));
    const refused = await change(long("b", 500));
    expect(refused).toMatchObject({
      errno: "ENOSPC",
      message: expect.stringMatching(/shorter name, .* larger clusters/),
    });
    expect(store.log).toEqual([]);
    expect(await change(long("c", 1000))).toMatchObject({ errno: "EINVAL" });
    expect(await change("short")).toBeNull();
    expect(await change(long("b", 500))).toBeNull();
    expect(seenIn(bytes()).name).toBe(long("b", 500));
  });
});

/** @param at where QEMU would have put the name, with its names of features before it */
async function named(cluster: number, name: string, at?: number) {
  const bytes = await created(cluster, "v3", name, "raw");
  if (at !== undefined) {
    bytes.set(new TextEncoder().encode(name), at);
    writeU64(bytes, 8, at);
  }
  const store = new LogStore(bytes);
  const { node } = await opened(store);
  const change = (to: string) => outcome(node.state.changeBackingFile!(to, "raw"));
  return { store, change, bytes: () => store.bytes };
}

async function outcome(change: Promise<void>): Promise<BlockError | null> {
  try {
    await change;
    return null;
  } catch (error) {
    if (error instanceof BlockError) return error;
    throw error;
  }
}

function someName(random: Random, cluster: number): string | null {
  if (random.below(8) === 0) return null;
  const most = random.below(2) ? NAME_BYTES_MAX : Math.min(NAME_BYTES_MAX, cluster / 3);
  const char = String.fromCharCode(97 + random.below(26));
  return char.repeat(1 + random.below(most));
}

/** A name as somebody else may have put it anywhere, after extensions that nobody knows. */
async function someImage(random: Random, cluster: number, version: string): Promise<Uint8Array> {
  const bytes = await created(cluster, version, "x", "raw");
  const header = parseHeader(bytes);
  const { list } = parseExtensions(bytes, header);
  const extra: Extension[] = random.below(2) ? [featureNamesExtension()] : [];
  for (let i = random.below(3); i > 0; i--) {
    const data = new Uint8Array(random.below(cluster / 5)).fill(0x30 + i);
    extra.push({ type: UNKNOWN + i, data });
  }
  const all = random.below(2) ? [...extra, ...list] : [...list, ...extra];
  const fits = (some: readonly Extension[]) =>
    header.headerBytes + 8 + some.reduce((sum, { data }) => sum + 16 + data.length, 0) < cluster;
  const tail = serializeTail(fits(all) ? all : list, null, header.headerBytes, cluster).bytes;
  const end = header.headerBytes + tail.length;
  bytes.fill(0, header.headerBytes, cluster);
  bytes.set(tail, header.headerBytes);
  const room = Math.min(NAME_BYTES_MAX, cluster - end);
  const length = room > 0 ? 1 + random.below(random.below(2) ? room : Math.min(room, 300)) : 0;
  const at = end + random.below(cluster - end - length + 1);
  bytes.fill(0x41 + random.below(26), at, at + length);
  writeU64(bytes, 8, length > 0 ? at : 0);
  writeU32(bytes, 16, length);
  return bytes;
}

/** All that the first cluster says. */
function seenIn(bytes: Uint8Array) {
  const header = parseHeader(bytes);
  const { list, backingName, backingFormat } = parseExtensions(bytes, header);
  const unknown = list
    .filter(({ type }) => type > UNKNOWN && type < UNKNOWN + 3)
    .map(({ type, data }) => [type, data.length, data.every((byte) => byte === data[0])]);
  return { name: backingName, format: backingFormat, unknown };
}

function expectAsQemuReads(bytes: Uint8Array, name: string | null, what: string): void {
  writeFileSync(join(folder, "named.qcow2"), bytes);
  const info = JSON.parse(qemuImg(folder, "info", "--output=json", "named.qcow2"));
  expect(info["backing-filename"] ?? null, what).toBe(name);
}

async function created(
  cluster: number,
  version: string,
  name: string,
  format: string,
): Promise<Uint8Array> {
  const store = new LogStore(new Uint8Array(0));
  const graph = new Graph(await testWorld(), [qcow2Driver(), logStoreDriver(store)] as never);
  const file = await graph.add({ driver: "log-store", "node-name": "new" });
  const permissions = { take: Perm.all, share: Perm.all };
  const backend = graph.openBackend(file, { name: "", description: "create", permissions });
  const options = {
    size: MiB,
    version,
    "cluster-size": cluster,
    "backing-file": name,
    "backing-fmt": format,
  };
  await graph.driver("qcow2").create!({
    world: graph.world,
    options: options as never,
    file: backend.edge,
  });
  await graph.closeBackend(backend);
  await graph.remove("new");
  return store.bytes.slice();
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
