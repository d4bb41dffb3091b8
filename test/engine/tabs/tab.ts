/** A tab of the origin: a page with a client, a worker with a candidate and, in its turn, an engine. */

import { BlockError } from "../../../src/base/errors.ts";
import { VirtualClock } from "../../../src/base/virtual-clock.ts";
import { qcow2Driver } from "../../../src/drivers/format/qcow2/index.ts";
import { rawDriver } from "../../../src/drivers/format/raw.ts";
import { memoryDriver } from "../../../src/drivers/protocol/memory.ts";
import { createEngine, type Engine } from "../../../src/engine/engine.ts";
import { type OpenedJournal, openJournal } from "../../../src/engine/journal/store.ts";
import { localPorts } from "../../../src/engine/local-port.ts";
import type { Port } from "../../../src/engine/protocol.ts";
import { Candidate } from "../../../src/engine/tabs/candidate.ts";
import { newId } from "../../../src/engine/tabs/host.ts";
import type { TabWorker } from "../../../src/engine/tabs/owner-line.ts";
import { engineRealm, type OpenRealm } from "../../../src/engine/tabs/realm.ts";
import { SharedClient } from "../../../src/engine/tabs/shared-client.ts";
import { compiledKernel } from "../../kernel/load.ts";
import { type Life, Origin } from "./origin.ts";

export const DISK_BYTES = 1024 * 1024;

async function newEngine(
  life: Life,
  blobs?: ReadonlyMap<string, Blob>,
  journal?: OpenedJournal,
): Promise<Engine> {
  return createEngine({
    ...(journal && { journal }),
    clock: life.clock,
    random: life.random,
    kernelBytes: await compiledKernel(),
    drivers: [life.shelf(), qcow2Driver(), rawDriver(), memoryDriver()],
    blobs: new Map(blobs),
  });
}

/** Makes the origin's disk. */
export async function makeDisk(origin: Origin): Promise<void> {
  const engine = await newEngine(origin.newLife());
  await engine.execute("blockdev-add", { driver: "shelf", "node-name": "new", filename: "disk" });
  const options = { driver: "qcow2", file: "new", size: DISK_BYTES, "cluster-size": 4096 };
  await engine.execute("blockdev-create", { "job-id": "make", options });
  await engine.jobs.get("make").finished;
  await engine.close();
}

/** What a worker does when it becomes the owner: the disk, and its export `d`. */
export function openDisk(life: Life): OpenRealm {
  return async (opening) => {
    const engine = await newEngine(life, opening.blobs);
    await addDisk(engine);
    return engineRealm(engine, opening);
  };
}

/** The same with a journal, which remembers what the last owner had and was asked for. */
export function recoverDisk(
  life: Life,
  open = () => openJournal(life.journal, life.intents),
): OpenRealm {
  return async (opening) => {
    const engine = await newEngine(life, opening.blobs, await open());
    await engine.recover();
    const exports = [...engine.exports.all, ...engine.awaitedExports];
    if (exports.length === 0) await addDisk(engine);
    return { ...engineRealm(engine, opening), remembers: true };
  };
}

async function addDisk(engine: Engine): Promise<void> {
  const file = { driver: "shelf", filename: "disk" };
  await engine.execute("blockdev-add", { driver: "qcow2", "node-name": "disk", file });
  await engine.execute("block-export-add", {
    type: "message-port",
    id: "d",
    "node-name": "disk",
    writable: true,
  });
}

/** A disk, and whatever tabs are opened: the first one has it, and owners remember what was running. */
export async function diskForTabs(seed: number) {
  const clock = new VirtualClock();
  const origin = new Origin(clock, seed);
  await clock.runUntil(makeDisk(origin));
  const run = <T>(promise: Promise<T>) => clock.runUntil(promise);
  const open = async () => {
    const tab = new Tab(origin, recoverDisk);
    await run(tab.client.start());
    return tab;
  };
  return { clock, origin, run, open };
}

/** The same with three, one after the other. */
export async function threeTabs(seed: number) {
  const made = await diskForTabs(seed);
  const tabs = [await made.open(), await made.open(), await made.open()] as const;
  return { ...made, tabs };
}

class SimWorker implements TabWorker {
  readonly id: string;
  readonly life: Life;
  readonly candidate: Candidate;
  onlost: () => void = () => {};

  constructor(life: Life, open: OpenRealm) {
    this.life = life;
    this.id = newId(life.random);
    this.candidate = new Candidate(life.host, this.id, open);
  }

  dial(epoch: number, client: string, service: string, count: number): readonly Port[] {
    const pairs = Array.from({ length: count }, () => localPorts());
    const far = pairs.map(([, port]) => port);
    this.life.do(() => this.candidate.accept(epoch, client, service, far));
    return pairs.map(([port]) => port);
  }

  setHidden(isHidden: boolean): void {
    this.life.do(() => this.candidate.setHidden(isHidden));
  }

  async leave(): Promise<void> {
    await this.life.alive();
    await this.candidate.leave();
  }

  terminate(): void {
    this.life.kill();
  }
}

export class Tab {
  readonly page: Life;
  worker: SimWorker | null = null;
  readonly client: SharedClient;

  /** @param open null: it has no worker, and never owns the disk */
  constructor(origin: Origin, open: ((life: Life) => OpenRealm) | null = openDisk) {
    this.page = origin.newLife();
    const spawn = () => {
      const life = origin.newLife();
      this.worker = new SimWorker(life, open!(life));
      return this.worker;
    };
    this.client = new SharedClient({ host: this.page.host, spawn: open && spawn });
  }

  get isOwner(): boolean {
    return this.client.state.role === "owner" && this.client.state.phase === "serving";
  }

  /** The renderer's process dies. */
  crash(): void {
    this.page.kill();
    this.worker?.life.kill();
  }

  /** The browser puts the tab to sleep, and tells nobody. */
  freeze(): void {
    this.page.freeze();
    this.worker?.life.freeze();
  }

  thaw(): void {
    this.worker?.life.thaw();
    this.page.thaw();
  }
}

/** Nobody waits for a realm that cannot be opened. */
export function cannotOpen(why: string): OpenRealm {
  return async () => {
    throw new BlockError("EIO", why);
  };
}
