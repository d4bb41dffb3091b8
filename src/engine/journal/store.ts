/**
 * Where a journal's record is kept, and who may write it.
 *
 *   openJournal()   ── load, epoch + 1, save ──▶  from now on only this one writes
 *
 * An engine whose tab was frozen may wake when another one has taken over: its next save is refused, as
 * the record is of a later epoch. So the epoch is raised before any image is opened.
 */

import { BlockError } from "../../base/errors.ts";
import {
  INTENTS_VERSION,
  type IntentStore,
  isIntentsRecord,
  WriteIntents,
} from "../../block/write-intents.ts";
import { epochOf, isJournalRecord, type JournalRecord, parseRecord, VERSION } from "./record.ts";

/** For people with whose record this program can do nothing. */
export interface RecordWords {
  /** What it is called. */
  readonly what: string;
  /** What to do if a newer program has written it: see checkVersion(). */
  readonly ifNewer: string;
  /** Why what makes no sense is left as it is: see checkOurs(). Without it, it is put aside, and replaced. */
  readonly ifForeign?: string;
}

export interface Worded {
  readonly words?: RecordWords | undefined;
}

export interface JournalStore extends Worded {
  /** What was saved last; undefined if nothing was. @throws BlockError */
  load(): Promise<unknown>;
  /**
   * Replaces it: after a crash there is the old record or the new one, and when this has resolved the
   * new one.
   *
   * @param record JSON, not to be changed any more
   * @throws BlockError ESTALE if the one that is there is of a later epoch: see checkEpoch(); ENOSPC, EIO
   */
  save(record: JournalRecord): Promise<void>;
}

/** For stores: to be asked in one step with the writing. @throws BlockError ESTALE */
export function checkEpoch(stored: unknown, { epoch }: { readonly epoch: number }): void {
  const found = epochOf(stored);
  if (found <= epoch) return;
  throw new BlockError(
    "ESTALE",
    `Another engine has taken over the journal: its epoch is ${found}, this one's is ${epoch}`,
  );
}

/**
 * Before anything is saved: a record of a later version has what this program would lose. One that makes no sense
 * is none.
 *
 * @param known the latest version that this program knows
 * @param store where it was found
 * @throws BlockError EINVAL
 */
export function checkVersion(stored: unknown, known: number, { words }: Worded): void {
  const { version } = (stored ?? {}) as { version?: unknown };
  if (!Number.isSafeInteger(version) || (version as number) <= known) return;
  const { what, ifNewer } = words ?? { what: "the record", ifNewer: "Use that one" };
  throw new BlockError(
    "EINVAL",
    `A newer blocktab has written ${what}: it is of version ${version}, and this one knows version ${known}. ` +
      `It has been left as it is. ${ifNewer}`,
  );
}

/** A name may be that of anything, a disk image even. @throws BlockError EINVAL */
function checkOurs(stored: unknown, isOurs: (stored: unknown) => boolean, { words }: Worded): void {
  if (stored === undefined || words?.ifForeign === undefined || isOurs(stored)) return;
  throw new BlockError("EINVAL", words.ifForeign);
}

/** A journal that is this engine's. */
export interface OpenedJournal {
  readonly store: JournalStore;
  /** As it was found, with the new epoch. */
  readonly record: JournalRecord;
  /** Where images are written, if that is kept: for a Graph's world. */
  readonly intents?: WriteIntents;
  /** To be called when the engine has let go of everything: another one may have it. @throws BlockError */
  readonly release?: () => Promise<void>;
}

/**
 * @param intentStore another store of the same kind, for write intents (docs/write-intent.md). Without it
 *   mirrors begin anew after a crash, and backups and bitmaps are lost
 * @throws BlockError EINVAL if one of them is not for this program to write: nothing is changed then; what the
 *   stores throw
 */
export async function openJournal(
  store: JournalStore,
  intentStore?: IntentStore & Worded,
): Promise<OpenedJournal> {
  const [stored, storedIntents] = [await store.load(), await intentStore?.load()];
  checkVersion(stored, VERSION, store);
  checkVersion(storedIntents, INTENTS_VERSION, intentStore ?? store);
  checkOurs(stored, isJournalRecord, store);
  checkOurs(storedIntents, isIntentsRecord, intentStore ?? store);
  const found = parseRecord(stored);
  // One of the two may be damaged, or gone: the other one still knows how far it has come.
  const latest = Math.max(found.epoch, epochOf(storedIntents));
  const record = { ...found, epoch: latest + 1, seq: found.seq + 1 };
  await store.save(record);
  if (!intentStore) return { store, record };
  const intents = await WriteIntents.load(intentStore, record.epoch);
  // With the new epoch: from now on only this one writes there, too.
  await intents.saved();
  return { store, record, intents };
}
