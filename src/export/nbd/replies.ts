/**
 * Answers, in the form that was agreed on:
 *
 *     oldstyle, simple   one simple reply                     an error is a number
 *     structured         chunks for reads, status and errors, else a simple reply
 *     extended           chunks
 *
 * Each answer or chunk is one buffer and one write: those of several requests may lie between each
 * other, but never within.
 */

import { writeU16, writeU32, writeU64 } from "../../base/bytes.ts";
import type { BlockError } from "../../base/errors.ts";
import { errorNumber } from "./errno.ts";
import { encode } from "./option-data.ts";
import {
  Chunk,
  ChunkFlag,
  MAGIC_CHUNK,
  MAGIC_EXTENDED_CHUNK,
  MAGIC_SIMPLE_REPLY,
  Mode,
} from "./protocol.ts";
import type { Request } from "./request.ts";

/** Of a structured error, in bytes. */
const TEXT_BYTES_MAX = 4096;

export class Replies {
  readonly #mode: Mode;
  readonly #send: (bytes: Uint8Array) => Promise<void>;

  constructor(mode: Mode, send: (bytes: Uint8Array) => Promise<void>) {
    this.#mode = mode;
    this.#send = send;
  }

  /** There are chunks. */
  get isStructured(): boolean {
    return this.#mode >= Mode.structured;
  }

  /** Extents have 64 bits. */
  get isExtended(): boolean {
    return this.#mode === Mode.extended;
  }

  /** It is done, and there is nothing more to tell. */
  done(request: Request): Promise<void> {
    if (!this.isExtended) return this.#send(simple(request, 0, 0));
    return this.none(request);
  }

  /** A chunk that says nothing but that it is the last. */
  none(request: Request): Promise<void> {
    return this.#send(this.#chunk(request, Chunk.none, true, 0));
  }

  error(request: Request, error: BlockError): Promise<void> {
    const number = errorNumber(error.errno);
    if (!this.isStructured) return this.#send(simple(request, number, 0));
    const text = encode(error.message).subarray(0, TEXT_BYTES_MAX);
    const bytes = this.#chunk(request, Chunk.error, true, 6 + text.length);
    const at = this.#headerBytes;
    writeU32(bytes, at, number);
    writeU16(bytes, at + 4, text.length);
    bytes.set(text, at + 6);
    return this.#send(bytes);
  }

  /** @param fill puts the data where it is sent from */
  async simpleRead(request: Request, fill: (data: Uint8Array) => Promise<void>): Promise<void> {
    const bytes = simple(request, 0, request.bytes);
    await fill(bytes.subarray(SIMPLE_BYTES));
    await this.#send(bytes);
  }

  /** Data of a read. @param offset,length which part of it */
  async data(
    request: Request,
    offset: number,
    length: number,
    isLast: boolean,
    fill: (data: Uint8Array) => Promise<void>,
  ): Promise<void> {
    const bytes = this.#chunk(request, Chunk.offsetData, isLast, 8 + length);
    writeU64(bytes, this.#headerBytes, offset);
    await fill(bytes.subarray(this.#headerBytes + 8));
    await this.#send(bytes);
  }

  /** A part of a read that is zeroes. */
  hole(request: Request, offset: number, length: number, isLast: boolean): Promise<void> {
    const bytes = this.#chunk(request, Chunk.offsetHole, isLast, 12);
    writeU64(bytes, this.#headerBytes, offset);
    writeU32(bytes, this.#headerBytes + 8, length);
    return this.#send(bytes);
  }

  /** What one context says of a range. */
  extents(
    request: Request,
    context: number,
    extents: readonly { readonly bytes: number; readonly flags: number }[],
    isLast: boolean,
  ): Promise<void> {
    const isWide = this.isExtended;
    const type = isWide ? Chunk.extendedBlockStatus : Chunk.blockStatus;
    const before = isWide ? 8 : 4;
    const each = isWide ? 16 : 8;
    const bytes = this.#chunk(request, type, isLast, before + each * extents.length);
    let at = this.#headerBytes;
    writeU32(bytes, at, context);
    if (isWide) writeU32(bytes, at + 4, extents.length);
    at += before;
    for (const extent of extents) {
      if (isWide) {
        writeU64(bytes, at, extent.bytes);
        writeU64(bytes, at + 8, extent.flags);
      } else {
        writeU32(bytes, at, extent.bytes);
        writeU32(bytes, at + 4, extent.flags);
      }
      at += each;
    }
    return this.#send(bytes);
  }

  get #headerBytes(): number {
    return this.isExtended ? 32 : 20;
  }

  /** A buffer with the header filled in, and room for `payload` bytes. */
  #chunk(request: Request, type: number, isLast: boolean, payload: number): Uint8Array {
    const bytes = new Uint8Array(this.#headerBytes + payload);
    writeU32(bytes, 0, this.isExtended ? MAGIC_EXTENDED_CHUNK : MAGIC_CHUNK);
    writeU16(bytes, 4, isLast ? ChunkFlag.done : 0);
    writeU16(bytes, 6, type);
    bytes.set(request.cookie, 8);
    if (this.isExtended) {
      bytes.set(request.offsetBytes, 16);
      writeU64(bytes, 24, payload);
    } else {
      writeU32(bytes, 16, payload);
    }
    return bytes;
  }
}

const SIMPLE_BYTES = 16;

function simple({ cookie }: Request, error: number, payload: number): Uint8Array {
  const bytes = new Uint8Array(SIMPLE_BYTES + payload);
  writeU32(bytes, 0, MAGIC_SIMPLE_REPLY);
  writeU32(bytes, 4, error);
  bytes.set(cookie, 8);
  return bytes;
}
