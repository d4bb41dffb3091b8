/**
 * Reads what a server says, whatever it has been told, and objects to what no server may say: it must
 * stay a stream of whole messages of the protocol. Of simple replies nobody can tell which carry data
 * without knowing what was asked; there it stops listening.
 */

import { readU16, readU32 } from "../../../src/base/bytes.ts";
import {
  BUFFER_BYTES_MAX,
  Chunk,
  MAGIC_CHUNK,
  MAGIC_EXTENDED_CHUNK,
  MAGIC_GREETING,
  MAGIC_OPTION,
  MAGIC_OPTION_REPLY,
  MAGIC_SIMPLE_REPLY,
  Option,
  OptionReply,
} from "../../../src/export/nbd/protocol.ts";
import { hex } from "../../export/nbd/raw-client.ts";
import { SIZE } from "./session.ts";

const GREETING_BYTES = 18;
const PADDING_BYTES = 124;

export class Judge {
  #bytes: Buffer = Buffer.alloc(0);
  /** Of a message that is passed over. */
  #skip = 0;
  #isGreeted = false;
  #isStructured = false;
  /** The answer to EXPORT_NAME may be followed by zeroes. */
  #mayPad = false;
  #isDeaf = false;
  /** What was heard, by kind. */
  readonly #kinds: Map<string, number>;

  constructor(kinds: Map<string, number>) {
    this.#kinds = kinds;
  }

  /** @throws Error */
  hear(piece: Uint8Array): void {
    if (this.#isDeaf) return;
    this.#bytes = Buffer.concat([this.#bytes, piece]);
    while (!this.#isDeaf && this.#message()) {}
  }

  /** @returns false if more has to come first */
  #message(): boolean {
    const skipped = Math.min(this.#skip, this.#bytes.length);
    this.#bytes = this.#bytes.subarray(skipped);
    this.#skip -= skipped;
    if (this.#bytes.length < GREETING_BYTES - (this.#isGreeted ? 8 : 0)) return false;
    if (!this.#isGreeted) return this.#greeting();
    const start = this.#bytes.readBigUInt64BE(0);
    if (this.#mayPad && this.#bytes[0] === 0) return this.#take("padding", PADDING_BYTES);
    if (start === MAGIC_OPTION_REPLY) return this.#optionReply();
    switch (this.#bytes.readUInt32BE(0)) {
      case MAGIC_SIMPLE_REPLY:
        if (!this.#isStructured) this.#isDeaf = true;
        return this.#take(readU32(this.#bytes, 4) === 0 ? "simple reply" : "simple error", 16);
      case MAGIC_CHUNK:
        return this.#chunk(20, 16);
      case MAGIC_EXTENDED_CHUNK:
        return this.#chunk(32, 28);
    }
    if (start !== BigInt(SIZE - (SIZE % 512))) this.#object("a message that nobody knows");
    this.#mayPad = true;
    return this.#take("export", 10);
  }

  #greeting(): boolean {
    const isRight =
      this.#bytes.readBigUInt64BE(0) === MAGIC_GREETING &&
      this.#bytes.readBigUInt64BE(8) === MAGIC_OPTION;
    if (!isRight) this.#object("no greeting");
    this.#isGreeted = true;
    return this.#take("greeting", GREETING_BYTES);
  }

  #optionReply(): boolean {
    if (this.#bytes.length < 20) return false;
    const option = readU32(this.#bytes, 8);
    const isAck = readU32(this.#bytes, 12) === OptionReply.ack;
    if (isAck && (option === Option.structuredReply || option === Option.extendedHeaders)) {
      this.#isStructured = true;
    }
    const length = readU32(this.#bytes, 16);
    if (length > 65536) this.#object(`an option reply of ${length} bytes`);
    const isError = readU32(this.#bytes, 12) >= 0x80000000;
    return this.#take(isError ? "option error" : "option reply", 20 + length);
  }

  #chunk(headerBytes: number, lengthAt: number): boolean {
    if (this.#bytes.length < headerBytes) return false;
    const length = readU32(this.#bytes, lengthAt);
    if (!this.#isStructured) this.#object("a chunk where none was agreed on");
    if (length > BUFFER_BYTES_MAX + 8) this.#object(`a chunk of ${length} bytes`);
    this.#mayPad = false;
    const isError = readU16(this.#bytes, 6) === Chunk.error;
    return this.#take(isError ? "chunk of an error" : "chunk", headerBytes + length);
  }

  #take(kind: string, bytes: number): true {
    this.#kinds.set(kind, (this.#kinds.get(kind) ?? 0) + 1);
    this.#skip = bytes;
    return true;
  }

  #object(what: string): never {
    throw new Error(`The server says ${what}: ${hex(this.#bytes.subarray(0, 40))}`);
  }
}
