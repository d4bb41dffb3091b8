/** Exports: the way to the bytes (QEMU: qapi/block-export.json). */

import * as v from "valibot";
import { command, nothing } from "../schema.ts";
import { blockExportInfo } from "../types.ts";
import { union } from "../union.ts";

const base = {
  id: v.string(),
  "node-name": v.string(),
  writable: v.optional(v.boolean()),
  writethrough: v.optional(v.boolean()),
  iothread: v.optional(v.string()),
  /** Without an iothread it means nothing. */
  "fixed-iothread": v.optional(v.boolean()),
  /** All nodes are active here. */
  "allow-inactive": v.optional(v.boolean()),
};

export const blockExportAdd = command({
  name: "block-export-add",
  doc: "Lets clients read, and with `writable` write, a node; each `type` takes members of its own.",
  args: { type: v.string(), ...base },
  open: true,
  exactArgs: ({ exportOptions }) => union("type", base, exportOptions),
  returns: nothing,
  async run({ exports }, args) {
    const {
      "node-name": nodeName,
      "fixed-iothread": _fixed,
      "allow-inactive": _inactive,
      iothread,
      type,
      id,
      writable,
      writethrough,
      ...own
    } = args;
    await exports.add({ type, id, nodeName, writable, writethrough, iothread }, own);
    return {};
  },
});

export const blockExportDel = command({
  name: "block-export-del",
  doc:
    "Takes an export away; with mode `safe` only if nobody has it open. BLOCK_EXPORT_DELETED tells " +
    "when it is gone.",
  args: { id: v.string(), mode: v.optional(v.picklist(["safe", "hard"])) },
  returns: nothing,
  async run({ exports }, { id, mode = "safe" }) {
    await exports.remove(id, mode === "hard");
    return {};
  },
});

export const queryBlockExports = command({
  name: "query-block-exports",
  doc: "Lists all exports, the newest first.",
  args: {},
  returns: v.array(blockExportInfo),
  run: ({ exports }) =>
    exports.all.map(({ id, type, backend, shuttingDown }) => ({
      id,
      type,
      "node-name": backend.node.name,
      "shutting-down": shuttingDown,
    })),
});
