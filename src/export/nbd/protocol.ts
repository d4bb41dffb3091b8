/**
 * NBD on the wire: numbers and layouts. All integers are big endian (the NBD project's doc/proto.md,
 * "fixed newstyle"; QEMU: include/block/nbd.h).
 *
 *   handshake       server  "NBDMAGIC" "IHAVEOPT" flags:16
 *                   client  flags:32
 *   option          client  "IHAVEOPT" option:32 length:32 data
 *   option reply    server  0x3e889045565a9:64 option:32 type:32 length:32 data
 *                           … until EXPORT_NAME or GO succeeds, then:
 *
 *                            0     4     6    8          16          24        28/32
 *   request         client  │magic│flags│type│  cookie  │  offset   │ length  │ data of a write
 *   extended request        │ the same, with a length of 64 bits            … 32
 *   simple reply    server  │magic│ error:32 │ cookie   │ data of a read
 *   structured chunk        │magic│flags│type│ cookie   │length:32│ payload      (20 bytes of header)
 *   extended chunk          │magic│flags│type│ cookie   │offset:64│length:64│ payload     (32 bytes)
 */

import { MiB } from "../../base/bytes.ts";

export const MAGIC_GREETING = 0x4e42444d41474943n; // "NBDMAGIC"
export const MAGIC_OPTION = 0x49484156454f5054n; // "IHAVEOPT"
export const MAGIC_OPTION_REPLY = 0x0003e889045565a9n;
export const MAGIC_REQUEST = 0x25609513;
export const MAGIC_EXTENDED_REQUEST = 0x21e41c71;
export const MAGIC_SIMPLE_REPLY = 0x67446698;
export const MAGIC_CHUNK = 0x668e33ef;
export const MAGIC_EXTENDED_CHUNK = 0x6e8a278c;

/** Most bytes that one request may move, and most that an option may carry. */
export const BUFFER_BYTES_MAX = 32 * MiB;
/** Of names, descriptions and queries, in UTF-8. */
export const STRING_BYTES_MAX = 4096;

/** Handshake flags; the client answers with the same bits. */
export const Handshake = { fixedNewstyle: 1, noZeroes: 2 } as const;

export const Option = {
  exportName: 1,
  abort: 2,
  list: 3,
  startTls: 5,
  info: 6,
  go: 7,
  structuredReply: 8,
  listMetaContext: 9,
  setMetaContext: 10,
  extendedHeaders: 11,
} as const;

const ERROR = 0x80000000;

export const OptionReply = {
  ack: 1,
  server: 2,
  info: 3,
  metaContext: 4,
  errUnsupported: ERROR + 1,
  errPolicy: ERROR + 2,
  errInvalid: ERROR + 3,
  errUnknown: ERROR + 6,
  errBlockSizeRequired: ERROR + 8,
  errExtendedHeadersRequired: ERROR + 10,
} as const;

export const Info = { export: 0, name: 1, description: 2, blockSize: 3 } as const;

/** What an export can do: told at the end of the handshake. */
export const ExportFlag = {
  hasFlags: 1 << 0,
  readOnly: 1 << 1,
  sendFlush: 1 << 2,
  sendFua: 1 << 3,
  sendTrim: 1 << 5,
  sendWriteZeroes: 1 << 6,
  sendDf: 1 << 7,
  canMultiConn: 1 << 8,
  sendCache: 1 << 10,
  sendFastZero: 1 << 11,
  blockStatusPayload: 1 << 12,
} as const;

export const Command = {
  read: 0,
  write: 1,
  disconnect: 2,
  flush: 3,
  trim: 4,
  cache: 5,
  writeZeroes: 6,
  blockStatus: 7,
} as const;

export const CommandFlag = {
  /** A crash does not take it back once it is answered. */
  fua: 1 << 0,
  /** Zeroes that keep their room. */
  noHole: 1 << 1,
  /** A read's answer in one piece. */
  dontFragment: 1 << 2,
  /** One extent of each context is enough. */
  oneExtent: 1 << 3,
  /** Zeroes only if that is quicker than writing them. */
  fastZero: 1 << 4,
  /** `length` is that of a payload. */
  payload: 1 << 5,
} as const;

export const ChunkFlag = { done: 1 } as const;

export const Chunk = {
  none: 0,
  /** offset:64, data */
  offsetData: 1,
  /** offset:64, length:32 */
  offsetHole: 2,
  /** context:32, then extents of length:32 flags:32 */
  blockStatus: 5,
  /** context:32, count:32, then extents of length:64 flags:64 */
  extendedBlockStatus: 6,
  /** error:32, length of the text:16, text */
  error: 0x8001,
} as const;

/** Of an extent of base:allocation. */
export const Allocation = { hole: 1, zero: 2 } as const;
/** Of an extent of qemu:dirty-bitmap:NAME. */
export const Dirtiness = { dirty: 1 } as const;

/** How much a client has negotiated; each mode has what those before it have. */
export const Mode = { oldstyle: 0, simple: 1, structured: 2, extended: 3 } as const;
export type Mode = (typeof Mode)[keyof typeof Mode];
