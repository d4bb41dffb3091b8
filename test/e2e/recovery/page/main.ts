/**
 * A tab with five disks, a guest on each, and five jobs: for a browser that is killed. The test calls it
 * through window.life, once for each life.
 */

import { seededRandom } from "../../../../src/base/random.ts";
import { connectTab } from "../../../../src/domain/connect-tab.ts";
import type { Device } from "../../../../src/engine/device.ts";
import { contentOf } from "../../../crash/content.ts";
import { stepsOf } from "../../kill/plan.ts";
import {
  DISK_BYTES,
  type Ended,
  FIRST_ID,
  type Found,
  guestOf,
  KINDS,
  type Kind,
  type Orders,
} from "../plan.ts";
import { chains } from "./images.ts";
import { hurry, makeDisks, START, wrongEnd } from "./runs.ts";

declare global {
  interface Window {
    life: Life;
    /** Of the test: steps up to this one may begin when this has resolved. */
    begin(kind: Kind, last: number): Promise<void>;
    /** This one was a flush, and is over. */
    flushed(kind: Kind, step: number): Promise<void>;
    /** Some job is about to end. */
    ending(): Promise<void>;
  }
}

/** The test is asked for so many at a time: that takes as long as a step does. */
const STEPS_AHEAD = 8;

/** Of jobs that are about to end. */
const ENDS = ["ready", "waiting", "pending"];

class Life {
  #client!: Awaited<ReturnType<typeof connectTab>>["client"];
  readonly #disks = {} as Record<Kind, Device>;
  #isOver = false;

  /** Sends all images as they are; before open(). */
  async sendFiles(): Promise<void> {
    const root = await navigator.storage.getDirectory();
    const folder = await root.getDirectoryHandle("blocktab", { create: true });
    const sent: Promise<void>[] = [];
    for await (const handle of folder.values()) {
      if (handle.kind === "file") sent.push(send(handle.name, await handle.getFile()));
    }
    await Promise.all(sent);
  }

  /** What was there before is there again. */
  async open(): Promise<void> {
    const { client } = await connectTab();
    this.#client = client;
  }

