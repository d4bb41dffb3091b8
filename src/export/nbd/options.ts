/** What each option of the handshake does: a table by number. */

import { writeU16, writeU32, writeU64 } from "../../base/bytes.ts";
import type { NbdExport } from "./export.ts";
import { contextsOf, type MetaContext, matches } from "./meta-contexts.ts";
import type { Negotiation } from "./negotiation.ts";
import {
  decode,
  encode,
  invalid,
  type OptionData,
  OptionError,
  unknownExport,
} from "./option-data.ts";
import {
  BUFFER_BYTES_MAX,
  ExportFlag,
  Info,
  Mode,
  Option,
  OptionReply,
  STRING_BYTES_MAX,
} from "./protocol.ts";
import { HangUp } from "./reader.ts";

/** What comes after an option: the transmission of an export, the next option, or nothing more. */
export type Outcome = NbdExport | "next" | "end";

type Handler = (negotiation: Negotiation, data: OptionData, option: number) => Promise<Outcome>;

export const OPTIONS: ReadonlyMap<number, Handler> = new Map<number, Handler>([
  [Option.exportName, exportName],
  [Option.abort, abort],
  [Option.list, list],
  [Option.startTls, startTls],
  [Option.info, info],
  [Option.go, info],
  [Option.structuredReply, structuredReply],
  [Option.listMetaContext, metaContext],
  [Option.setMetaContext, metaContext],
  [Option.extendedHeaders, extendedHeaders],
]);

/** Has no way to say no but to hang up. */
async function exportName(negotiation: Negotiation, data: OptionData): Promise<NbdExport> {
  const { mode, exports } = negotiation;
  if (mode === Mode.extended) throw new HangUp("Extended headers go with GO");
  if (data.left > STRING_BYTES_MAX) throw new HangUp("The name of the export is too long");
  const [name = ""] = decode(await data.read(data.left)).split("\0");
  const exported = exports.find(name);
  if (!exported) throw new HangUp("There is no such export");
  const answer = new Uint8Array(negotiation.noZeroes ? 10 : 134);
  writeU64(answer, 0, exported.size);
  writeU16(answer, 8, flagsFor(negotiation, exported, false));
  await negotiation.send(answer);
  return exported;
}

/** The client may be gone already. */
async function abort(negotiation: Negotiation): Promise<Outcome> {
  await negotiation.reply(OptionReply.ack);
  return "end";
}

async function list(negotiation: Negotiation, data: OptionData): Promise<Outcome> {
  data.checkEmpty();
  for (const { name, description = "" } of negotiation.exports.all()) {
    const bytes = encode(name);
    const length = new Uint8Array(4);
    writeU32(length, 0, bytes.length);
    await negotiation.reply(OptionReply.server, concat(length, bytes, encode(description)));
  }
  await negotiation.reply(OptionReply.ack);
  return "next";
}

async function startTls(_: Negotiation, data: OptionData): Promise<Outcome> {
  data.checkEmpty();
  throw new OptionError(OptionReply.errPolicy, "There is no TLS here");
}

async function structuredReply(negotiation: Negotiation, data: OptionData): Promise<Outcome> {
  data.checkEmpty();
  if (negotiation.mode === Mode.extended) {
    const { errExtendedHeadersRequired } = OptionReply;
    throw new OptionError(errExtendedHeadersRequired, "Extended headers have been agreed on");
  }
  if (negotiation.mode === Mode.structured) throw invalid("Structured replies are agreed on");
  await negotiation.reply(OptionReply.ack);
  negotiation.mode = Mode.structured;
  return "next";
}

async function extendedHeaders(negotiation: Negotiation, data: OptionData): Promise<Outcome> {
  data.checkEmpty();
  if (negotiation.mode === Mode.extended) throw invalid("Extended headers are agreed on");
  await negotiation.reply(OptionReply.ack);
  negotiation.mode = Mode.extended;
  return "next";
}

