/**
 * The worker of a tab that shares its disks with other tabs: when its turn comes, the engine with its journal,
 * recovered before anybody is served, and the driver of domains beside it.
 *
 * What nobody caught is our bug, and stops the engine: every client is told why.
 */

import { throwIfAborted } from "../base/errors.ts";
import { createBrowserEngine } from "../engine/browser-engine.ts";
import { openRecord } from "../engine/browser-records.ts";
import type { Engine } from "../engine/engine.ts";
import { openJournal } from "../engine/journal/store.ts";
import { runCandidate } from "../engine/tabs/run-candidate.ts";
import { domainRealm } from "./realm.ts";
import { DOMAINS } from "./store.ts";

let engine: Engine | null = null;

runCandidate(async (opening) => {
  const journal = await openJournal(await openRecord("journal"), await openRecord("intents"));
  engine = await createBrowserEngine(new Map(opening.blobs), journal);
  opening.tell("Bringing back what was open before");
  try {
    await engine.recover();
    throwIfAborted(opening.signal);
    return await domainRealm(engine, opening, await openRecord(DOMAINS));
  } catch (error) {
    // What is half open must not keep the files from the next owner.
    await engine.suspend();
    throw error;
  }
});
addEventListener("unhandledrejection", ({ reason }) => engine?.stop(reason));
addEventListener("error", ({ error, message }) => engine?.stop(error ?? message));
