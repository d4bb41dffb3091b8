import { statSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { KiB } from "../../../src/base/bytes.ts";
import { seededRandom } from "../../../src/base/random.ts";
import { qcow2Driver } from "../../../src/drivers/format/qcow2/index.ts";
import { rawDriver } from "../../../src/drivers/format/raw.ts";
import {
  firstDifference,
  mixedData,
  openDisk,
  qemuCheck,
  qemuImg,
  qemuRaw,
  readAll,
  testFolder,
  testGraph,
  writeRaw,
} from "./rig.ts";

const folder = testFolder();
const file = (name: string) => ({ driver: "file", filename: join(folder, name) });

it("the disk is the file", async () => {
  const data = mixedData(seededRandom(2), 100 * KiB + 100);
  writeRaw(folder, "a.raw", data);
  const disk = await openDisk(await testGraph(), { driver: "raw", file: file("a.raw") });
  expect(disk.backend.length).toBe(data.length);
  await disk.backend.write(new Uint8Array(5000).fill(8), 777);
  data.fill(8, 777, 5777);
  await disk.backend.writeZeroes(9000, 3000);
  data.fill(0, 9000, 12000);
  expect(firstDifference(await readAll(disk, 7001), data)).toBe(-1);
  await expect(disk.backend.write(new Uint8Array(10), data.length - 5)).rejects.toMatchObject({
    errno: "EINVAL",
  });
  await disk.backend.truncate(200 * KiB);
  await disk.close();
  expect(statSync(join(folder, "a.raw")).size).toBe(200 * KiB);
});

it("the disk is a window of the file, and nothing outside is touched", async () => {
  const data = mixedData(seededRandom(3), 64 * KiB);
  writeRaw(folder, "w.raw", data);
  const graph = await testGraph();
  const disk = await openDisk(graph, {
    driver: "raw",
    offset: 1000,
    size: 2048,
    file: file("w.raw"),
  });
  expect(firstDifference(await readAll(disk), data.subarray(1000, 3048))).toBe(-1);
  await disk.backend.write(new Uint8Array(2048).fill(1), 0);
  await expect(disk.backend.write(new Uint8Array(1), 2048)).rejects.toMatchObject({
    errno: "EINVAL",
  });
  await expect(disk.backend.truncate(3000)).rejects.toMatchObject({ errno: "ENOTSUP" });
  await disk.close();
  data.fill(1, 1000, 3048);
  const whole = await openDisk(graph, { driver: "raw", file: file("w.raw") });
  expect(firstDifference(await readAll(whole), data)).toBe(-1);
  await whole.close();
  const beyond = { driver: "raw", offset: 60 * KiB, size: 5 * KiB, file: file("w.raw") };
  await expect(openDisk(graph, beyond)).rejects.toMatchObject({ errno: "EINVAL" });
});

it("an image that lies in it can grow, as its file can", async () => {
  const graph = await testGraph();
  qemuImg(folder, "create", "-q", "-f", "qcow2", "inner.qcow2", "4M");
  const inner = { driver: "raw", file: file("inner.qcow2") };
  const disk = await openDisk(graph, { driver: "qcow2", file: inner });
  const data = mixedData(seededRandom(4), 2048 * KiB);
  await disk.backend.write(data, 0);
  await disk.close();
  expect(qemuCheck(folder, "inner.qcow2").status).toBe(0);
  expect(firstDifference(qemuRaw(folder, "inner.qcow2").subarray(0, data.length), data)).toBe(-1);
});

it("probing: qcow2 knows its magic, raw takes whatever nobody is surer of", () => {
  const head = new Uint8Array(512);
  expect([rawDriver().probe!(head), qcow2Driver().probe!(head)]).toEqual([1, 0]);
  head.set([0x51, 0x46, 0x49, 0xfb, 0, 0, 0, 3]);
  expect([rawDriver().probe!(head), qcow2Driver().probe!(head)]).toEqual([1, 100]);
  head[7] = 1;
  expect(qcow2Driver().probe!(head)).toBe(0);
  expect(qcow2Driver().probe!(head.subarray(0, 3))).toBe(0);
});