/** INFO tells of an export; GO does the same and begins with it. */
async function info(negotiation: Negotiation, data: OptionData, option: number): Promise<Outcome> {
  const name = await data.readString();
  const wanted = new Set<number>();
  for (let count = await data.readU16(); count > 0; count--) wanted.add(await data.readU16());
  data.checkEmpty();
  const exported = negotiation.exports.find(name);
  if (!exported) throw unknownExport(name);

  const tell = (type: number, value: Uint8Array) => {
    const number = new Uint8Array(2);
    writeU16(number, 0, type);
    return negotiation.reply(OptionReply.info, concat(number, value));
  };
  const isInfo = option === Option.info;
  if (wanted.has(Info.name)) await tell(Info.name, encode(name));
  if (exported.description !== undefined) {
    await tell(Info.description, encode(exported.description));
  }
  const obeys = isInfo || wanted.has(Info.blockSize);
  await tell(Info.blockSize, blockSizes(obeys ? exported.alignment : 1));
  const sizeAndFlags = new Uint8Array(10);
  writeU64(sizeAndFlags, 0, exported.size);
  writeU16(sizeAndFlags, 8, flagsFor(negotiation, exported, isInfo));
  await tell(Info.export, sizeAndFlags);
  if (isInfo && !wanted.has(Info.blockSize) && exported.alignment > 1) {
    throw new OptionError(OptionReply.errBlockSizeRequired, "Ask for the block size, and keep it");
  }
  await negotiation.reply(OptionReply.ack);
  return isInfo ? "next" : exported;
}

async function metaContext(
  negotiation: Negotiation,
  data: OptionData,
  option: number,
): Promise<Outcome> {
  const isList = option === Option.listMetaContext;
  if (!isList && negotiation.mode < Mode.structured) {
    throw invalid("Contexts are for those who have agreed on structured replies");
  }
  if (!isList) negotiation.selected = null;
  const name = await data.readString();
  const exported = negotiation.exports.find(name);
  if (!exported) throw unknownExport(name);
  const all = contextsOf(exported);
  const contexts = await readQueries(data, all, isList);
  for (const { id, name } of contexts) {
    const number = new Uint8Array(4);
    writeU32(number, 0, isList ? 0 : id);
    await negotiation.reply(OptionReply.metaContext, concat(number, encode(name)));
  }
  await negotiation.reply(OptionReply.ack);
  if (!isList) negotiation.selected = { exported, contexts };
  return "next";
}

/** @returns those of `all` that a query means; a list without queries is for all of them */
async function readQueries(
  data: OptionData,
  all: readonly MetaContext[],
  isList: boolean,
): Promise<MetaContext[]> {
  const count = await data.readU32();
  if (isList && count === 0) return [...all];
  const meant = new Set<MetaContext>();
  for (let i = 0; i < count; i++) {
    const bytes = await data.readU32();
    if (bytes > STRING_BYTES_MAX) {
      await data.skip(bytes);
      continue;
    }
    const query = await data.readText(bytes);
    for (const context of all) if (matches(query, context, all, isList)) meant.add(context);
  }
  return all.filter((context) => meant.has(context));
}

function flagsFor(negotiation: Negotiation, exported: NbdExport, isInfo: boolean): number {
  const { mode } = negotiation;
  let { flags } = exported;
  if (mode >= Mode.structured) flags |= ExportFlag.sendDf;
  const asksStatus = isInfo || negotiation.contextsFor(exported).length > 0;
  if (mode === Mode.extended && asksStatus) flags |= ExportFlag.blockStatusPayload;
  return flags;
}

/** Least, preferred and most bytes of a request. */
function blockSizes(least: number): Uint8Array {
  const sizes = new Uint8Array(12);
  writeU32(sizes, 0, least);
  writeU32(sizes, 4, Math.max(4096, least));
  writeU32(sizes, 8, BUFFER_BYTES_MAX);
  return sizes;
}

function concat(...parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
