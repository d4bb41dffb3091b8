import { expect, test } from "vitest";
import {
  checkComplete,
  parseTemplate,
  templateOptions,
  withIdentities,
} from "../../web/template.ts";
import type { NodeInfo } from "../../web/wire.ts";

const BASE = "http://host:1/page/";
const JSON_OF_THREE = {
  name: "top.qcow2",
  "virtual-size": 1048576,
  demo: true,
  chain: [
    { name: "top.qcow2", url: "template/0/top.qcow2", format: "qcow2" },
    {
      name: "mid.qcow2",
      url: "template/1/mid.qcow2",
      format: "qcow2",
      "data-file": { url: "template/1/mid.raw" },
    },
    { url: "/base%20image.raw", format: "raw" },
  ],
};

test("URLs are relative to the page, and a name may come from its URL", () => {
  const template = parseTemplate(JSON_OF_THREE, BASE);
  expect(template).toMatchObject({ name: "top.qcow2", demo: true, virtualSize: 1048576 });
  expect(template.chain.map(({ source }) => source)).toEqual([
    { driver: "http", url: "http://host:1/page/template/0/top.qcow2" },
    { driver: "http", url: "http://host:1/page/template/1/mid.qcow2" },
    { driver: "http", url: "http://host:1/base%20image.raw" },
  ]);
  expect(template.chain[2]!.name).toBe("base image.raw");
});

test("a chain is one nested blockdev-add, and names in headers are never followed", () => {
  expect(templateOptions(parseTemplate(JSON_OF_THREE, BASE).chain)).toEqual({
    driver: "qcow2",
    "node-name": "template",
    "read-only": true,
    file: file("template-file", "http://host:1/page/template/0/top.qcow2"),
    backing: {
      driver: "qcow2",
      "node-name": "template1",
      "read-only": true,
      file: file("template1-file", "http://host:1/page/template/1/mid.qcow2"),
      "data-file": file("template1-data", "http://host:1/page/template/1/mid.raw"),
      backing: {
        driver: "raw",
        "node-name": "template2",
        "read-only": true,
        file: file("template2-file", "http://host:1/base%20image.raw"),
      },
    },
  });
  const alone = parseTemplate({ ...JSON_OF_THREE, chain: [JSON_OF_THREE.chain[0]] }, BASE);
  expect(templateOptions(alone.chain)).toHaveProperty("backing", null);
});

test("what the http nodes found is expected from then on", () => {
  const { chain } = parseTemplate(JSON_OF_THREE, BASE);
  const known = withIdentities(chain, [
    httpNode("template-file", { url: "x", etag: '"a"', "last-modified": "then", length: 9 }),
    httpNode("template1-file", { url: "x", length: 10 }),
    httpNode("template1-data", { url: "x", etag: '"d"' }),
  ]);
  expect(templateOptions(known)).toMatchObject({
    file: { expect: { etag: '"a"', "last-modified": "then", length: 9 } },
    backing: {
      file: { expect: { length: 10 } },
      "data-file": { expect: { etag: '"d"' } },
      backing: { file: { expect: {} } },
    },
  });
});

test("each image but the last must have a backing file, and the last must not", () => {
  const { chain } = parseTemplate(JSON_OF_THREE, BASE);
  const image = (nodeName: string, label?: string) =>
    ({
      "node-name": nodeName,
      image: label === undefined ? {} : { "backing-filename": label },
    }) as Partial<NodeInfo> as NodeInfo;
  const top = image("template", "any");
  const mid = image("template1", "name");
  expect(() => checkComplete(chain, [top, mid, image("template2")])).not.toThrow();
  expect(() => checkComplete(chain, [top, mid, image("template2", "more")])).toThrow(
    /'base image.raw' is not whole: it needs its backing file 'more'/,
  );
  expect(() => checkComplete(chain, [top, image("template1"), image("template2")])).toThrow(
    /'mid.qcow2' has no backing file, but 'base image.raw' is listed as one/,
  );
});

test.each([
  ["no object", [], /'template.json' must be an object/],
  ["no chain", { name: "x", chain: [] }, /at least one image/],
  ["no URL", { name: "x", chain: [{ format: "raw" }] }, /'chain\[0\].url'/],
  ["another format", { name: "x", chain: [{ url: "x", format: "vmdk" }] }, /got 'vmdk'/],
  ["a bad URL", { name: "x", chain: [{ url: "http://", format: "raw" }] }, /'http:\/\/'/],
])("names what is wrong: %s", (_what, json, message) => {
  expect(() => parseTemplate(json, BASE)).toThrow(message);
});

function file(nodeName: string, url: string) {
  return { driver: "http", "node-name": nodeName, "read-only": true, url };
}

function httpNode(nodeName: string, data: object): NodeInfo {
  return {
    "node-name": nodeName,
    image: {
      filename: "",
      format: "http",
      "virtual-size": 0,
      "format-specific": { type: "http", data },
    },
  } as Partial<NodeInfo> as NodeInfo;
}
