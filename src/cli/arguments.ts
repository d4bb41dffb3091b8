/**
 * From the text of an option to the arguments of the QMP command that the option stands for: JSON as
 * it is, an option list with its strings turned into what the command wants.
 */

import * as v from "valibot";
import { BlockError } from "../base/errors.ts";
import type { Graph } from "../block/graph.ts";
import { openSchema } from "../block/options.ts";
import { throttleLimits } from "../block/throttle-limits.ts";
import type { Engine } from "../engine/engine.ts";
import { fromKeyval } from "./from-keyval.ts";
import { type KeyvalTree, parseKeyval } from "./keyval.ts";

/**
 * @param implied key of a first value that has none
 * @param schema of what comes out, once the tree is known
 * @throws BlockError EINVAL
 */
export function parseArguments(
  text: string,
  implied: string | null,
  schema: (tree: KeyvalTree) => v.GenericSchema,
): Record<string, unknown> {
  if (text.startsWith("{")) return parseJson(text);
  const { tree, help } = parseKeyval(text, implied);
  if (help) throw new BlockError("EINVAL", "There is no help for this option");
  return fromKeyval(schema(tree), tree);
}

function parseJson(text: string): Record<string, unknown> {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new BlockError("EINVAL", `Not valid JSON: ${(error as Error).message}`);
  }
}

/** What the command takes that the option stands for. */
export function schemaFor(engine: Engine, name: string, tree: KeyvalTree): v.GenericSchema {
  if (name === "blockdev-add") return nodeSchema(engine.graph, tree);
  const { args } = engine.command(name);
  // What object-add makes is told by its type; there is one.
  const own: v.ObjectEntries = name === "object-add" ? { limits: throttleLimits } : {};
  return v.looseObject({ ...args, ...own });
}

/** That of the driver, with those of the drivers of nested nodes in it. */
function nodeSchema(graph: Graph, tree: KeyvalTree): v.GenericSchema {
  const { driver } = tree;
  if (typeof driver !== "string") return v.looseObject({});
  return openSchema(
    graph.driver(driver),
    v.lazy((nested) => childSchema(graph, nested)),
  );
}

function childSchema(graph: Graph, nested: unknown): v.GenericSchema {
  if (typeof nested === "string") return v.string();
  return nodeSchema(graph, nested as KeyvalTree);
}
