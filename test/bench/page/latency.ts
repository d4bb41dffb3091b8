/**
 * How long a page waits for an answer while the engine, in its worker, is at work or idle.
 *
 *   bench's worker: client ──▶ engine's worker: source ──▶ target, over and over
 */

import { KiB } from "../../../src/base/bytes.ts";
import { type Client, type CreateOptions, connect } from "../../../src/engine/client.ts";
import { removeFile } from "./raw-io.ts";

const TARGET = "target.qcow2";
const READ_BYTES = 4 * KiB;
const SAMPLES = 400;
/** Between two questions, so that they are not all asked in the same moment of a job. */
const REST_MS = 2;

export interface LatencyArgument {
  readonly ask: "query-jobs" | "read";
  /** What runs over and over without a speed limit; null: nothing. */
  readonly job: "backup" | "mirror" | null;
  /** qcow2 in OPFS. */
  readonly source: string;
}

/** In milliseconds. */
export interface Latency {
  readonly p50: number;
  readonly p99: number;
  /** Of all of them, asked one after the other. */
  readonly max: number;
  /** Jobs that came to their end meanwhile. */
  readonly jobs: number;
}

export async function latency({ ask, job, source }: LatencyArgument): Promise<Latency> {
  await removeFile(TARGET);
  const client = await connect();
  try {
    const device = await openDisks(client, source);
    let jobs = 0;
    let isOver = false;
    const work = (async () => {
      for (; job !== null && !isOver; jobs++) await runJob(client, job);
    })();
    const pieces = Math.floor(device.size / READ_BYTES);
    const times: number[] = [];
    for (let n = 0; n < SAMPLES; n++) {
      const startMs = performance.now();
      if (ask === "query-jobs") await client.execute("query-jobs");
      // A walk with long strides: no two reads near each other.
      else await device.read(((n * 7919) % pieces) * READ_BYTES, READ_BYTES);
      times.push(performance.now() - startMs);
      await new Promise((resolve) => setTimeout(resolve, REST_MS));
    }
    isOver = true;
    await work;
    times.sort((a, b) => a - b);
    const at = (part: number) => times[Math.ceil(times.length * part) - 1]!;
    return { p50: at(0.5), p99: at(0.99), max: at(1), jobs };
  } finally {
    await client.close();
    await removeFile(TARGET);
  }
}

async function openDisks(client: Client, source: string) {
  const opfs = (filename: string) => ({ driver: "opfs", filename }) as const;
  await client.execute("blockdev-add", {
    driver: "qcow2",
    "node-name": "source",
    file: opfs(source),
  });
  const device = await exportNode(client, "source");
  await create(client, { ...opfs(TARGET), size: 0 });
  await client.execute("blockdev-add", { ...opfs(TARGET), "node-name": "file" });
  await create(client, { driver: "qcow2", file: "file", size: device.size });
  await client.execute("blockdev-add", { driver: "qcow2", "node-name": "target", file: "file" });
  return device;
}

async function exportNode(client: Client, node: string) {
  await client.execute("block-export-add", { type: "message-port", id: "d", "node-name": node });
  return client.openDevice("d");
}

async function create(client: Client, options: CreateOptions) {
  await client.execute("blockdev-create", { "job-id": "c", options });
  await ended(client, "c");
}

/** A mirror is ended softly, so that the source stays where it is. */
async function runJob(client: Client, type: "backup" | "mirror"): Promise<void> {
  const copy = { "job-id": "j", device: "source", target: "target", sync: "full" } as const;
  if (type === "backup") {
    await client.execute("blockdev-backup", { ...copy, "auto-dismiss": false });
  } else {
    await client.execute("blockdev-mirror", { ...copy, "auto-dismiss": false });
    await client.waitForJob("j", "ready");
    await client.execute("block-job-cancel", { device: "j" });
  }
  await ended(client, "j");
}

async function ended(client: Client, id: string): Promise<void> {
  const { error } = await client.waitForJob(id, "concluded");
  if (error !== undefined) throw new Error(error);
  await client.execute("job-dismiss", { id });
}
