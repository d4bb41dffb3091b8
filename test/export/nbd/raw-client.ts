/**
 * A client that says what it is told, right or wrong, and writes down what comes back, field by
 * field. Two servers that are told the same must leave the same transcript; sentences are left out.
 */

import { readU16, readU32, writeU16, writeU32 } from "../../../src/base/bytes.ts";
import type { ByteChannel } from "../../../src/base/channel.ts";
import {
  Chunk,
  Info,
  MAGIC_CHUNK,
  MAGIC_EXTENDED_CHUNK,
  MAGIC_EXTENDED_REQUEST,
  MAGIC_OPTION,
  MAGIC_REQUEST,
  MAGIC_SIMPLE_REPLY,
  Option,
  OptionReply,
} from "../../../src/export/nbd/protocol.ts";
import { ByteReader, HangUp } from "../../../src/export/nbd/reader.ts";

export interface RawRequest {
  readonly type: number;
  readonly flags?: number;
  readonly offset?: number | bigint;
  readonly bytes?: number | bigint;
  readonly data?: Uint8Array;
  readonly magic?: number;
}

export class RawClient {
  readonly channel: ByteChannel;
  readonly lines: string[] = [];
  isExtended = false;
  readonly #reader: ByteReader;
  #cookies = 0;

  constructor(channel: ByteChannel) {
    this.channel = channel;
    this.#reader = new ByteReader(channel);
  }

  transcript(): string {
    return `${this.lines.splice(0).join("\n")}\n`;
  }

