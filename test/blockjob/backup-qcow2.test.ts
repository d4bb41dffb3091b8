/** Backups of qcow2 chains that the real qemu-img has made, and looks at again. */

import { cpSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { KiB, MiB } from "../../src/base/bytes.ts";
import { SystemClock } from "../../src/base/clock.ts";
import { seededRandom } from "../../src/base/random.ts";
import { Graph } from "../../src/block/graph.ts";
import { Perm } from "../../src/block/permissions.ts";
import { type BackupOptions, startBackup } from "../../src/blockjob/backup.ts";
import type { BlockJobServices } from "../../src/blockjob/block-job.ts";
import { browserDrivers } from "../../src/drivers/index.ts";
import { fileDriver } from "../../src/drivers/protocol/file.ts";
import { JobList } from "../../src/job/list.ts";
import {
  chainOptions,
  hasQemu,
  qemuCheck,
  qemuImg,
  qemuIo,
  testFolder,
  testWorld,
} from "../drivers/format/rig.ts";

const folder = testFolder();
const SIZE = 6 * MiB + 512;

async function engine() {
  const graph = new Graph(await testWorld(), [...browserDrivers(new Map()), fileDriver() as never]);
  const bugs: unknown[] = [];
  const jobs = new JobList({ onBug: (bug) => void bugs.push(bug) });
  const services: BlockJobServices = { graph, jobs, clock: new SystemClock(), emit() {} };
  const open = (name: string, ...files: string[]) =>
    graph.add({ ...chainOptions(folder, files), "node-name": name });
  return { graph, bugs, services, open };
}

/** base ◀── top, with clusters of several kinds. */
function makeChain(options: string): void {
  qemuImg(folder, "create", "-q", "-f", "qcow2", "-o", options, "base.qcow2", `${SIZE}`);
  qemuIo(folder, "base.qcow2", "write -P 1 0 3M", "write -z 1M 200k", "write -P 2 5M 1M");
  const below = ["-b", "base.qcow2", "-F", "qcow2"];
  qemuImg(folder, "create", "-q", "-f", "qcow2", ...below, "-o", options, "top.qcow2");
  qemuIo(folder, "top.qcow2", "write -P 3 700k 100k", "write -z 2M 300k", "write -P 4 4M 5k");
  qemuIo(folder, "top.qcow2", "write -c -P 5 5M 64k");
}

describe.skipIf(!hasQemu)("a backup of qcow2 images", () => {
  const cases: [string, string, string, Partial<BackupOptions>][] = [
    ["full", "cluster_size=64k", "cluster_size=64k", {}],
    ["full, compressed", "cluster_size=64k", "cluster_size=64k", { compress: true }],
    ["full, compressed, small clusters", "cluster_size=4k", "cluster_size=16k", { compress: true }],
    ["full, large clusters", "cluster_size=4k", "cluster_size=2M", {}],
    ["full, to a raw file", "extended_l2=on,cluster_size=64k", "raw", {}],
    ["top", "cluster_size=64k", "cluster_size=64k", { sync: "top" }],
    [
      "top, compressed, other clusters",
      "cluster_size=4k",
      "cluster_size=128k",
      { sync: "top", compress: true },
    ],
    ["incremental", "cluster_size=64k", "cluster_size=64k", { sync: "incremental", bitmap: "bm" }],
  ];
  it.each(cases)(
    "#101 %s: qemu-img finds it equal to the moment of its start",
    async (name, sourceOptions, targetOptions, options) => {
      const random = seededRandom(name.length);
      makeChain(sourceOptions);
      const { graph, bugs, services, open } = await engine();
      const isRaw = targetOptions === "raw";
      const target = isRaw ? "copy.raw" : "copy.qcow2";
      const below = options.sync === "top" ? ["-b", "base.qcow2", "-F", "qcow2"] : [];
      if (isRaw) qemuImg(folder, "create", "-q", "-f", "raw", target, `${SIZE}`);
      else if (options.sync === "incremental") {
        qemuImg(folder, "convert", "-f", "qcow2", "top.qcow2", "-O", "qcow2", target);
      } else {
        qemuImg(
          folder,
          "create",
          "-q",
          "-f",
          "qcow2",
          ...below,
          "-o",
          targetOptions,
          target,
          `${SIZE}`,
        );
      }
      const source = await open("source", "top.qcow2", "base.qcow2");
      await open("target", target, ...(below.length > 0 ? ["base.qcow2"] : []));
      if (options.bitmap) source.bitmaps.add({ name: options.bitmap, granularity: 4 * KiB });
      const disk = graph.openBackend(source, {
        name: "vda",
        description: "device 'vda'",
        permissions: { take: Perm.consistentRead | Perm.write, share: Perm.all },
      });
      const write = async () => {
        const data = new Uint8Array(1 + random.below(200 * KiB)).fill(1 + random.below(255));
        await disk.write(data, random.below(SIZE - data.length));
      };
      for (let i = 0; i < 6; i++) await write();
      await disk.flush();
      cpSync(join(folder, "top.qcow2"), join(folder, "moment.qcow2"));

      const job = await startBackup(services, {
        device: "vda",
        jobId: "b0",
        target: "target",
        sync: "full",
        speed: 2 * MiB,
        ...options,
      });
      for (let i = 0; i < 25; i++) await write();
      await disk.discard(0, MiB);
      await disk.writeZeroes(3 * MiB, MiB);
      if (!job.completed) job.setSpeed(0);
      await job.finished;
      expect([job.error, bugs]).toEqual([null, []]);
      await graph.closeBackend(disk);
      for (const node of ["target", "source"]) await graph.remove(node);

      const format = isRaw ? "raw" : "qcow2";
      // It exits with 1, and this throws, if they differ.
      qemuImg(folder, "compare", "-f", "qcow2", "-F", format, "moment.qcow2", target);
      for (const image of isRaw ? ["top.qcow2"] : ["top.qcow2", target]) {
        const check = qemuCheck(folder, image);
        expect(check.status, `${image}: ${check.text}`).toBe(0);
      }
      if (options.compress) {
        const json = qemuImg(folder, "check", "--output=json", "-f", "qcow2", target);
        expect(JSON.parse(json)["compressed-clusters"]).toBeGreaterThan(0);
      }
    },
    30_000,
  );
});
