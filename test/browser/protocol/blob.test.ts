import { describe, expect, it } from "vitest";
import { MiB } from "../../../src/base/bytes.ts";
import { blobDriver } from "../../../src/drivers/protocol/blob.ts";
import { listOpfs, opfsFile, removeOpfs } from "../../../src/drivers/protocol/opfs.ts";
import {
  describeProtocol,
  expectBytes,
  failure,
  filled,
  noise,
  readAll,
  storeWorld,
} from "../../conformance/protocol.ts";
import { startWorker } from "./drivers.ts";

const world = storeWorld();

function opened(blobs: Map<string, Blob>, name: string, readOnly = true) {
  return blobDriver(blobs).open({
    world,
    options: { name },
    nodeName: "n",
    readOnly,
    children: {},
  });
}

describeProtocol("blob", { writable: false, sharedReaders: true, far: 0 }, async (content) => {
  const blobs = new Map([["disk", new Blob([content as Uint8Array<ArrayBuffer>])]]);
  return { open: (readOnly) => opened(blobs, "disk", readOnly) };
});

describe("blobDriver", () => {
  it("reads more than one slice", async () => {
    const content = noise(5 * MiB + 3);
    const state = await opened(new Map([["a", new Blob([content])]]), "a");
    expectBytes(await readAll(state, 7, 5 * MiB - 10), content.subarray(7, 5 * MiB - 3));
  });

  it("knows only what was handed over, and only for reading", async () => {
    const blobs = new Map([["a", new Blob([noise(5)])]]);
    await failure(opened(blobs, "b"), "ENOENT");
    await failure(opened(blobs, "a", false), "EACCES");
  });

  it("fails with ESTALE once the file has been changed or deleted", async () => {
    const drivers = startWorker();
    const filename = "blob.img";
    await drivers.create("opfs", { filename, size: 0 });
    const store = { open: (readOnly: boolean) => drivers.open("opfs", { filename }, readOnly) };
    await filled(store, noise(1000));
    // A real file on the disk, as a file input gives.
    const state = await opened(new Map([["a", await opfsFile(filename)]]), "a");
    expectBytes(await readAll(state, 0, 1000), noise(1000));
    await filled(store, noise(2000, 2));
    const { message } = await failure(readAll(state, 0, 1000), "ESTALE");
    expect(message).toContain("pick it again");

    const other = await opened(new Map([["a", await opfsFile(filename)]]), "a");
    await removeOpfs(filename);
    await failure(readAll(other, 0, 1000), "ESTALE");
    expect(await listOpfs()).toEqual([]);
    drivers.terminate();
  });
});
