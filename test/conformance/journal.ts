/** What every store of a journal's record has to do: docs/journal.md. */

import { describe, expect, it } from "vitest";
import type { IntentStore } from "../../src/block/write-intents.ts";
import { emptyRecord, type JournalRecord } from "../../src/engine/journal/record.ts";
import { type JournalStore, openJournal } from "../../src/engine/journal/store.ts";

export interface JournalPlace {
  /** One more engine's way to the same record. */
  open(): JournalStore & IntentStore;
  end(): Promise<void>;
}

/** @param make a place where nothing has been saved */
export function journalSuite(name: string, make: () => Promise<JournalPlace>): void {
  const at = (epoch: number, seq = 0): JournalRecord => ({ ...emptyRecord(epoch), seq });

  describe(`the journal's record in ${name}`, () => {
    async function within(work: (place: JournalPlace) => Promise<void>): Promise<void> {
      const place = await make();
      try {
        await work(place);
      } finally {
        await place.end();
      }
    }

    it("is nothing at first", () =>
      within(async ({ open }) => {
        expect(await open().load()).toBeUndefined();
      }));

    it("is what was saved last, as a whole, for whoever loads it", () =>
      within(async ({ open }) => {
        const store = open();
        const broken = [
          { kind: "record" as const, name: "", why: "?", entry: "é\u0000".repeat(9) },
        ];
        await store.save({ ...at(1, 1), broken });
        expect(await open().load()).toEqual({ ...at(1, 1), broken });
        await store.save(at(1, 2));
        expect(await open().load()).toEqual(at(1, 2));
        expect(await store.load()).toEqual(at(1, 2));
      }));

    it("is not written over by an older engine, which is told; the newer one goes on", () =>
      within(async ({ open }) => {
        const [older, newer] = [open(), open()];
        await older.save(at(1));
        await newer.save(at(2));
        await expect(older.save(at(1, 9))).rejects.toMatchObject({ errno: "ESTALE" });
        expect(await older.load()).toEqual(at(2));
        await newer.save(at(2, 1));
        expect(await open().load()).toEqual(at(2, 1));
      }));

    it("is the newer engine's whatever comes together: the older one's save is there before, or refused", () =>
      within(async ({ open }) => {
        const [older, newer] = [open(), open()];
        for (let epoch = 1; epoch < 40; epoch += 2) {
          await older.save(at(epoch));
          const order: string[] = [];
          const steps = {
            older: async () => {
              for (let seq = 1; seq < 4; seq++) await older.save(at(epoch, seq));
            },
            newer: () => newer.save(at(epoch + 1)),
          };
          const save = (name: keyof typeof steps) =>
            steps[name]().then(
              () => order.push(`${name} saved`),
              ({ errno }) => order.push(`${name} ${errno}`),
            );
          const first =
            epoch % 4 === 1 ? (["older", "newer"] as const) : (["newer", "older"] as const);
          await Promise.all(first.map(save));
          expect([
            "older saved,newer saved",
            "older ESTALE,newer saved",
            "newer saved,older ESTALE",
          ]).toContain(`${order}`);
          expect(await open().load()).toEqual(at(epoch + 1));
        }
      }));

    it("is left alone if a newer program has written it, or the one beside it, and people are told", () =>
      within(async ({ open }) => {
        const newer = { ...at(3, 4), version: 2, more: ["than is known"] };
        await open().save(newer as never);
        const refused = {
          errno: "EINVAL",
          message: expect.stringMatching(
            /newer blocktab has written .* version 2, .* version 1\. /,
          ),
        };
        await expect(openJournal(open())).rejects.toMatchObject(refused);
        let isWritten = false;
        const journal: JournalStore = {
          load: async () => at(3, 4),
          async save() {
            isWritten = true;
          },
        };
        await expect(openJournal(journal, open())).rejects.toMatchObject(refused);
        expect(isWritten).toBe(false);
        expect(await open().load()).toEqual(newer);
      }));

    it("belongs to the engine that has opened the journal last", () =>
      within(async ({ open }) => {
        const first = await openJournal(open());
        const second = await openJournal(open());
        expect(second.record.epoch).toBe(first.record.epoch + 1);
        await expect(first.store.save(first.record)).rejects.toMatchObject({ errno: "ESTALE" });
        await second.store.save(second.record);
      }));
  });
}
