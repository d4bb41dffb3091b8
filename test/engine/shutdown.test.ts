/** The end of an engine while jobs are at it: every one of them comes to its own end first. */

import { expect, it } from "vitest";
import type { BlockDriver } from "../../src/block/driver.ts";
import { read } from "../../src/block/io.ts";
import { copyBeforeWriteDriver } from "../../src/drivers/filter/copy-before-write.ts";
import { qcow2Driver } from "../../src/drivers/format/qcow2/index.ts";
import { type MemoryStore, memoryDriver } from "../../src/drivers/protocol/memory.ts";
import { faultyDriver } from "../blockjob/faulty.ts";
import { Conversation, testEngine } from "../qmp/conversation.ts";

const MiB = 1024 * 1024;
const slow = { speed: 1024 * 1024, "auto-finalize": false, "auto-dismiss": false };

/** How to get each type of job into each phase, on [base] <── [top] with an empty node `target`. */
const JOBS = {
  stream: ["block-stream", { device: "top" }],
  commit: ["block-commit", { device: "top", "top-node": "mid", "base-node": "base" }],
  "active commit": ["block-commit", { device: "top", "base-node": "mid" }],
  mirror: ["blockdev-mirror", { device: "top", target: "target", sync: "full" }],
  backup: ["blockdev-backup", { device: "top", target: "target", sync: "full" }],
} as const;

const WITH_READY = ["active commit", "mirror"];

const CASES = Object.keys(JOBS).flatMap((job) => [
  [job, "running"],
  [job, "paused"],
  ...(WITH_READY.includes(job) ? [[job, "ready"]] : []),
  [job, "pending"],
]) as [keyof typeof JOBS, string][];

it.each(CASES)(
  "#122 %s, %s: cancelled, told of, and gone, and the images are whole",
  async (job, phase) => {
    const qmp = await chain();
    const [command, args] = JOBS[job];
    const speed = phase === "running" || phase === "paused" ? slow.speed : 0;
    await qmp.execute(command, { ...args, "job-id": "j", ...slow, speed });
    await qmp.clock.advance(1500);
    if (phase === "paused") await qmp.execute("job-pause", { id: "j" });
    if (phase === "pending" && WITH_READY.includes(job)) {
      await qmp.execute("job-complete", { id: "j" });
      await qmp.clock.advance(1500);
    }
    const { return: jobs } = await qmp.execute("query-jobs");
    expect(jobs).toMatchObject([{ id: "j", status: phase }]);
    qmp.received.length = 0;

    await qmp.clock.runUntil(qmp.engine.close());

    const told = qmp.received.map(({ event, data }) => {
      const { status } = data as { status?: string };
      return status ?? String(event).replace("BLOCK_JOB_", "");
    });
    // A job that stands still wakes up first; one that is asleep is let go of without that.
    const woken = phase === "paused" ? ["running"] : [];
    expect(
      told.filter((what) => what !== "standby" && what !== "ready").slice(-4 - woken.length),
    ).toEqual([...woken, "aborting", "CANCELLED", "concluded", "null"]);
    expect(qmp.engine.graph.nodes).toEqual([]);
    expect(qmp.clock.timerCount).toBe(0);
  },
);

it("writes what is below an image that cannot be closed", async () => {
  const top = faultyDriver("faulty");
  const stores = new Map<string, MemoryStore>();
  const base = { ...memoryDriver(stores), name: "kept" };
  const drivers = [qcow2Driver(), base, top] as BlockDriver[];
  const qmp = await new Conversation(await testEngine(drivers)).negotiated();
  const create = (jobId: string, options: object) =>
    qmp.execute("blockdev-create", { "job-id": jobId, options });
  await create("c0", { driver: "kept", name: "base", size: 0 });
  await qmp.execute("blockdev-add", { driver: "kept", "node-name": "store", name: "base" });
  await create("c1", { driver: "qcow2", file: "store", size: MiB });
  await qmp.execute("blockdev-add", { driver: "qcow2", "node-name": "base", file: "store" });
  const tiny = { driver: "tiny", size: MiB, "cluster-size": 65536 };
  const file = { driver: "faulty", size: 0 };
  await qmp.execute("blockdev-add", { ...tiny, "node-name": "top", file, backing: "base" });
  await fill(qmp, "base", MiB / 2);
  top.fault = { op: "flush", errno: "EIO" };
  await expect(qmp.clock.runUntil(qmp.engine.close())).rejects.toMatchObject({ errno: "EIO" });

  const { engine, clock } = await testEngine(drivers);
  const left = { driver: "qcow2", "node-name": "base", file: { driver: "kept", name: "base" } };
  const node = await engine.graph.add({ ...left, "read-only": true });
  const data = new Uint8Array(1);
  await clock.runUntil(read(node, data, 1000, {}));
  expect(data[0]).toBe(7);
});

async function chain(): Promise<Conversation> {
  const drivers = [copyBeforeWriteDriver(), qcow2Driver()] as BlockDriver[];
  const qmp = await new Conversation(await testEngine(drivers)).negotiated();
  for (const [name, backing] of [
    ["base", null],
    ["mid", "base"],
    ["top", "mid"],
    ["target", null],
  ] as const) {
    const tiny = { driver: "tiny", size: 4 * MiB, "cluster-size": 65536 };
    const below = backing === null ? {} : { backing };
    const file = { driver: "memory", size: 0 };
    await qmp.execute("blockdev-add", { ...tiny, "node-name": name, file, ...below });
    // The top has half of the disk: a stream finds something to do, and so does a commit.
    if (name !== "target") await fill(qmp, name, name === "top" ? 2 * MiB : 4 * MiB);
  }
  return qmp;
}

/** Data everywhere, by way of an export that is there for that alone. */
async function fill(qmp: Conversation, node: string, bytes: number): Promise<void> {
  const { graph } = qmp.engine;
  const backend = graph.openBackend(graph.get(node), {
    name: "",
    description: "the filler",
    permissions: { take: 3, share: 15 },
  });
  await qmp.clock.runUntil(backend.write(new Uint8Array(bytes).fill(7), 0));
  await graph.closeBackend(backend);
}
