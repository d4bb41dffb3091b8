/**
 * What keeping a journal costs: the same job in the same process, on files, with and without one. That is some
 * milliseconds where a job begins, gets ready and ends, whatever its length; so the disk is one that somebody waits for.
 */

import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { GiB, MiB } from "../../../src/base/bytes.ts";
import { connectLocally, createNodeEngine } from "../../../src/engine/node.ts";
import { openFileJournal } from "../../../src/engine/node-journal.ts";
import type { Lab } from "../lab.ts";
import type { Line } from "../line.ts";
import type { JournalArgument } from "../page/journal.ts";
import { speed } from "./stream.ts";

const BASE = "journal-base.qcow2";
/** Long enough for what a journal asks for every second or two to come up often. */
const RECIPE = { virtualSize: 4 * GiB, dataBytes: 4 * GiB };

export const JOURNAL_LINES: readonly Line[] = [
  line("stream", "block-stream", {}),
  line("mirror", "blockdev-mirror", { target: "target", sync: "full" }),
  line("backup", "blockdev-backup", { target: "target", sync: "full" }),
  opfsLine("stream", "block-stream"),
  opfsLine("mirror", "blockdev-mirror"),
  opfsLine("backup", "blockdev-backup"),
];

function line(name: string, command: string, args: object): Line {
  return {
    name: `journal-${name}`,
    unit: "MiB/s",
    reference:
      `the same ${command} without a journal: 4 GiB of random data from one qcow2 file to another, ` +
      "in one process on Node; with it, the records are files, made durable each time",
    aim: { atLeast: 0.97 },
    // Even: each side goes first as often.
    runs: 8,
    async prepare(lab: Lab) {
      const base = await lab.image(BASE, RECIPE);
      return {
        warmUp: true,
        ours: () => measured(base, command, args, true),
        theirs: () => measured(base, command, args, false),
      };
    },
  };
}

function opfsLine(name: string, command: JournalArgument["command"]): Line {
  return {
    name: `journal-${name}-opfs`,
    unit: "MiB/s",
    reference:
      `the same ${command} without a journal: 4 GiB of random data from one qcow2 file of OPFS to another, in ` +
      "a worker of Chromium; with it, the records are in OPFS, too, flushed each time",
    aim: { atLeast: 0.97 },
    runs: 6,
    async prepare(lab: Lab) {
      await lab.imported(BASE, RECIPE);
      const run = (isKept: boolean) => lab.call("journalJob", { command, source: BASE, isKept });
      return {
        warmUp: true,
        ours: async () => speed(await run(true)),
        theirs: async () => speed(await run(false)),
      };
    },
  };
}

/** @returns MiB/s from the command to the job's end */
async function measured(
  base: string,
  command: string,
  args: object,
  isKept: boolean,
): Promise<number> {
  const folder = mkdtempSync(join(tmpdir(), "blocktab-bench-"));
  const path = (name: string) => join(folder, name);
  try {
    for (const name of ["top", "target"]) {
      spawnSync("qemu-img", ["create", "-q", "-f", "qcow2", path(name), `${RECIPE.virtualSize}`]);
    }
    // Else what the last run wrote is still being written back, and whoever flushes first pays for it.
    spawnSync("sync");
    const journal = isKept && { journal: await openFileJournal(path("journal")) };
    const engine = await createNodeEngine({ ...journal });
    await engine.recover();
    const client = await connectLocally(engine);
    const image = (name: string, filename: string) => ({
      driver: "qcow2" as const,
      "node-name": name,
      file: { driver: "file" as const, filename },
    });
    // A stream goes into an overlay, the others come from the image itself.
    const source = command === "block-stream" ? "top" : "base";
    await client.execute("blockdev-add", { ...image("base", base), "read-only": true });
    if (source === "top") {
      await client.execute("blockdev-add", { ...image("top", path("top")), backing: "base" });
    } else await client.execute("blockdev-add", image("target", path("target")));
    const start = performance.now();
    await engine.execute(command, {
      "job-id": "j",
      device: source,
      "auto-dismiss": false,
      ...args,
    });
    if (command === "blockdev-mirror") {
      await client.waitForJob("j", "ready");
      await client.execute("job-cancel", { id: "j" });
    }
    const { error } = await client.waitForJob("j", "concluded");
    const seconds = (performance.now() - start) / 1000;
    if (error && command !== "blockdev-mirror") throw new Error(error);
    await engine.close();
    return RECIPE.virtualSize / MiB / seconds;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
