/** `blocktab img` in a page: on OPFS, Blobs and memory, in a real browser, next to the one on Node. */

import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { commands } from "vitest/browser";
import { opfsFile, removeOpfs } from "../../../src/drivers/protocol/opfs.ts";
import { type ImgClient, type ImgFile, openImg } from "../../../src/engine/img-client.ts";

const PREFIX = "img-test-";
const opfs = (name: string): ImgFile => ({ opfs: PREFIX + name });
const FILES: Record<string, ImgFile> = {
  "in.raw": new Blob([patchy(1_500_000)]),
  "disk.qcow2": opfs("disk.qcow2"),
  "packed.qcow2": opfs("packed.qcow2"),
  "over.qcow2": opfs("over.qcow2"),
  "back.raw": opfs("back.raw"),
  "mem.qcow2": { memory: "m" },
};

let img: ImgClient;
beforeEach(() => {
  img = openImg();
});
afterEach(async () => {
  img.close();
  for (const name of ["disk.qcow2", "packed.qcow2", "over.qcow2", "back.raw"]) {
    await removeOpfs(PREFIX + name).catch(() => {});
  }
});

/** Runs of data and of zeroes. */
function patchy(bytes: number): Uint8Array<ArrayBuffer> {
  const disk = new Uint8Array(bytes);
  for (let i = 0; i < bytes; i++) {
    if (Math.floor(i / 50_000) % 3 !== 1) disk[i] = (i * 7 + Math.floor(i / 977)) % 251;
  }
  return disk;
}

async function done(...argv: string[]): Promise<string> {
  const { status, stdout, stderr } = await img.run(argv, { files: FILES });
  expect(stderr, argv.join(" ")).toBe("");
  expect(status).toBe(0);
  return stdout;
}

async function base64(blob: Blob): Promise<string> {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  let text = "";
  for (let at = 0; at < bytes.length; at += 0x8000) {
    text += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
  }
  return btoa(text);
}

