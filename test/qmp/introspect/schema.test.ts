/** query-qmp-schema: it tells what is there, in QEMU's form, and what QEMU means by it. */

import { readFileSync } from "node:fs";
import * as v from "valibot";
import { describe, expect, it } from "vitest";
import { connectLocally, createNodeEngine } from "../../../src/engine/node.ts";
import { EVENTS } from "../../../src/qmp/events.ts";
import { type SchemaInfo, schemaInfo } from "../../../src/qmp/types.ts";
import { kernelBytes } from "../../kernel/load.ts";
import { compareSchemas } from "./compare.ts";
import { ONLY_OURS, ONLY_THEIRS, UNLIKE } from "./differences.ts";
import { undigest } from "./digest.ts";
import { SchemaGraph } from "./types.ts";

const engine = await createNodeEngine({ kernelBytes: kernelBytes() });
const client = await connectLocally(engine);
const infos = (await client.execute("query-qmp-schema")) as SchemaInfo[];
const ours = new SchemaGraph(infos);
const theirs = new SchemaGraph(
  undigest(readFileSync(new URL("./qemu-10.txt", import.meta.url), "utf8")),
);

describe("query-qmp-schema", () => {
  it("is of the form that it tells of itself, each name once, each type used", () => {
    v.parse(v.array(schemaInfo), infos);
    expect(new Set(infos.map(({ name }) => name)).size).toBe(infos.length);
    const text = JSON.stringify(infos);
    for (const { name, "meta-type": meta } of infos) {
      if (meta === "command" || meta === "event") continue;
      expect([name, text.split(`"${name}"`).length > 2]).toEqual([name, true]);
    }
  });

  it("lists every command and every event", async () => {
    const commands = (await client.execute("query-commands")).map(({ name }) => name);
    expect(ours.all("command").map(({ name }) => name)).toEqual(commands);
    expect(ours.all("event").map(({ name }) => name)).toEqual(Object.keys(EVENTS));
  });

  it("leads to a type wherever a type is named", () => {
    for (const info of infos) {
      const { name: _, ...named } = info;
      for (const [, type] of JSON.stringify(named).matchAll(/"(?:[a-z]+-)?type":"([^"]+)"/g)) {
        if (
          type !== info["meta-type"] &&
          type !== (info as { "json-type"?: string })["json-type"]
        ) {
          ours.get(type!);
        }
      }
    }
  });

  it("answers a walk as a client's probes do it", () => {
    const there = [
      "blockdev-add/arg-type/+qcow2/file",
      "blockdev-add/arg-type/+qcow2/encrypt/+luks/key-secret",
      "blockdev-add/arg-type/+qcow2/backing/+file/filename",
      "blockdev-add/arg-type/read-only",
      "blockdev-add/arg-type/detect-zeroes/^unmap",
      "blockdev-reopen/arg-type/options/+qcow2/backing",
      "blockdev-create/arg-type/options/+qcow2/compression-type/^zstd",
      "block-export-add/arg-type/+nbd/bitmaps",
      "block-export-add/arg-type/writable",
      "transaction/arg-type/actions/+block-dirty-bitmap-merge/data/bitmaps",
      "transaction/arg-type/actions/+blockdev-backup/data/sync/^bitmap",
      "transaction/arg-type/properties/completion-mode/^grouped",
      "block-dirty-bitmap-merge/arg-type/bitmaps/node",
      "query-named-block-nodes/ret-type/image/backing-image/filename",
      "query-named-block-nodes/arg-type/flat",
      "qmp_capabilities/arg-type/enable/^oob",
      "JOB_STATUS_CHANGE/arg-type/status/^concluded",
      "x-blockdev-amend/$unstable",
      "block-commit/arg-type/base/$deprecated",
    ];
    expect(there.filter((path) => !ours.has(path))).toEqual([]);
    const missing = [
      "blockdev-add/arg-type/+luks/file",
      "block-stream/arg-type/nonsense",
      "no-such-command",
      "block-stream/$unstable",
    ];
    expect(missing.filter((path) => ours.has(path))).toEqual([]);
  });
});

describe("the schema of QEMU 10", () => {
  const found = compareSchemas(ours, theirs);

  it.each([
    ["has all that ours has, but for what is listed", found.onlyOurs, ONLY_OURS],
    ["has no members that ours lacks, but for what is listed", found.onlyTheirs, ONLY_THEIRS],
    ["means the same by it, but for what is listed", found.unlike, UNLIKE],
  ])("%s", (_, paths, reasons) => {
    const isListed = (path: string) => reasons.some(([pattern]) => pattern.test(path));
    expect(paths.filter((path) => !isListed(path))).toEqual([]);
    const stale = reasons.filter(([pattern]) => !paths.some((path) => pattern.test(path)));
    expect(stale).toEqual([]);
  });
});
