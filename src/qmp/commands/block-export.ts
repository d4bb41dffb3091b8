/**
 * Exports: the way to the bytes. QEMU's commands with one type of our own, message-port, in the
 * place of nbd and its like (QEMU: qapi/block-export.json).
 */

import * as v from "valibot";
import { EXPORT_TYPE } from "../exports.ts";
import { command, nothing } from "../schema.ts";
import { blockExportInfo } from "../types.ts";

export const blockExportAdd = command({
  name: "block-export-add",
  doc: "Lets clients read, and with `writable` write, a node; the export is a device of that name.",
  args: {
    type: v.picklist([EXPORT_TYPE]),
    id: v.string(),
    "node-name": v.string(),
    writable: v.optional(v.boolean()),
  },
  returns: nothing,
  run({ exports }, args) {
    exports.add({ id: args.id, nodeName: args["node-name"], writable: args.writable });
    return {};
  },
});

export const blockExportDel = command({
  name: "block-export-del",
  doc: "Takes an export away; with mode `safe` only if nobody has it open.",
  args: { id: v.string(), mode: v.optional(v.picklist(["safe", "hard"])) },
  returns: nothing,
  async run({ exports }, { id, mode = "safe" }) {
    await exports.remove(id, mode === "hard");
    return {};
  },
});

export const queryBlockExports = command({
  name: "query-block-exports",
  doc: "Lists all exports.",
  args: {},
  returns: v.array(blockExportInfo),
  run: ({ exports }) =>
    exports.all.map(({ id, backend, shuttingDown }) => ({
      id,
      type: EXPORT_TYPE,
      "node-name": backend.node.name,
      "shutting-down": shuttingDown,
    })),
});