describe("img in a page", () => {
  it("makes the bytes that it makes on Node", async () => {
    const lines = [
      ["convert", "-c", "-f", "raw", "-O", "qcow2", "in.raw", "packed.qcow2"],
      ["compare", "-f", "raw", "-F", "qcow2", "in.raw", "packed.qcow2"],
      ["map", "--output=json", "packed.qcow2"],
      ["measure", "-O", "raw", "--output=json", "packed.qcow2"],
    ];
    const here = [];
    for (const line of lines) here.push(await done(...line));
    const info = JSON.parse(await done("info", "--output=json", "packed.qcow2"));
    expect(info).toMatchObject({ format: "qcow2", filename: `${PREFIX}packed.qcow2` });
    const there = await commands.nodeImg(
      lines,
      { "in.raw": await base64(FILES["in.raw"] as Blob) },
      "packed.qcow2",
    );
    expect(here).toEqual(there.stdout);
    expect(await base64(await opfsFile(`${PREFIX}packed.qcow2`))).toBe(there.file);
  });

  it("makes overlays, commits and rebases them, between OPFS and memory", async () => {
    await done("convert", "-f", "raw", "-O", "qcow2", "in.raw", "disk.qcow2");
    await done("create", "-f", "qcow2", "-b", "disk.qcow2", "-F", "qcow2", "over.qcow2");
    expect(await done("compare", "over.qcow2", "disk.qcow2")).toContain("identical");
    await done("convert", "-O", "qcow2", "over.qcow2", "mem.qcow2");
    expect((await img.memoryFile("m")).size).toBeGreaterThan(900_000);
    await done("rebase", "-b", "", "over.qcow2");
    expect(await done("compare", "over.qcow2", "mem.qcow2")).toContain("identical");
    await done("rebase", "-u", "-b", "disk.qcow2", "-F", "qcow2", "over.qcow2");
    expect(await done("commit", "over.qcow2")).toBe("Image committed.\n");
    await done("dd", "-f", "qcow2", "bs=64k", "count=2", "if=over.qcow2", "of=back.raw");
    expect((await opfsFile(`${PREFIX}back.raw`)).size).toBe(131_072);
  });

  it("checks an image, and repairs it in OPFS as on Node", async () => {
    await done("convert", "-f", "raw", "-O", "qcow2", "in.raw", "disk.qcow2");
    expect(await done("check", "disk.qcow2")).toContain("No errors were found on the image.\n");
    const name = `${PREFIX}disk.qcow2`;
    const bytes = new Uint8Array(await (await opfsFile(name)).arrayBuffer());
    const view = new DataView(bytes.buffer);
    const blockAt = Number(view.getBigUint64(Number(view.getBigUint64(48))));
    // Clusters of data with a refcount of 0, and one with 2.
    for (const [cluster, count] of [
      [6, 0],
      [7, 0],
      [8, 2],
    ] as const) {
      expect(view.getUint16(blockAt + 2 * cluster)).toBe(1);
      view.setUint16(blockAt + 2 * cluster, count);
    }
    const asBlob = { files: { "disk.qcow2": new Blob([bytes]) } };
    const looked = await img.run(["check", "--output=json", "disk.qcow2"], asBlob);
    expect(looked.status).toBe(2);
    expect(looked.stderr).toContain("Cluster 6 has refcount 0 and 1 references");
    expect(JSON.parse(looked.stdout)).toMatchObject({ leaks: 1, "check-errors": 0 });
    // A Blob is never written to.
    expect((await img.run(["check", "-r", "all", "disk.qcow2"], asBlob)).status).toBe(1);

    const back = ["convert", "-f", "raw", "-O", "raw", "damaged", "disk.qcow2"];
    const files = { ...FILES, damaged: new Blob([bytes]) };
    expect(await img.run(back, { files })).toMatchObject({ status: 0, stderr: "" });
    const lines = [
      ["check", "-r", "all", "disk.qcow2"],
      ["check", "disk.qcow2"],
    ];
    const here = [];
    for (const line of lines) here.push((await img.run(line, { files: FILES })).stdout);
    const there = await commands.nodeImg(
      lines,
      { "disk.qcow2": await base64(new Blob([bytes])) },
      "disk.qcow2",
    );
    expect(here).toEqual(there.stdout);
    expect(here[1]).toContain("No errors were found on the image.\n");
    expect(await base64(await opfsFile(name))).toBe(there.file);
    expect(await done("compare", "-f", "raw", "in.raw", "disk.qcow2")).toContain("identical");
  });

  it("follows a name in an image only to what the page has given", async () => {
    await done("convert", "-f", "raw", "-O", "qcow2", "in.raw", "disk.qcow2");
    await done("create", "-f", "qcow2", "-b", "disk.qcow2", "-F", "qcow2", "over.qcow2");
    const { "disk.qcow2": _, ...fewer } = FILES;
    const refused = await img.run(["convert", "over.qcow2", "back.raw"], { files: fewer });
    expect(refused.status).toBe(1);
    expect(refused.stderr).toContain("'disk.qcow2'");
    const unknown = await img.run(["compare", "nope", "over.qcow2"], { files: FILES });
    expect(unknown).toMatchObject({ status: 2, stdout: "" });
    expect(unknown.stderr).toContain("The page has given no file 'nope'");
  });

  it("writes to no Blob, shows progress, and ends when it is told to", async () => {
    const written = await img.run(["rebase", "-u", "-b", "", "in.raw"], { files: FILES });
    expect(written.status).toBe(1);
    const shown: string[] = [];
    const stop = new AbortController();
    const canceled = await img.run(["convert", "-p", "-r", "200k", "in.raw", "back.raw"], {
      files: FILES,
      signal: stop.signal,
      onOutput(_stream, text) {
        shown.push(text);
        if (shown.length > 1) stop.abort();
      },
    });
    expect(shown[0]).toBe("    (0.00/100%)\r");
    expect(canceled.status).toBe(1);
    expect(canceled.stderr).toContain("not complete");
    // It has let go of everything.
    await done("convert", "in.raw", "back.raw");
  });
});
