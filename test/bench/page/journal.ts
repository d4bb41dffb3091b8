/**
 * A job of a whole engine in this worker, with a journal in OPFS or without one: all data of one image in OPFS into
 * another, without a speed limit, and compared when the clock has stopped.
 */

import { getLength } from "../../../src/block/io.ts";
import { createBrowserEngine } from "../../../src/engine/browser-engine.ts";
import { openRecord } from "../../../src/engine/browser-records.ts";
import { Client } from "../../../src/engine/client.ts";
import { openJournal } from "../../../src/engine/journal/store.ts";
import { localPorts } from "../../../src/engine/local-port.ts";
import { makeServices } from "./engine.ts";
import { compareImages, image, makeImage, opfs } from "./images.ts";
import { removeFile, type Timed } from "./raw-io.ts";

const TARGET = "target.qcow2";

export interface JournalArgument {
  readonly command: "block-stream" | "blockdev-mirror" | "blockdev-backup";
  /** qcow2 in OPFS. */
  readonly source: string;
  readonly isKept: boolean;
}

export async function journalJob({ command, source, isKept }: JournalArgument): Promise<Timed> {
  const { graph } = await makeServices();
  const base = await graph.add(image("base", opfs(source), true));
  const isStream = command === "block-stream";
  await makeImage(graph, TARGET, getLength(base), isStream ? "base.qcow2" : undefined);
  await graph.remove("base");

  const records = isKept && [await openRecord("journal"), await openRecord("intents")];
  const journal = records ? await openJournal(records[0]!, records[1]!) : undefined;
  const engine = await createBrowserEngine(new Map(), journal);
  await engine.recover();
  const [qmp, engineQmp] = localPorts();
  const [data, engineData] = localPorts();
  const client = new Client({ qmp, data, ownsWorker: false });
  engine.connect({ qmp: engineQmp, data: engineData });
  await client.negotiate();
  await engine.execute("blockdev-add", image("base", opfs(source), true));
  const target = image("target", opfs(TARGET), false);
  await engine.execute("blockdev-add", { ...target, ...(isStream && { backing: "base" }) });

  const startMs = performance.now();
  await engine.execute(command, {
    "job-id": "j",
    "auto-dismiss": false,
    ...(isStream ? { device: "target" } : { device: "base", target: "target", sync: "full" }),
  });
  if (command === "blockdev-mirror") {
    await client.waitForJob("j", "ready");
    await client.execute("job-cancel", { id: "j" });
  }
  const { error } = await client.waitForJob("j", "concluded");
  const ms = performance.now() - startMs;
  if (error && command !== "blockdev-mirror") throw new Error(error);
  await client.execute("job-dismiss", { id: "j" });
  for (const name of ["target", "base"])
    await client.execute("blockdev-del", { "node-name": name });
  await engine.close();
  const bytes = await compareImages(graph, source, TARGET);
  await removeFile(TARGET);
  return { ms, bytes };
}
