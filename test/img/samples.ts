/** Images of many kinds, made by the real tools, for those who compare what is told of them. */

import assert from "node:assert/strict";
import { copyFileSync, readFileSync, writeFileSync } from "node:fs";
import { type Folders, qemuImg, qemuIo } from "./rig.ts";

/** By name: makes `image` in a folder. */
export const SAMPLES: Readonly<Record<string, (folder: string) => void>> = {
  empty: (at) => qemuImg("create", "-q", "-f", "qcow2", `${at}/image`, "4M"),
  "of version 2": (at) => {
    qemuImg("create", "-q", "-f", "qcow2", "-o", "compat=0.10", `${at}/image`, "4M");
    qemuIo(`${at}/image`, "qcow2", "write -P 1 100k 300k");
  },
  "with all kinds of clusters": (at) => {
    qemuImg("create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", `${at}/image`, "4M");
    qemuIo(
      `${at}/image`,
      "qcow2",
      "write -P 1 0 128k",
      "write -z 1M 64k",
      "write -P 2 2M 64k",
      "write -z 2080k 8k",
      "write -c -P 7 3M 8k",
      "discard 4k 8k",
    );
  },
  "with zstd": (at) => {
    qemuImg("create", "-q", "-f", "qcow2", "-o", "compression_type=zstd", `${at}/image`, "1M");
    qemuIo(`${at}/image`, "qcow2", "write -c -P 7 0 64k", "write -P 1 64k 64k");
  },
  "with subclusters": (at) => {
    qemuImg("create", "-q", "-f", "qcow2", "-o", "extended_l2=on", `${at}/image`, "1M");
    qemuIo(`${at}/image`, "qcow2", "write -P 3 66k 2k", "write -z 70k 10k", "write -P 1 300k 64k");
  },
  "with snapshots": (at) => {
    qemuImg("create", "-q", "-f", "qcow2", `${at}/image`, "1M");
    qemuImg("snapshot", "-c", "first", `${at}/image`);
    qemuIo(`${at}/image`, "qcow2", "write -P 3 64k 128k");
    qemuImg("snapshot", "-c", "second, and a name that is wide", `${at}/image`);
  },
  "with bitmaps": (at) => {
    qemuImg("create", "-q", "-f", "qcow2", `${at}/image`, "1M");
    qemuImg("bitmap", "--add", `${at}/image`, "b1");
    qemuImg("bitmap", "--add", "--disable", "-g", "128k", `${at}/image`, "b2");
    qemuIo(`${at}/image`, "qcow2", "write -P 3 64k 128k");
  },
  "with a data file": (at) => {
    qemuImg("create", "-q", "-f", "qcow2", "-o", `data_file=${at}/data`, `${at}/image`, "1M");
    qemuIo(`${at}/image`, "qcow2", "write -P 3 64k 64k", "write -z 256k 64k");
  },
  "with lazy refcounts": (at) =>
    qemuImg(
      "create",
      "-q",
      "-f",
      "qcow2",
      "-o",
      "lazy_refcounts=on,refcount_bits=1",
      `${at}/image`,
      "9G",
    ),
  "with a machine's state": (at) => {
    qemuImg("create", "-q", "-f", "qcow2", `${at}/image`, "1M");
    qemuImg("snapshot", "-c", "abcdefgh", `${at}/image`);
    giveState(`${at}/image`);
  },
};

/** Makes the snapshot one of a machine that has run for a while, as written before icount was there. */
function giveState(path: string): void {
  const bytes = readFileSync(path);
  const entry = bytes.subarray(Number(bytes.readBigUInt64BE(64)));
  const [fixed, extra, name] = [40, entry.readUInt32BE(36), entry.subarray(40 + 24, 40 + 24 + 9)];
  assert.equal(extra, 24);
  entry.writeBigUInt64BE(444441907089000000n, 24);
  entry.writeUInt32BE(12345678, 32);
  entry.writeUInt32BE(16, 36);
  entry.writeBigUInt64BE(12345678n, fixed);
  name.copy(entry, fixed + 16);
  writeFileSync(path, bytes);
}

/** The same bytes in both folders; only the names of data files differ. */
export function makeSample(name: string, folders: Folders): void {
  SAMPLES[name]!(folders.real);
  if (name === "with a data file") SAMPLES[name]!(folders.mine);
  else copyFileSync(`${folders.real}/image`, `${folders.mine}/image`);
}

/** [base.q] <── [mid.q] <── [top.q], the top one longer: in both folders. */
export function makeChain(folders: Folders): void {
  for (const at of [folders.mine, folders.real]) {
    qemuImg("create", "-q", "-f", "qcow2", `${at}/base.q`, "4M");
    qemuIo(
      `${at}/base.q`,
      "qcow2",
      "write -P 1 0 128k",
      "write -z 1M 64k",
      "write -P 5 2M 64k",
      "write -c -P 7 3M 64k",
    );
    qemuImg("create", "-q", "-f", "qcow2", "-b", "base.q", "-F", "qcow2", `${at}/mid.q`);
    qemuIo(`${at}/mid.q`, "qcow2", "write -P 2 64k 64k", "discard 2M 64k");
    qemuImg("create", "-q", "-f", "qcow2", "-b", "mid.q", "-F", "qcow2", `${at}/top.q`, "6M");
    qemuIo(`${at}/top.q`, "qcow2", "write -P 3 5M 100");
  }
}
