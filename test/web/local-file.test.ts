import { expect, test } from "vitest";
import { blobSources, checkSameFile, templateOfFile } from "../../web/local-file.ts";
import { checkComplete, templateOptions } from "../../web/template.ts";
import type { NodeInfo } from "../../web/wire.ts";

const QCOW2 = [0x51, 0x46, 0x49, 0xfb, 0, 0, 0, 3];

test("a file says by its first bytes that it is qcow2, and by its name that it is raw", async () => {
  expect((await templateOfFile(file("a.raw", QCOW2))).chain[0]).toMatchObject({ format: "qcow2" });
  expect((await templateOfFile(file("b.IMG", [1, 2]))).chain[0]).toMatchObject({ format: "raw" });
  await expect(templateOfFile(file("c.vmdk", [1, 2]))).rejects.toThrow(/'c.vmdk' is not a qcow2/);
  await expect(templateOfFile(file("d.raw", []))).rejects.toThrow(/'d.raw' is empty/);
});

test("the engine is told the name only, the page remembers the file", async () => {
  const template = await templateOfFile(file("a.qcow2", QCOW2));
  expect(templateOptions(template.chain)).toMatchObject({
    file: { driver: "blob", name: "a.qcow2", "read-only": true },
    backing: null,
  });
  expect(templateOptions(template.chain)).not.toHaveProperty("file.size");

  const [source] = blobSources(template);
  expect(() => checkSameFile(source!, file("a.qcow2", QCOW2))).not.toThrow();
  expect(() => checkSameFile(source!, file("a.qcow2", [...QCOW2, 1]))).toThrow(/another file/);
  expect(() => checkSameFile(source!, file("a.qcow2", QCOW2, 2))).toThrow(/changed since/);
  expect(() => checkSameFile(source!, file("b.qcow2", QCOW2))).toThrow(/another file/);
});

test("an overlay without its backing file is refused, not read as zeroes", async () => {
  const { chain } = await templateOfFile(file("a.qcow2", QCOW2));
  expect(() => checkComplete(chain, [opened("template")])).not.toThrow();
  expect(() => checkComplete(chain, [opened("template", "base.raw")])).toThrow(
    /'a.qcow2' is not whole: it needs its backing file 'base.raw'/,
  );
});

function file(name: string, bytes: number[], lastModified = 1): File {
  return new File([Uint8Array.from(bytes)], name, { lastModified });
}

function opened(nodeName: string, backing?: string): NodeInfo {
  const image = { ...(backing !== undefined && { "backing-filename": backing }) };
  return { "node-name": nodeName, image } as Partial<NodeInfo> as NodeInfo;
}
