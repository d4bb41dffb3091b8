/**
 * From the text of an option to the arguments of the QMP command that the option stands for: JSON as
 * it is, an option list with its strings turned into what the command wants.
 */

import * as v from "valibot";
import { check } from "../base/check.ts";
import { BlockError } from "../base/errors.ts";
import { fromKeyval } from "../base/from-keyval.ts";
import { parseKeyval } from "../base/keyval.ts";
import type { Engine } from "../engine/engine.ts";
import { type JsonItem, JsonReader } from "../qmp/json/reader.ts";
import { inetSocketAddress, unixSocketAddress } from "../qmp/socket-address.ts";

/**
 * @param implied key of a first value that has none
 * @param schema of what is to come out
 * @throws BlockError EINVAL
 */
export function parseArguments(
  text: string,
  implied: string | null,
  schema: v.GenericSchema,
): Record<string, unknown> {
  if (text.startsWith("{")) return parseJson(text);
  const { tree, help } = parseKeyval(text, implied);
  if (help) throw new BlockError("EINVAL", "There is no help for this option");
  return fromKeyval(schema, tree);
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

/** QEMU's SocketAddress, as command lines have it: flat. */
const socketAddress = v.variant("type", [
  v.strictObject({ type: v.literal("inet"), ...inetSocketAddress.entries }),
  v.strictObject({ type: v.literal("unix"), ...unixSocketAddress.entries }),
]);

/** What --nbd-server takes. */
export function nbdServerSchema(engine: Engine): v.GenericSchema {
  return v.strictObject({ ...engine.command("nbd-server-start").args, addr: socketAddress });
}

/** --nbd-server's arguments as nbd-server-start takes them, whose address is the older, nested one. */
export function nestAddress(args: Record<string, unknown>): Record<string, unknown> {
  if (!("addr" in args)) return args;
  const { type, ...data } = check(socketAddress, args["addr"], "addr");
  return { ...args, addr: { type, data } };
}
