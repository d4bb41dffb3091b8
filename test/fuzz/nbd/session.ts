/**
 * Good sessions of NBD clients, as the messages that they send: in the manner of qemu-io, of nbdinfo
 * and nbdcopy, of an old kernel, and of one that tries everything. They are what gets mutated.
 */

import {
  Command,
  CommandFlag,
  Info,
  MAGIC_EXTENDED_REQUEST,
  MAGIC_OPTION,
  MAGIC_REQUEST,
  Option,
} from "../../../src/export/nbd/protocol.ts";
import { bytes, string, text, u16, u32, u64 } from "../../export/nbd/raw-client.ts";
import type { Dice } from "../../model/dice.ts";

/** Of the export that is fuzzed. */
export const EXPORT = "fuzz";
export const SIZE = 1024 * 1024 + 512;

/** As it goes over the wire; numbers in it that say how long something is. */
export interface Message {
  readonly data: Uint8Array;
  /** Offset and width of each length. */
  readonly lengths: readonly (readonly [offset: number, width: 4 | 8])[];
}

type Mode = "simple" | "structured" | "extended";

const CONTEXTS = [
  "base:allocation",
  "qemu:allocation-depth",
  "qemu:dirty-bitmap:b0",
  "base:",
  "qemu:",
];

export function goodSession(dice: Dice): Message[] {
  return dice.pick([copier, inspector, oldKernel, everything, everything])(dice);
}

/** qemu-io, qemu-img: INFO first, then GO, with all that it can get. */
function copier(dice: Dice): Message[] {
  const infos = [Info.name, Info.blockSize];
  return [
    flags(3),
    option(Option.structuredReply),
    contexts(Option.setMetaContext, ["base:allocation"]),
    info(Option.go, EXPORT, infos),
    ...requests(dice, "structured", 8),
    request("structured", Command.disconnect, 0, 0, 0),
  ];
}

/** nbdinfo, nbdcopy. */
function inspector(dice: Dice): Message[] {
  return [
    flags(3),
    option(Option.extendedHeaders),
    option(Option.list),
    contexts(Option.listMetaContext, []),
    info(Option.info, EXPORT, [Info.description, Info.blockSize]),
    contexts(Option.setMetaContext, dice.oneIn(2) ? ["base:"] : CONTEXTS.slice(0, 3)),
    info(Option.go, EXPORT, [Info.name, Info.description, Info.blockSize]),
    ...requests(dice, "extended", 12),
    request("extended", Command.disconnect, 0, 0, 0),
  ];
}

function oldKernel(dice: Dice): Message[] {
  const handshake = dice.below(4);
  return [
    flags(handshake),
    option(Option.exportName, text(EXPORT)),
    ...requests(dice, "simple", 8),
    request("simple", Command.disconnect, 0, 0, 0),
  ];
}

/** Every option, every command, with every flag that goes with it. */
function everything(dice: Dice): Message[] {
  const mode = dice.pick<Mode>(["simple", "structured", "extended"]);
  const messages = [flags(3)];
  if (mode === "structured") messages.push(option(Option.structuredReply));
  if (mode === "extended") messages.push(option(Option.extendedHeaders));
  for (let i = dice.below(8); i > 0; i--) messages.push(anyOption(dice, mode));
  messages.push(info(Option.go, EXPORT, []), ...requests(dice, mode, 30));
  if (dice.oneIn(2)) messages.push(request(mode, Command.disconnect, 0, 0, 0));
  return messages;
}

function anyOption(dice: Dice, mode: Mode): Message {
  const queries = CONTEXTS.filter(() => dice.oneIn(2));
  switch (dice.below(6)) {
    case 0:
      return option(Option.list);
    case 1:
      return option(Option.startTls);
    case 2:
      return option(50 + dice.below(100), text("of a later time"));
    case 3:
      return info(Option.info, dice.pick([EXPORT, "", "nobody"]), [dice.below(5), dice.below(5)]);
    case 4:
      return contexts(Option.listMetaContext, queries);
    default:
      return contexts(mode === "simple" ? Option.listMetaContext : Option.setMetaContext, queries);
  }
}

