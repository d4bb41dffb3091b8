/** The copying of convert, side by side with the real qemu-img on the same disks. */

import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { seededRandom } from "../../src/base/random.ts";
import { Perm } from "../../src/block/permissions.ts";
import { type Conversion, convertDisk } from "../../src/img/convert-loop.ts";
import { Sources } from "../../src/img/sources.ts";
import { hasQemu, openDisk, qemuImg, testFolder, testGraph } from "../drivers/format/rig.ts";
import { writePatchy } from "./loop-rig.ts";

const folder = testFolder();
const file = (name: string) => ({ driver: "file", filename: join(folder, name) });

async function convert(
  sources: readonly string[],
  target: string,
  format: "raw" | "qcow2",
  manners: Partial<Conversion> = {},
) {
  const graph = await testGraph();
  const backends = [];
  for (const source of sources) {
    const driver = source.endsWith(".raw") ? "raw" : "qcow2";
    const node = await graph.addForUsers({
      driver,
      "node-name": `n-${source}`,
      "read-only": true,
      file: file(source),
    });
    backends.push(
      graph.openBackend(node, {
        name: "",
        description: "the test",
        permissions: { take: Perm.consistentRead, share: Perm.all },
      }),
    );
  }
  const all = new Sources(backends);
  qemuImg(folder, "create", "-q", "-f", format, target, String(all.length));
  const disk = await openDisk(graph, { driver: format, file: file(target) });
  const failure = await convertDisk({
    sources: all,
    target: disk.backend,
    length: all.length,
    compress: false,
    sparse: 4096,
    isZero: true,
    backingLength: null,
    parallel: 8,
    outOfOrder: false,
    rate: 0,
    progress: async () => {},
    clock: graph.world.clock,
    ...manners,
  });
  await disk.close();
  for (const backend of backends) await graph.closeBackend(backend);
  return failure;
}

const same = (a: string, b: string) => {
  const format = (name: string) => (name.endsWith(".raw") ? "raw" : "qcow2");
  return qemuImg(folder, "compare", "-f", format(a), "-F", format(b), a, b);
};
const map = (name: string) =>
  JSON.parse(qemuImg(folder, "map", "--output=json", name)).map(
    ({ offset: _, ...rest }: { offset?: number }) => rest,
  );

describe.skipIf(!hasQemu)("the copying of convert", () => {
  for (let seed = 1; seed <= 4; seed++) {
    const wanted = process.env.IMG_SEED ? Number(process.env.IMG_SEED) : seed;
    it(`writes the bytes and the holes that qemu-img writes (IMG_SEED=${wanted})`, async () => {
      const random = seededRandom(wanted);
      writePatchy(random, join(folder, "a.raw"), 3_000_000 + random.below(5000));
      for (const sparse of [4096, 512, 65536]) {
        const [ours, theirs] = [`ours-${sparse}.qcow2`, `theirs-${sparse}.qcow2`];
        expect(await convert(["a.raw"], ours, "qcow2", { sparse })).toBeNull();
        qemuImg(folder, "convert", "-S", String(sparse), "-O", "qcow2", "a.raw", theirs);
        expect(same("a.raw", ours)).toContain("identical");
        expect(map(ours)).toEqual(map(theirs));
      }
      expect(await convert(["ours-4096.qcow2"], "back.raw", "raw")).toBeNull();
      expect(same("a.raw", "back.raw")).toContain("identical");
    });
  }

  it("packs what qemu-img packs", async () => {
    writePatchy(seededRandom(5), join(folder, "p.raw"), 2_500_000);
    expect(await convert(["p.raw"], "ours-p.qcow2", "qcow2", { compress: true })).toBeNull();
    qemuImg(folder, "convert", "-c", "-O", "qcow2", "p.raw", "theirs-p.qcow2");
    expect(same("p.raw", "ours-p.qcow2")).toContain("identical");
    expect(map("ours-p.qcow2")).toEqual(map("theirs-p.qcow2"));
    qemuImg(folder, "check", "ours-p.qcow2");
  });

  it("puts several disks behind each other, each from a whole sector on", async () => {
    writePatchy(seededRandom(6), join(folder, "1.raw"), 700_001);
    writePatchy(seededRandom(7), join(folder, "2.raw"), 65536);
    writePatchy(seededRandom(8), join(folder, "3.raw"), 12_345);
    const all = ["1.raw", "2.raw", "3.raw"];
    for (const compress of [false, true]) {
      const name = `all-${compress}.qcow2`;
      expect(await convert(all, name, "qcow2", { compress })).toBeNull();
      qemuImg(folder, "convert", "-O", "raw", ...all, "all.raw");
      expect(same("all.raw", name)).toContain("identical");
    }
  });

  it("writes every byte of the target with a sparse size of 0", async () => {
    writePatchy(seededRandom(9), join(folder, "s.raw"), 300_000);
    expect(await convert(["s.raw"], "s.qcow2", "qcow2", { sparse: 0 })).toBeNull();
    expect(map("s.qcow2").every(({ data }: { data: boolean }) => data)).toBe(true);
  });

  it("stops where a signal says so, and says that it was stopped", async () => {
    writePatchy(seededRandom(10), join(folder, "c.raw"), 9_000_000);
    const stop = new AbortController();
    const failure = await convert(["c.raw"], "c.qcow2", "qcow2", {
      signal: stop.signal,
      progress: async () => stop.abort(),
    });
    expect(failure?.error.errno).toBe("ECANCELED");
    qemuImg(folder, "check", "-q", "c.qcow2");
  });
});
