/**
 * A request as it comes in, and what is wrong with it. What can be taken in whole is answered, with
 * an error if need be; a client is hung up on where nobody can tell where its next request begins.
 */

import { readU16, readU32 } from "../../base/bytes.ts";
import type { MetaContext } from "./meta-contexts.ts";
import type { Agreement } from "./negotiation.ts";
import {
  BUFFER_BYTES_MAX,
  Command,
  CommandFlag,
  MAGIC_EXTENDED_REQUEST,
  MAGIC_REQUEST,
  Mode,
} from "./protocol.ts";
import type { ByteReader } from "./reader.ts";

export interface Request {
  readonly type: number;
  /** Bits of CommandFlag. */
  readonly flags: number;
  /** The client's own 8 bytes, which its answer carries. */
  readonly cookie: Uint8Array;
  /** The offset's 8 bytes as they came: answers with extended headers carry them, too. */
  readonly offsetBytes: Uint8Array;
  readonly offset: number;
  /** Of a write as long as its data. */
  readonly bytes: number;
  /** The data of a write. */
  readonly data: Uint8Array | null;
  /** Of BLOCK_STATUS. */
  readonly contexts: readonly MetaContext[];
  /** It is answered with this, and nothing is done. */
  readonly refusal: string | null;
  /** After the answer there is nothing more to be understood of this client. */
  readonly isLast: boolean;
}

/** What a command may come with. */
interface CommandKind {
  readonly flags: number;
  /** Moves its bytes through a buffer: only so many. */
  readonly isBounded?: true;
  readonly changes?: true;
}

const { fua, noHole, dontFragment, oneExtent, fastZero, payload } = CommandFlag;

const KINDS: ReadonlyMap<number, CommandKind> = new Map<number, CommandKind>([
  [Command.read, { flags: fua | dontFragment, isBounded: true }],
  [Command.write, { flags: fua | payload, isBounded: true, changes: true }],
  [Command.flush, { flags: fua }],
  [Command.trim, { flags: fua, changes: true }],
  [Command.cache, { flags: fua, isBounded: true }],
  [Command.writeZeroes, { flags: fua | noHole | fastZero, changes: true }],
  [Command.blockStatus, { flags: fua | oneExtent | payload }],
]);

/** Those that are known at all only from a mode on. */
const FLAG_MODES: readonly (readonly [number, Mode])[] = [
  [dontFragment, Mode.structured],
  [payload, Mode.extended],
];

/**
 * @param room waits until the client may take up that many bytes of memory
 * @returns null if the client says goodbye
 * @throws HangUp
 */
export async function receive(
  reader: ByteReader,
  agreement: Agreement,
  room: (bytes: number) => Promise<void>,
): Promise<Request | null> {
  const isExtended = agreement.mode === Mode.extended;
  const header = await reader.read(isExtended ? 32 : 28);
  const type = readU16(header, 6);
  const flags = readU16(header, 4);
  const request = {
    type,
    flags,
    cookie: header.subarray(8, 16),
    offsetBytes: header.subarray(16, 24),
    offset: number64(header, 16),
    bytes: isExtended ? number64(header, 24) : readU32(header, 24),
    data: null,
    contexts: agreement.contexts,
    refusal: null,
    isLast: false,
  };
  const magic = isExtended ? MAGIC_EXTENDED_REQUEST : MAGIC_REQUEST;
  if (readU32(header, 0) !== magic) {
    return { ...request, refusal: "A request begins with its magic", isLast: true };
  }
  if (type === Command.disconnect) return null;

  const kind = KINDS.get(type);
  const { bytes } = request;
  const isWrite = type === Command.write;
  const hasPayload = isWrite || (isExtended && (flags & payload) !== 0);
  const isBounded = kind?.isBounded || hasPayload;
  if (isBounded && bytes > BUFFER_BYTES_MAX) {
    const refusal = `A request of ${bytes} bytes is too long: at most ${BUFFER_BYTES_MAX}`;
    // Its payload is not waited for.
    return { ...request, refusal, isLast: hasPayload };
  }
  if (!hasPayload) return checked(request, agreement, kind);
  if (isWrite) {
    await room(bytes);
    return checked({ ...request, data: await reader.read(bytes) }, agreement, kind);
  }
  if (type === Command.blockStatus) {
    const selection = await readSelection(reader, bytes, agreement);
    return checked({ ...request, ...selection }, agreement, kind);
  }
  await reader.skip(bytes);
  return checked({ ...request, bytes: 0 }, agreement, kind);
}

/** Looks at what has been taken in whole, in QEMU's order. */
function checked(request: Request, agreement: Agreement, kind: CommandKind | undefined): Request {
  return { ...request, refusal: problemOf(request, agreement, kind) };
}

function problemOf(
  { offset, bytes, flags, type }: Request,
  { exported, mode }: Agreement,
  kind: CommandKind | undefined,
): string | null {
  if (kind?.changes && !exported.isWritable) return "The export is read-only";
  if (offset > exported.size || bytes > exported.size - offset) {
    return `${bytes} bytes at ${offset} are not within the ${exported.size} bytes of the export`;
  }
  let valid = kind?.flags ?? fua;
  for (const [flag, from] of FLAG_MODES) if (mode < from) valid &= ~flag;
  if ((flags & ~valid) !== 0) return `Command ${type} does not take the flags ${flags}`;
  return null;
}

/**
 * The payload of a BLOCK_STATUS: the range's real length, and the contexts that are wanted.
 *
 *     │ length:64 │ id:32 │ id:32 │ …
 */
async function readSelection(
  reader: ByteReader,
  payloadBytes: number,
  { contexts }: Agreement,
): Promise<Pick<Request, "bytes" | "contexts">> {
  const none = { bytes: 0, contexts: [] };
  const most = 8 + 4 * contexts.length;
  if (payloadBytes % 4 !== 0 || payloadBytes < 8 || payloadBytes > most) {
    await reader.skip(payloadBytes);
    return none;
  }
  const bytes = await reader.read(payloadBytes);
  const wanted = new Set<number>();
  for (let at = 8; at < payloadBytes; at += 4) {
    const id = readU32(bytes, at);
    if (wanted.has(id) || !contexts.some((context) => context.id === id)) return none;
    wanted.add(id);
  }
  return {
    bytes: number64(bytes, 0),
    contexts: contexts.filter(({ id }) => wanted.has(id)),
  };
}

/** Exact up to 2^53; what is beyond is beyond every disk. */
function number64(bytes: Uint8Array, at: number): number {
  return readU32(bytes, at) * 2 ** 32 + readU32(bytes, at + 4);
}