  /** Writes down `work`'s steps, and whether the server hung up in the middle of it. */
  async until(work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      if (!(error instanceof HangUp)) throw error;
      this.lines.push("hung up");
    }
  }

  async greet(flags = 3): Promise<void> {
    this.lines.push(`greeting ${hex(await this.#reader.read(18))}`);
    await this.send(u32(flags));
  }

  send(bytes: Uint8Array): Promise<void> {
    // What the server has done to the connection is seen when reading.
    return this.channel.write(bytes).catch(() => {});
  }

  async option(number: number, data: Uint8Array = bytes(), length = data.length): Promise<void> {
    this.lines.push(`> option ${number}, ${length} bytes`);
    await this.send(bytes(u64(MAGIC_OPTION), u32(number), u32(length), data));
    if (length === data.length) await this.optionReplies();
  }

  async optionReplies(): Promise<void> {
    for (;;) {
      const header = await this.#reader.read(20);
      const type = readU32(header, 12);
      const data = await this.#reader.read(readU32(header, 16));
      const isError = type >= 0x80000000;
      const shown = isError ? "(text)" : hex(data);
      this.lines.push(
        `${hex(header.subarray(0, 8))} option ${readU32(header, 8)} ` +
          `${isError ? "error " : ""}${type % 0x80000000} ${shown}`,
      );
      if (isError || type === OptionReply.ack) return;
    }
  }

  /** The answer to EXPORT_NAME. */
  async exportName(name: string, length: 10 | 134): Promise<void> {
    const data = text(name);
    this.lines.push(`> export name '${name}'`);
    await this.send(bytes(u64(MAGIC_OPTION), u32(Option.exportName), u32(data.length), data));
    this.lines.push(hex(await this.#reader.read(length)));
  }

  info(option: number, name: string, infos: readonly number[] = []): Promise<void> {
    const wanted = infos.map(u16);
    return this.option(option, bytes(string(name), u16(infos.length), ...wanted));
  }

  go(name: string): Promise<void> {
    return this.info(Option.go, name, [Info.blockSize]);
  }

  contexts(option: number, name: string, queries: readonly string[]): Promise<void> {
    return this.option(option, bytes(string(name), u32(queries.length), ...queries.map(string)));
  }

  /** Sends a request and takes its answer. */
  async request(request: RawRequest): Promise<void> {
    await this.sendRequest(request);
    await this.answer();
  }

  async sendRequest({ type, flags = 0, offset = 0, ...more }: RawRequest): Promise<void> {
    const { data = bytes(), bytes: length = data.length, magic } = more;
    this.lines.push(`> command ${type}, flags ${flags}, ${length} bytes at ${offset}`);
    this.#cookies++;
    const isWide = this.isExtended;
    const own = magic ?? (isWide ? MAGIC_EXTENDED_REQUEST : MAGIC_REQUEST);
    await this.send(
      bytes(
        u32(own),
        u16(flags),
        u16(type),
        u64(BigInt(this.#cookies) << 32n),
        u64(BigInt(offset)),
        isWide ? u64(BigInt(length)) : u32(Number(length)),
        data,
      ),
    );
  }

  /** All of one request's answer. */
  async answer(): Promise<void> {
    while (!(await this.#chunk())) {}
  }

  /** Reads to the end of the connection. */
  async end(): Promise<void> {
    for (;;) this.lines.push(`rest ${hex(await this.#reader.read(1))}`);
  }

  /** For EXPORT_NAME and simple replies to reads: the data has no length of its own. */
  async data(length: number): Promise<void> {
    this.lines.push(`data ${summary(await this.#reader.read(length))}`);
  }

  /** @returns true for the last one */
  async #chunk(): Promise<boolean> {
    const start = await this.#reader.read(16);
    const magic = readU32(start, 0);
    const cookie = hex(start.subarray(8));
    if (magic === MAGIC_SIMPLE_REPLY) {
      this.lines.push(`simple ${cookie} error ${readU32(start, 4)}`);
      return true;
    }
    const isWide = magic === MAGIC_EXTENDED_CHUNK;
    if (!isWide && magic !== MAGIC_CHUNK) throw new Error(`What is this? ${hex(start)}`);
    const rest = await this.#reader.read(isWide ? 16 : 4);
    const payload = await this.#reader.read(readU32(rest, isWide ? 12 : 0));
    const flags = readU16(start, 4);
    const type = readU16(start, 6);
    const where = isWide ? ` at ${hex(rest.subarray(0, 8))}` : "";
    this.lines.push(
      `${isWide ? "wide" : "chunk"} ${cookie}${where} flags ${flags} ${shownChunk(type, payload)}`,
    );
    return flags === 1;
  }
}

function shownChunk(type: number, payload: Uint8Array): string {
  if (type === Chunk.none) return "none";
  if (type === Chunk.error) {
    const length = readU16(payload, 4);
    return `error ${readU32(payload, 0)} ${payload.length === 6 + length ? "(text)" : "WRONG LENGTH"}`;
  }
  if (type === Chunk.offsetData) {
    return `data at ${hex(payload.subarray(0, 8))} ${summary(payload.subarray(8))}`;
  }
  return `type ${type} ${hex(payload)}`;
}

/** Runs of bytes: "4096 x 05, 512 x 00". */
function summary(data: Uint8Array): string {
  const runs: string[] = [];
  for (let at = 0; at < data.length; ) {
    let end = at;
    while (end < data.length && data[end] === data[at]) end++;
    runs.push(`${end - at} x ${data[at]!.toString(16).padStart(2, "0")}`);
    at = end;
  }
  return runs.join(", ");
}

export function u16(value: number): Uint8Array {
  const out = new Uint8Array(2);
  writeU16(out, 0, value);
  return out;
}

export function u32(value: number): Uint8Array {
  const out = new Uint8Array(4);
  writeU32(out, 0, value);
  return out;
}

export function u64(value: bigint): Uint8Array {
  const out = new Uint8Array(8);
  new DataView(out.buffer).setBigUint64(0, value);
  return out;
}

export function text(value: string): Uint8Array {
  return new TextEncoder().encode(value);
}

/** With its length before it. */
export function string(value: string): Uint8Array {
  return bytes(u32(text(value).length), text(value));
}

export function bytes(...parts: readonly Uint8Array[]): Uint8Array {
  return Uint8Array.from(Buffer.concat(parts));
}

export function hex(data: Uint8Array): string {
  return Buffer.from(data).toString("hex");
}
