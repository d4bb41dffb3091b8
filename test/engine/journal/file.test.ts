/** The journal's record in a file on Node. A test can hold up whoever is about to rename something. */

import { mkdtempSync, rmSync } from "node:fs";
import { rename } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import { emptyRecord } from "../../../src/engine/journal/record.ts";
import { FileJournal } from "../../../src/engine/node-journal.ts";
import { journalSuite } from "../../conformance/journal.ts";

/** Before each rename. */
const gate = { pass: async (_from: string) => {} };

function journalAt(path: string): FileJournal {
  return new FileJournal(path, async (from, to) => {
    await gate.pass(`${from}`);
    await rename(from, to);
  });
}

async function inFolder(work: (path: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "blocktab-journal-"));
  try {
    await work(join(folder, "journal.json"));
  } finally {
    gate.pass = async () => {};
    rmSync(folder, { recursive: true });
  }
}

/** Whoever saves at this epoch stands before its rename until it is let go. */
function holdUp(epoch: number) {
  const { pass } = gate;
  let go = () => {};
  const isOpen = new Promise<void>((resolve) => {
    go = resolve;
  });
  const isThere = new Promise<void>((resolve) => {
    gate.pass = async (from) => {
      if (!from.endsWith(`.${epoch}`)) return pass(from);
      resolve();
      await isOpen;
    };
  });
  return { isThere, go };
}

journalSuite("a file", async () => {
  const folder = mkdtempSync(join(tmpdir(), "blocktab-journal-"));
  return {
    open: () => new FileJournal(join(folder, "journal.json")),
    end: async () => rmSync(folder, { recursive: true }),
  };
});

it("an engine that was held up in the last moment does not undo what a newer one has saved", () =>
  inFolder(async (path) => {
    const [older, newer] = [journalAt(path), journalAt(path)];
    await older.save(emptyRecord(1));
    const last = holdUp(1);
    const refused = expect(older.save(emptyRecord(1))).rejects.toMatchObject({ errno: "ESTALE" });
    await last.isThere;
    await newer.save(emptyRecord(2));
    last.go();
    await refused;
    expect(await newer.load()).toEqual(emptyRecord(2));
  }));

it("an engine that sees a newer one about to save gives way", () =>
  inFolder(async (path) => {
    const [older, newer] = [journalAt(path), journalAt(path)];
    await older.save(emptyRecord(1));
    const last = holdUp(2);
    const saved = newer.save(emptyRecord(2));
    await last.isThere;
    await expect(older.save(emptyRecord(1))).rejects.toMatchObject({ errno: "ESTALE" });
    last.go();
    await saved;
    expect(await newer.load()).toEqual(emptyRecord(2));
  }));

it("what a killed engine was about to save is in nobody's way, however late it was", () =>
  inFolder(async (path) => {
    const last = holdUp(9);
    const lost = journalAt(path).save(emptyRecord(9));
    await last.isThere;
    const next = journalAt(path);
    expect(await next.load()).toBeUndefined();
    await next.save(emptyRecord(1));
    // It was not killed after all: another epoch's record is not for it to remove.
    last.go();
    await lost;
    await expect(next.save(emptyRecord(1))).rejects.toMatchObject({ errno: "ESTALE" });
  }));
