/** The journal's record in a file on Node. A test can hold up whoever is about to rename something. */

import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { rename } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { describe, expect, it } from "vitest";
import { GiB } from "../../../src/base/bytes.ts";
import { emptyRecord } from "../../../src/engine/journal/record.ts";
import { openJournal } from "../../../src/engine/journal/store.ts";
import { FileJournal, openFileJournal } from "../../../src/engine/node-journal.ts";
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

describe("a file that is no record of ours", () => {
  const foreign: Record<string, string | Uint8Array> = {
    "an image": new Uint8Array([0x51, 0x46, 0x49, 0xfb, 0, 0, 0, 3]),
    text: "To do: make a backup\n",
    "half a record": JSON.stringify(emptyRecord(3)).slice(0, -9),
    "JSON of others": '{"version":"1.2","private":true}',
    "JSON that begins as ours does": '{"version":1,"epoch":7,"rows":[]}',
  };
  const refused = {
    errno: "EINVAL",
    message: expect.stringMatching(/is no journal, or a damaged one/),
  };

  it.each(Object.entries(foreign))("is left as it is, in the place of either: %s", (_name, bytes) =>
    inFolder(async (path) => {
      for (const name of [path, `${path}.intents`]) {
        writeFileSync(name, bytes);
        const beside = `${name}.new.4`;
        writeFileSync(beside, "of whoever has made it");
        await expect(openFileJournal(path)).rejects.toMatchObject({
          ...refused,
          message: expect.stringContaining(`'${name}' is no journal`),
        });
        expect(readFileSync(name)).toEqual(Buffer.from(bytes));
        const left = readdirSync(dirname(path)).filter((one) => !one.includes(".new."));
        expect(left).toEqual([basename(name)]);
        rmSync(beside, { force: true });
        rmSync(name);
      }
    }),
  );

  it("is not read, however large it is or says it is one, and a folder is none either", () =>
    inFolder(async (path) => {
      writeFileSync(path, JSON.stringify(emptyRecord(3)));
      truncateSync(path, 500 * GiB);
      await expect(openFileJournal(path)).rejects.toMatchObject(refused);
      expect(statSync(path).size).toBe(500 * GiB);
      rmSync(path);
      mkdirSync(path);
      await expect(openFileJournal(path)).rejects.toMatchObject(refused);
    }));

  it("takes a record of the one kind for none of the other", () =>
    inFolder(async (path) => {
      await (await openFileJournal(path)).release?.();
      await expect(openFileJournal(`${path}.intents`)).rejects.toMatchObject(refused);
    }));

  it("is none if it is empty, or one of ours in which an entry is broken", () =>
    inFolder(async (path) => {
      writeFileSync(path, "");
      await (await openFileJournal(path)).release?.();
      const { version, epoch, ...more } = emptyRecord(3);
      writeFileSync(
        path,
        JSON.stringify({ version, epoch, ...more, jobs: [{ id: "j" }] }, null, 2),
      );
      const intents = JSON.parse(readFileSync(`${path}.intents`, "utf8"));
      writeFileSync(`${path}.intents`, JSON.stringify({ ...intents, records: { i1: 7 } }));
      const { record, release } = await openFileJournal(path);
      expect(record.broken).toMatchObject([{ kind: "job", name: "j" }]);
      await release?.();
    }));

  it("is not replaced either when it comes into the place of a record later", () =>
    inFolder(async (path) => {
      const { store, record } = await openJournal(new FileJournal(path));
      rmSync(path);
      writeFileSync(path, "somebody's");
      await expect(store.save(record)).rejects.toMatchObject(refused);
      expect(readFileSync(path, "utf8")).toBe("somebody's");
    }));
});