function requests(dice: Dice, mode: Mode, most: number): Message[] {
  return Array.from({ length: 1 + dice.below(most) }, () => anyRequest(dice, mode));
}

function anyRequest(dice: Dice, mode: Mode): Message {
  const { fua, noHole, dontFragment, oneExtent, fastZero, payload } = CommandFlag;
  const longest = dice.oneIn(8) ? 300_000 : 5000;
  const offset = dice.below(SIZE);
  const length = dice.below(Math.min(longest, SIZE - offset) + 1);
  const maybe = (flag: number) => (dice.oneIn(3) ? flag : 0);
  const { read, write, flush, trim, cache, writeZeroes, blockStatus } = Command;
  const type = dice.pick([read, read, write, write, flush, trim, cache, writeZeroes, blockStatus]);
  switch (type) {
    case read: {
      const flag = mode === "simple" ? 0 : maybe(dontFragment);
      return request(mode, type, flag, offset, length);
    }
    case write: {
      const flag = maybe(fua) | (mode === "extended" ? payload : 0);
      const data = new Uint8Array(length).fill(dice.below(256));
      return request(mode, type, flag, offset, length, data);
    }
    case flush:
      return request(mode, type, 0, 0, 0);
    case writeZeroes: {
      const flag = maybe(fua) | maybe(noHole) | maybe(fastZero);
      return request(mode, type, flag, offset, length);
    }
    case blockStatus: {
      if (mode !== "extended" || dice.oneIn(2)) {
        return request(mode, type, maybe(oneExtent), offset, length);
      }
      const data = bytes(u64(BigInt(length)), u32(dice.below(3)));
      return request(mode, type, payload, offset, data.length, data);
    }
    default:
      return request(mode, type, maybe(fua), offset, length);
  }
}

/**
 * Reads of the whole disk in the manner of another request, none if it is not one: with the flag by
 * which also zeroes are sent, and without it for those who do not know that.
 */
export function greedy({ data, lengths }: Message): Message[] {
  const [, last] = lengths;
  if (lengths[0]?.[0] !== 16 || last?.[0] !== 24) return [];
  const length = SIZE - (SIZE % 512);
  return [CommandFlag.dontFragment, 0].map((flag) => ({
    data: bytes(
      data.slice(0, 4),
      u16(flag),
      u16(Command.read),
      data.slice(8, 16),
      u64(0n),
      last[1] === 8 ? u64(BigInt(length)) : u32(length),
    ),
    lengths,
  }));
}

function flags(value: number): Message {
  return { data: u32(value), lengths: [] };
}

/** @param lengths offsets of those in the data */
function option(number: number, data = bytes(), lengths: readonly number[] = []): Message {
  return {
    data: bytes(u64(MAGIC_OPTION), u32(number), u32(data.length), data),
    lengths: [[12, 4], ...lengths.map((at) => [16 + at, 4] as const)],
  };
}

function info(number: number, name: string, infos: readonly number[]): Message {
  const data = bytes(string(name), u16(infos.length), ...infos.map(u16));
  return option(number, data, [0]);
}

function contexts(number: number, queries: readonly string[]): Message {
  const count = 4 + text(EXPORT).length;
  const data = bytes(string(EXPORT), u32(queries.length), ...queries.map(string));
  return option(number, data, queries.length > 0 ? [0, count, count + 4] : [0, count]);
}

function request(
  mode: Mode,
  type: number,
  flags: number,
  offset: number,
  length: number,
  data = bytes(),
): Message {
  const isWide = mode === "extended";
  return {
    data: bytes(
      u32(isWide ? MAGIC_EXTENDED_REQUEST : MAGIC_REQUEST),
      u16(flags),
      u16(type),
      u64((BigInt(type) << 32n) + BigInt(offset)),
      u64(BigInt(offset)),
      isWide ? u64(BigInt(length)) : u32(length),
      data,
    ),
    lengths: [[16, 8], isWide ? [24, 8] : [24, 4]],
  };
}