  async make(): Promise<void> {
    await makeDisks(this.#client);
    await this.#openDisks();
    for (const kind of KINDS) {
      await this.#disks[kind].write(0, contentOf(FIRST_ID, 0, DISK_BYTES));
      await this.#disks[kind].flush();
    }
  }

  /** Sends all disks as they read, and tells how it found them. */
  async look(): Promise<Found> {
    const client = this.#client;
    await this.#openDisks();
    await Promise.all(
      KINDS.map(async (kind) => {
        await send(`disk-${kind}`, await this.#disks[kind].read(0, DISK_BYTES));
        // What has been seen is certain from now on.
        await this.#disks[kind].flush();
      }),
    );
    const recovery = await client.execute("x-query-recovery");
    const jobs = await client.execute("query-jobs");
    const history = await client.execute("x-query-job-history");
    const found = await chains(client);
    const problems = recovery
      .filter(({ outcome }) => outcome !== "continued" && outcome !== "ended")
      .map((one) => JSON.stringify(one));
    const ended: Partial<Record<Kind, Ended>> = {};
    for (const kind of KINDS) {
      const entries = history.filter(({ id }) => id === kind);
      if (entries.length > 1) problems.push(`${kind} has ended ${entries.length} times`);
      if (jobs.some(({ id }) => id === kind)) continue;
      const [entry] = entries;
      if (!entry) continue;
      const { outcome, error, began } = entry;
      ended[kind] = { outcome, began, ...(error !== undefined && { error }) };
      const wrong = entry.outcome === "completed" ? wrongEnd(kind, found[kind]) : "";
      if (wrong !== "") problems.push(wrong);
    }
    const interrupted = KINDS.filter((kind) =>
      recovery.some((one) => one.kind === "job" && one.name === kind),
    );
    const atWork = KINDS.filter((kind) => jobs.some(({ id }) => id === kind));
    return { chains: found, ended, atWork, interrupted, problems };
  }

  /** The next run of each job that has ended. */
  async start(): Promise<void> {
    const client = this.#client;
    const jobs = await client.execute("query-jobs");
    const found = await chains(client);
    await client.execute("x-job-history-dismiss");
    for (const kind of KINDS) {
      if (!jobs.some(({ id }) => id === kind)) await START[kind](client, found);
    }
  }

  /** Guests write, jobs work; until finish(), or the kill. */
  async run(orders: Orders): Promise<void> {
    const { hurry: when } = orders;
    const user = [this.#follow(when), ...KINDS.map((kind) => this.#hurry(kind, when[kind]))];
    const guests = KINDS.map((kind) => this.#guest(kind, orders));
    await Promise.race([Promise.all(guests), Promise.all([...user, new Promise(() => {})])]);
  }

  /** Every job comes to its end, then every guest. */
  async finish(): Promise<void> {
    const client = this.#client;
    for (const kind of KINDS) await hurry(client, kind);
    await this.#untilEnded();
    this.#isOver = true;
  }

  close(): Promise<void> {
    return this.#client.close();
  }

  async #untilEnded(): Promise<void> {
    for (;;) {
      const jobs = await this.#client.execute("query-jobs");
      if (jobs.length === 0) return;
      for (const { id, status } of jobs) {
        if (status === "ready") await this.#complete(id);
      }
      await sleep(50);
    }
  }

  async #hurry(kind: Kind, ms: number | undefined): Promise<void> {
    if (ms === undefined) return;
    await sleep(ms);
    await hurry(this.#client, kind);
  }

  async #follow(when: Orders["hurry"]): Promise<void> {
    const jobs = await this.#client.execute("query-jobs");
    const events = this.#client.events("JOB_STATUS_CHANGE");
    const follow = async (id: string, status: string) => {
      if (when[id as Kind] === undefined) return;
      if (ENDS.includes(status)) void window.ending();
      if (status === "ready") await this.#complete(id);
    };
    for (const { id, status } of jobs) await follow(id, status);
    for await (const { data } of events) await follow(data.id, data.status);
  }

  /** One that an engine which was lost had been told to complete, or that was ready twice, may have ended by now. */
  async #complete(id: string): Promise<void> {
    try {
      await this.#client.execute("job-complete", { id });
    } catch (error) {
      const history = await this.#client.execute("x-query-job-history");
      // start() has cleared it: this is the run that was ready.
      const hasEnded = history.some((one) => one.id === id && one.outcome === "completed");
      if (!hasEnded || !/Job '.*' not found/.test(String(error))) throw error;
    }
  }

  async #guest(kind: Kind, orders: Orders): Promise<void> {
    const [seed, firstId] = guestOf(orders, kind);
    const disk = this.#disks[kind];
    const random = seededRandom(firstId);
    let number = 0;
    for (const { kind: what, offset, bytes, id } of stepsOf(seed, firstId, DISK_BYTES)) {
      if (number % STEPS_AHEAD === 0) await window.begin(kind, number + STEPS_AHEAD - 1);
      if (this.#isOver) return;
      if (what === "flush") {
        await disk.flush();
        void window.flushed(kind, number);
      } else if (what === "zeroes") await disk.writeZeroes(offset, bytes, { mayUnmap: true });
      else await disk.write(offset, contentOf(id, offset, bytes));
      number++;
      // Not more than jobs can keep up with.
      await sleep(random.below(30));
    }
  }

  /** What there is, in words, for whoever wonders. */
  async state(): Promise<string> {
    const client = this.#client;
    const parts = await Promise.all([
      client.execute("x-query-recovery"),
      client.execute("query-block-exports"),
      client.execute("query-jobs"),
      client.execute("query-named-block-nodes", { flat: true }),
    ]);
    const [recovery, exports, jobs, nodes] = parts.map((part) => JSON.stringify(part, null, 1));
    return `recovery ${recovery}\nexports ${exports}\njobs ${jobs}\nnodes ${nodes}`;
  }

  async #openDisks(): Promise<void> {
    for (const kind of KINDS) this.#disks[kind] ??= await this.#client.openDevice(kind);
  }
}

window.life = new Life();

async function send(name: string, body: Blob | Uint8Array<ArrayBuffer>): Promise<void> {
  const { ok } = await fetch(`/put/${name}`, { method: "POST", body });
  if (!ok) throw new Error(`'${name}' could not be sent`);
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
