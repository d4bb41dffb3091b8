/**
 * The data of one option as its handler reads it. What a handler does not like it throws as an
 * OptionError: the rest of the data is then passed over, the client is told, and may go on.
 */

import { readU16, readU32 } from "../../base/bytes.ts";
import { shortened } from "./export.ts";
import { OptionReply, STRING_BYTES_MAX } from "./protocol.ts";
import type { ByteReader } from "./reader.ts";

/** Answered with an error reply. */
export class OptionError extends Error {
  /** One of OptionReply's. */
  readonly reply: number;

  constructor(reply: number, message: string) {
    super(message);
    this.reply = reply;
  }
}

export function invalid(message: string): OptionError {
  return new OptionError(OptionReply.errInvalid, message);
}

export function unknownExport(name: string): OptionError {
  return new OptionError(OptionReply.errUnknown, `There is no export '${shortened(name)}'`);
}

export class OptionData {
  readonly #reader: ByteReader;
  /** Bytes that have not been read yet. */
  left: number;

  constructor(reader: ByteReader, bytes: number) {
    this.#reader = reader;
    this.left = bytes;
  }

  /** @throws OptionError if there is less */
  async read(bytes: number): Promise<Uint8Array> {
    this.#spend(bytes);
    return this.#reader.read(bytes);
  }

  async readU16(): Promise<number> {
    return readU16(await this.read(2), 0);
  }

  async readU32(): Promise<number> {
    return readU32(await this.read(4), 0);
  }

  async skip(bytes: number): Promise<void> {
    this.#spend(bytes);
    await this.#reader.skip(bytes);
  }

  /** A length of 32 bits, then the text. @throws OptionError also for one that is too long */
  async readString(): Promise<string> {
    const bytes = await this.readU32();
    if (bytes > STRING_BYTES_MAX) throw invalid(`A name of ${bytes} bytes is too long`);
    return this.readText(bytes);
  }

  /** @param bytes at most STRING_BYTES_MAX */
  async readText(bytes: number): Promise<string> {
    const text = await this.read(bytes);
    if (text.includes(0)) throw invalid("There is a NUL in the text of the option");
    return decode(text);
  }

  /** @throws OptionError if there is anything left */
  checkEmpty(): void {
    if (this.left > 0) throw invalid("The option has data that it should not have");
  }

  #spend(bytes: number): void {
    if (bytes > this.left) throw invalid("The lengths in the option do not fit");
    this.left -= bytes;
  }
}

/** What is not UTF-8 matches no name of ours, whatever it is shown as. */
export function decode(text: Uint8Array): string {
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(text);
}

export function encode(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}
