/**
 * The handshake: a client asks for options, one after the other, until it has chosen an export.
 *
 *     greeting ──▶ flags ──▶ options ─┬─ EXPORT_NAME, GO ──▶ transmission
 *                              ▲    │  └─ ABORT, nonsense  ──▶ the end
 *                              └────┘ anything else is answered
 *
 * An old client, without the flag "fixed newstyle", can do nothing but EXPORT_NAME.
 */

import { readU32, writeU16, writeU32 } from "../../base/bytes.ts";
import type { NbdExport } from "./export.ts";
import type { MetaContext } from "./meta-contexts.ts";
import { OptionData, OptionError } from "./option-data.ts";
import { OPTIONS, type Outcome } from "./options.ts";
import {
  BUFFER_BYTES_MAX,
  Handshake,
  MAGIC_GREETING,
  MAGIC_OPTION,
  MAGIC_OPTION_REPLY,
  Mode,
  Option,
  OptionReply,
} from "./protocol.ts";
import { type ByteReader, HangUp } from "./reader.ts";

/** Where clients find exports. */
export interface ExportNames {
  /** Oldest first. */
  all(): readonly NbdExport[];
  find(name: string): NbdExport | undefined;
}

/** What the two have agreed on. */
export interface Agreement {
  readonly exported: NbdExport;
  readonly mode: Mode;
  /** Chosen by SET_META_CONTEXT for this very export. */
  readonly contexts: readonly MetaContext[];
}

export class Negotiation {
  readonly reader: ByteReader;
  readonly exports: ExportNames;
  readonly #send: (bytes: Uint8Array) => Promise<void>;
  mode: Mode = Mode.oldstyle;
  /** EXPORT_NAME's answer ends without padding. */
  noZeroes = false;
  /** Of the last SET_META_CONTEXT, and the export that it was for. */
  selected: { readonly exported: NbdExport; readonly contexts: readonly MetaContext[] } | null =
    null;
  /** The option under way. */
  #option = 0;

  constructor(
    reader: ByteReader,
    exports: ExportNames,
    send: (bytes: Uint8Array) => Promise<void>,
  ) {
    this.reader = reader;
    this.exports = exports;
    this.#send = send;
  }

  /** @returns null if the client has had enough. @throws HangUp; what sending throws */
  async run(): Promise<Agreement | null> {
    await this.#send(greeting());
    const flags = readU32(await this.reader.read(4), 0);
    const { fixedNewstyle, noZeroes } = Handshake;
    if ((flags & ~(fixedNewstyle | noZeroes)) !== 0) throw new HangUp("Unknown client flags");
    if (flags & fixedNewstyle) this.mode = Mode.simple;
    this.noZeroes = (flags & noZeroes) !== 0;
    for (;;) {
      const outcome = await this.#nextOption();
      if (outcome === "end") return null;
      if (outcome === "next") continue;
      return { exported: outcome, mode: this.mode, contexts: this.contextsFor(outcome) };
    }
  }

  contextsFor(exported: NbdExport): readonly MetaContext[] {
    return this.selected?.exported === exported ? this.selected.contexts : [];
  }

  async reply(type: number, data: Uint8Array = new Uint8Array(0)): Promise<void> {
    const bytes = new Uint8Array(20 + data.length);
    new DataView(bytes.buffer).setBigUint64(0, MAGIC_OPTION_REPLY);
    writeU32(bytes, 8, this.#option);
    writeU32(bytes, 12, type);
    writeU32(bytes, 16, data.length);
    bytes.set(data, 20);
    await this.#send(bytes);
  }

  /** Not an option's reply: the answer to EXPORT_NAME. */
  send(bytes: Uint8Array): Promise<void> {
    return this.#send(bytes);
  }

  async #nextOption(): Promise<Outcome> {
    const header = await this.reader.read(16);
    const view = new DataView(header.buffer, header.byteOffset);
    if (view.getBigUint64(0) !== MAGIC_OPTION) throw new HangUp("An option begins with its magic");
    this.#option = readU32(header, 8);
    const bytes = readU32(header, 12);
    if (bytes > BUFFER_BYTES_MAX) throw new HangUp(`An option of ${bytes} bytes is too long`);
    if (this.mode === Mode.oldstyle && this.#option !== Option.exportName) {
      throw new HangUp("An old client can only name its export");
    }
    const data = new OptionData(this.reader, bytes);
    try {
      const handler = OPTIONS.get(this.#option);
      if (handler) return await handler(this, data, this.#option);
      throw new OptionError(OptionReply.errUnsupported, `There is no option ${this.#option}`);
    } catch (error) {
      if (!(error instanceof OptionError)) throw error;
      await data.skip(data.left);
      await this.reply(error.reply, new TextEncoder().encode(error.message));
      return "next";
    }
  }
}

function greeting(): Uint8Array {
  const bytes = new Uint8Array(18);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, MAGIC_GREETING);
  view.setBigUint64(8, MAGIC_OPTION);
  writeU16(bytes, 16, Handshake.fixedNewstyle | Handshake.noZeroes);
  return bytes;
}
