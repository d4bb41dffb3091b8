/**
 * A tab's worker that shares a plain engine, without domains: for tests, and for who wants QMP alone.
 *
 * What nobody caught is our bug, and stops the engine: every client is told why.
 */

import { createBrowserEngine } from "../browser-engine.ts";
import type { Engine } from "../engine.ts";
import { engineRealm } from "./realm.ts";
import { runCandidate } from "./run-candidate.ts";

let engine: Engine | null = null;

runCandidate(async (opening) => {
  engine = await createBrowserEngine(new Map(opening.blobs));
  return engineRealm(engine, opening);
});
addEventListener("unhandledrejection", ({ reason }) => engine?.stop(reason));
addEventListener("error", ({ error, message }) => engine?.stop(error ?? message));
