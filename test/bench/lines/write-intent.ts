/** What write intents cost a guest: random writes under a mirror, with them and without. */

import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { KiB, MiB } from "../../../src/base/bytes.ts";
import { seededRandom } from "../../../src/base/random.ts";
import { Perm } from "../../../src/block/permissions.ts";
import { openJournal } from "../../../src/engine/journal/store.ts";
import { connectLocally, createNodeEngine } from "../../../src/engine/node.ts";
import { FileJournal, openFileJournal } from "../../../src/engine/node-journal.ts";
import type { Line } from "../line.ts";

const SIZE = 256 * MiB;
const WRITES = 8000;
const WRITE_BYTES = 4 * KiB;
const AT_A_TIME = 16;

export const WRITE_INTENT_LINES: readonly Line[] = [
  {
    name: "write-intent",
    unit: "writes/s",
    reference:
      `the same ${WRITES} writes of 4 KiB at random places of 256 MiB, ${AT_A_TIME} at a time, under a ` +
      "mirror that is ready, with a journal and without intents: qcow2 files, one process on Node. Each " +
      "region's first write waits for a file that is made durable",
    aim: null,
    runs: 5,
    async prepare() {
      return { warmUp: true, ours: () => measured(true), theirs: () => measured(false) };
    },
  },
];

/** @returns writes per second */
async function measured(hasIntents: boolean): Promise<number> {
  const folder = mkdtempSync(join(tmpdir(), "blocktab-bench-"));
  const path = (name: string) => join(folder, name);
  try {
    const journal = hasIntents
      ? await openFileJournal(path("journal"))
      : await openJournal(new FileJournal(path("journal")));
    const engine = await createNodeEngine({ journal });
    await engine.recover();
    const client = await connectLocally(engine);
    for (const name of ["source", "target"]) {
      const args = ["create", "-q", "-f", "qcow2", "-o", "preallocation=falloc"];
      spawnSync("qemu-img", [...args, path(name), `${SIZE}`]);
      const file = { driver: "file" as const, filename: path(name) };
      await client.execute("blockdev-add", { driver: "qcow2", "node-name": name, file });
    }
    const disk = engine.graph.openBackend(engine.graph.get("source"), {
      name: "vda",
      description: "the guest",
      permissions: { take: Perm.consistentRead | Perm.write, share: Perm.all },
    });
    const options = { "job-id": "m", device: "vda", target: "target", sync: "full" } as const;
    await client.execute("blockdev-mirror", options);
    await client.waitForJob("m", "ready");
    const random = seededRandom(1);
    const data = new Uint8Array(WRITE_BYTES).fill(7);
    let left = WRITES;
    const guest = async () => {
      while (left-- > 0) await disk.write(data, random.below(SIZE / WRITE_BYTES) * WRITE_BYTES);
    };
    const start = performance.now();
    await Promise.all(Array.from({ length: AT_A_TIME }, guest));
    const seconds = (performance.now() - start) / 1000;
    await client.execute("block-job-cancel", { device: "m", force: true });
    await engine.graph.closeBackend(disk);
    await engine.close();
    return WRITES / seconds;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
