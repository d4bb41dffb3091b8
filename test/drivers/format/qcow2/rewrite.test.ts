import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { KiB, MiB } from "../../../../src/base/bytes.ts";
import { seededRandom } from "../../../../src/base/random.ts";
import { Graph } from "../../../../src/block/graph.ts";
import { Perm } from "../../../../src/block/permissions.ts";
import { parseExtensions } from "../../../../src/drivers/format/qcow2/extensions.ts";
import { parseHeader } from "../../../../src/drivers/format/qcow2/header.ts";
import { qcow2Driver } from "../../../../src/drivers/format/qcow2/index.ts";
import { crashState, LogStore, logStoreDriver } from "../log-store.ts";
import { hasQemu, qemuImg, testFolder, testWorld } from "../rig.ts";

type Label = readonly [name: string | null, format: string | null];

const LABELS: readonly Label[] = [
  ["base", "raw"],
  [`somewhere/${"else/".repeat(60)}base.qcow2`, "qcow2"],
  ["mid", "qcow2"],
  ["opfs", "memory-of-a-long-name"],
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
  const node = await graph.add({
    driver: "qcow2",
    "node-name": "overlay",
    file: { driver: "log-store" },
    backing: null,
  });
  return { graph, node };
}

function nameIn(bytes: Uint8Array): string | null {
  return parseExtensions(bytes, parseHeader(bytes)).backingName;
}
