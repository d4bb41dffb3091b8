/**
 * A record in one file that is written in place, whole at every moment: two slots, and what the newer one
 * speaks of is never written over.
 *
 *        0   slot 0: a header                              { count, offset, bytes, sha256 }, as JSON and blanks
 *      512   slot 1: another one, of the record before or after
 *     1024   …   the record of slot 0   …   the record of slot 1   …          in any order, wherever there is room
 *
 *   save   the new record where the present one is not ─▶ its header into the other slot ─▶ flush
 *
 * A kill amid that leaves the present one; a machine that stops may have written any of it, in any order, which
 * is what the hash tells. So the present one must be flushed before anything is written over the one before it,
 * whoever has saved it; and the very first record before its header.
 *
 * No more than three times the longest record is in use. The file is longer, while there is room: a disk that is
 * full stops a job, which must be put on record.
 *
 * For each step the file is opened, by one at a time: so nobody can save between the look at the epoch and the
 * writing, and nothing is held by an engine that stands still.
 */

import { sha256 } from "@noble/hashes/sha2.js";
import { bytesToHex } from "@noble/hashes/utils.js";
import * as v from "valibot";
import { alignUp, KiB } from "../../base/bytes.ts";
import { assert, BlockError } from "../../base/errors.ts";
import type { BlockState } from "../../block/driver.ts";
import type { IntentStore, IntentsRecord } from "../../block/write-intents.ts";
import type { JournalRecord } from "./record.ts";
import { checkEpoch, type JournalStore } from "./store.ts";

const SLOT_BYTES = 512;
const SLOTS = 2;
const FIRST = SLOTS * SLOT_BYTES;
/** The file is made longer by so much at a time. */
const ROOM_BYTES = 64 * KiB;

/** A file that is open, for its owner alone. */
export type SlotFile = Required<
  Pick<BlockState, "getLength" | "pread" | "pwrite" | "truncate" | "flush" | "close">
>;

const header = v.strictObject({
  /** Which save it was. */
  count: v.pipe(v.number(), v.safeInteger(), v.minValue(1)),
  offset: v.pipe(v.number(), v.safeInteger(), v.minValue(FIRST)),
  bytes: v.pipe(v.number(), v.safeInteger(), v.minValue(1)),
  sha256: v.string(),
});
type Header = v.InferOutput<typeof header>;

export class SlotStore implements JournalStore, IntentStore {
  readonly #open: () => Promise<SlotFile>;
  /** The hash of what was saved last here: nobody else has saved if it is still there. */
  #last = "";

  /**
   * @param open opens the file, which it makes if there is none; EBUSY if somebody else has it, after some
   *   patience
   */
  constructor(open: () => Promise<SlotFile>) {
    this.#open = open;
  }

  /** @returns null if the file has something that is no record: it is damaged */
  load(): Promise<unknown> {
    return this.#within(async (file) => (await newest(file, await headersOf(file))).record);
  }

  save(record: JournalRecord | IntentsRecord): Promise<void> {
    return this.#within(async (file) => {
      const headers = await headersOf(file);
      const present = await this.#present(file, headers, record);
      const body = new TextEncoder().encode(JSON.stringify(record));
      const count = (present?.count ?? 0) + 1;
      const place = { count, offset: placeFor(body.length, present), bytes: body.length };
      const hash = hashOf(place, body);
      await file.pwrite(body, place.offset, {});
      if (!present) await file.flush();
      const text = JSON.stringify({ ...place, sha256: hash } satisfies Header);
      const slot = headers.indexOf(present) === 0 ? 1 : 0;
      await file.pwrite(new TextEncoder().encode(text.padEnd(SLOT_BYTES)), slot * SLOT_BYTES, {});
      await file.flush();
      this.#last = hash;
      await makeRoom(file, FIRST + 4 * body.length);
    });
  }

  /** @throws BlockError ESTALE if it is of a later epoch than the record that is to be saved */
  async #present(
    file: SlotFile,
    headers: readonly (Header | null)[],
    record: JournalRecord | IntentsRecord,
  ): Promise<Header | null> {
    const own = headers.find((one) => one !== null && one.sha256 === this.#last);
    const latest = Math.max(...headers.map((one) => one?.count ?? 0));
    if (own?.count === latest) return own;
    const found = await newest(file, headers);
    checkEpoch(found.record, record);
    // Whoever has saved it may have been killed before he had flushed it.
    if (found.header) await file.flush();
    return found.header;
  }

  async #within<T>(work: (file: SlotFile) => Promise<T>): Promise<T> {
    const file = await this.#open();
    try {
      return await work(file);
    } finally {
      await file.close();
    }
  }
}

/** Of each slot; null where none can be read. */
async function headersOf(file: SlotFile): Promise<(Header | null)[]> {
  const length = file.getLength();
  const found = await readAt(file, 0, Math.min(FIRST, length));
  return Array.from({ length: SLOTS }, (_, slot) =>
    headerIn(found.subarray(slot * SLOT_BYTES, (slot + 1) * SLOT_BYTES), length),
  );
}

function headerIn(slot: Uint8Array, length: number): Header | null {
  const found = v.safeParse(header, parsed(slot));
  if (!found.success) return null;
  const { offset, bytes } = found.output;
  return offset + bytes <= length ? found.output : null;
}

/** The one that was saved last and is whole. */
async function newest(
  file: SlotFile,
  headers: readonly (Header | null)[],
): Promise<{ readonly header: Header | null; readonly record: unknown }> {
  const byCount = headers.filter((one) => one !== null).sort((a, b) => b.count - a.count);
  for (const one of byCount) {
    const body = await readAt(file, one.offset, one.bytes);
    if (hashOf(one, body) === one.sha256) {
      return { header: one, record: parsed(body) };
    }
  }
  const isNew = (await readAt(file, 0, Math.min(FIRST, file.getLength()))).every((b) => b === 0);
  return { header: null, record: isNew ? undefined : null };
}

/** For what is to come, ahead of it. */
async function makeRoom(file: SlotFile, bytes: number): Promise<void> {
  if (file.getLength() >= bytes) return;
  try {
    await file.truncate(alignUp(bytes, ROOM_BYTES));
  } catch (error) {
    // The record has been saved, and the next one may do with what there is.
    if (!(error instanceof BlockError)) throw error;
  }
}

/** Before or behind the present one. */
function placeFor(bytes: number, present: Header | null): number {
  if (!present || present.offset - FIRST >= bytes) return FIRST;
  return present.offset + present.bytes;
}

function hashOf({ count, offset, bytes }: Omit<Header, "sha256">, body: Uint8Array): string {
  const hash = sha256.create().update(new TextEncoder().encode(`${count} ${offset} ${bytes}\n`));
  return bytesToHex(hash.update(body).digest());
}

async function readAt(file: SlotFile, offset: number, bytes: number): Promise<Uint8Array> {
  assert(offset + bytes <= file.getLength(), "nothing is read beyond the end");
  const buf = new Uint8Array(bytes);
  if (bytes > 0) await file.pread(buf, offset, {});
  return buf;
}

/** @returns null for what is no JSON */
function parsed(text: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder().decode(text));
  } catch (error) {
    if (error instanceof SyntaxError) return null;
    throw error;
  }
}
