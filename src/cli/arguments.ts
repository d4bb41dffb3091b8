/**
 * From the text of an option to the arguments of the QMP command that the option stands for: JSON as
 * it is, an option list with its strings turned into what the command wants.
 */

import * as v from "valibot";
import { check } from "../base/check.ts";
import { BlockError } from "../base/errors.ts";
import type { Graph } from "../block/graph.ts";
import { openSchema } from "../block/options.ts";
import { throttleLimits } from "../block/throttle-limits.ts";
import type { Engine } from "../engine/engine.ts";
import { type JsonItem, JsonReader } from "../qmp/json/reader.ts";
import { inetSocketAddress, unixSocketAddress } from "../qmp/socket-address.ts";
import { fromKeyval } from "./from-keyval.ts";
import { type KeyvalTree, parseKeyval } from "./keyval.ts";

/**
 * @param implied key of a first value that has none
 * @param schemaOf of what is to come out, told from the strings
 * @throws BlockError EINVAL
 */
export function parseArguments(
  text: string,
  implied: string | null,
  schemaOf: (tree: KeyvalTree) => v.GenericSchema,
): Record<string, unknown> {
  if (text.startsWith("{")) return parseJson(text);
  const { tree, help } = parseKeyval(text, implied);
  if (help) throw new BlockError("EINVAL", "There is no help for this option");
  return fromKeyval(schemaOf(tree), tree);
}

/** Follows the text, and comes out by itself if that was one whole value. */
const SENTINEL = 0;

function parseJson(text: string): Record<string, unknown> {
  const reader = new JsonReader();
  reader.take(new TextEncoder().encode(`${text}\n${SENTINEL}\n`));
  const items: JsonItem[] = [];
  for (let item = reader.next(); item; item = reader.next()) items.push(item);
  const [first, second] = items;
  if (!first) throw new BlockError("EINVAL", "JSON parse error, premature end");
  if ("error" in first) throw first.error;
  const isAlone = items.length === 2 && second && "value" in second && second.value === SENTINEL;
  if (!isAlone) throw new BlockError("EINVAL", "JSON parse error, expected one value");
  return first.value as Record<string, unknown>;
}

/** What an option takes that stands for this command. */
export function schemaFor(engine: Engine, name: string, tree: KeyvalTree): v.GenericSchema {
  if (name === "blockdev-add") return nodeSchema(engine.graph, tree);
  return v.looseObject({ ...engine.command(name).args, ...ownMembers(engine, name, tree) });
}

/** Those of what is made, where that is told by a type. */
function ownMembers(engine: Engine, name: string, tree: KeyvalTree): v.ObjectEntries {
  if (name === "object-add") return { limits: throttleLimits };
  if (name === "nbd-server-start") return { addr: socketAddress };
  const found = engine.exports.types.find(({ type }) => type === tree["type"]);
  return found?.options ?? {};
}

/** QEMU's SocketAddress, as command lines have it: flat. */
const socketAddress = v.variant("type", [
  v.strictObject({ type: v.literal("inet"), ...inetSocketAddress.entries }),
  v.strictObject({ type: v.literal("unix"), ...unixSocketAddress.entries }),
]);

/** --nbd-server's arguments as nbd-server-start takes them, whose address is the older, nested one. */
export function nestAddress(args: Record<string, unknown>): Record<string, unknown> {
  if (!("addr" in args)) return args;
  const { type, ...data } = check(socketAddress, args["addr"], "addr");
  return { ...args, addr: { type, data } };
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
