/** A tab's worker whose engine has one disk, made by the first owner of all. */

import { createBrowserEngine } from "../../../../src/engine/browser-engine.ts";
import type { Engine } from "../../../../src/engine/engine.ts";
import { engineRealm } from "../../../../src/engine/tabs/realm.ts";
import { runCandidate } from "../../../../src/engine/tabs/run-candidate.ts";
import { DISK, DISK_BYTES } from "../plan.ts";

runCandidate(async (opening) => {
  const engine = await createBrowserEngine(new Map(opening.blobs));
  addEventListener("unhandledrejection", ({ reason }) => engine.stop(reason));
  try {
    await openDisk(engine);
  } catch (error) {
    // What is half open must not keep the file from the next owner.
    await engine.close();
    throw error;
  }
  return engineRealm(engine, opening);
});

async function openDisk(engine: Engine): Promise<void> {
  const file = { driver: "opfs", filename: DISK };
  if (!(await isThere())) {
    await create(engine, { ...file, size: 0 });
    await engine.execute("blockdev-add", { ...file, "node-name": "new" });
    await create(engine, { driver: "qcow2", file: "new", size: DISK_BYTES, "cluster-size": 4096 });
    await engine.execute("blockdev-del", { "node-name": "new" });
  }
  await engine.execute("blockdev-add", { driver: "qcow2", "node-name": "disk", file });
  await engine.execute("block-export-add", {
    type: "message-port",
    id: "d",
    "node-name": "disk",
    writable: true,
  });
}

async function isThere(): Promise<boolean> {
  const root = await navigator.storage.getDirectory();
  const folder = await root.getDirectoryHandle("blocktab", { create: true });
  for await (const name of folder.keys()) if (name === DISK) return true;
  return false;
}

async function create(engine: Engine, options: object): Promise<void> {
  await engine.execute("blockdev-create", { "job-id": "make", options });
  await engine.jobs.get("make").finished;
  await engine.execute("job-dismiss", { id: "make" });
}
