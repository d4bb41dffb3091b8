/**
 * Driver and engine are lost together at any moment of a job, twice in a row, and both come back from what
 * they had kept: the job comes to one end, which is told once in a life, all that follows from it is done, and
 * the disk is its guest's to the last byte. Everything comes from a seed.
 */

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { KiB } from "../../src/base/bytes.ts";
import { type Random, seededRandom } from "../../src/base/random.ts";
import type { ImageDefinition } from "../../src/domain/definition.ts";
import type { Domain } from "../../src/domain/domain.ts";
import { DomainError } from "../../src/domain/errors.ts";
import type { BlockJobEvent } from "../../src/domain/events.ts";
import {
  BLOCK_COMMIT,
  BLOCK_JOB_ABORT,
  BLOCK_JOB_SPEED,
  BLOCK_PULL,
  SNAPSHOT_CREATE,
} from "../../src/domain/flags.ts";
import type { DriverRecord } from "../../src/domain/record.ts";
import { Guest, USUAL } from "../crash/guest.ts";
import { Look, readIds } from "../crash/look.ts";
import { hasQemu } from "../drivers/format/rig.ts";
import { runWell } from "../spawn.ts";
import { testWorld } from "../world.ts";
import { type Ground, Life, memoryGround, nodeGround } from "./lives.ts";

/** More of them find more. */
const TRIALS = Number(process.env["DOMAIN_TRIALS"] ?? 2);
const FIRST_SEED = Number(process.env["DOMAIN_SEED"] ?? 1);
/** Ends of lives in one trial. */
const LOSSES = 2;
/** Of real files, whose every save waits for a disk. */
const FEW = Math.ceil(TRIALS / 2);
/** Of a life, from there until the job is over: about so many. */
const MOMENTS_OF_END = 60;

const SIZE = 192 * KiB;
const SPEED = 512 * KiB;
const HABITS = { ...USUAL, mostBytes: 16 * KiB };
const READY = 3;

/** What is known of a trial by those who live on. */
interface User {
  readonly ground: Ground;
  readonly random: Random;
  /** Starts that nobody may have heard of: each uses other names. */
  tries: number;
  isAccepted: boolean;
  /** This life is to end over the work of a job, or over the end of one that is ready. */
  isLate: boolean;
  /** Told in any life. */
  readonly ends: BlockJobEvent[];
  /** What the disk was when the last start was asked for. */
  moment: Int32Array;
  /** Of an incremental backup: what it was at the checkpoint. */
  since: Int32Array | null;
  /** Of this life, once it has found its disk. */
  guest: Guest | null;
  /** What the next one may find. */
  expected: ReturnType<Guest["after"]> | null;
}

interface Plan {
  /** Of a life, until its job is over: about so many. */
  readonly moments: number;
  start(domain: Domain, user: User): Promise<void>;
  ready?(domain: Domain): Promise<void>;
  /** By how it ended: the images of the disk, the top first. */
  readonly chains: Readonly<Record<number, (user: User) => string[]>>;
  /** Files that are there beside them, at least. */
  readonly kept?: Readonly<Record<number, (user: User) => string[]>>;
  /** Files that are not. */
  readonly removed?: Readonly<Record<number, (user: User) => string[]>>;
}

const [COMPLETED, FAILED, CANCELED] = [0, 1, 2];
const ALL = ["top", "mid", "base"];
const last = (word: string) => (user: User) => `${word}-${user.tries}`;
const copyOf = last("copy");
const backupOf = last("backup");
const target = (user: User, name: string): ImageDefinition => ({
  format: "qcow2",
  source: user.ground.source(name),
});
const pivot = (domain: Domain) => domain.blockJobAbort("vda", BLOCK_JOB_ABORT.PIVOT);
const pathTo = async (domain: Domain, at: number) => {
  const { disks } = await domain.info();
  return disks[0]!.chain[at]!.path!;
};

const PLANS: Record<string, Plan> = {
  pull: {
    moments: 70,
    start: (domain) => domain.blockPull("vda", SPEED, BLOCK_PULL.BANDWIDTH_BYTES),
    chains: { [COMPLETED!]: () => ["top"] },
    kept: { [COMPLETED!]: () => ["mid", "base"] },
  },
  commit: {
    moments: 110,
    async start(domain) {
      const flags = BLOCK_COMMIT.DELETE | BLOCK_COMMIT.BANDWIDTH_BYTES;
      await domain.blockCommit("vda", null, await pathTo(domain, 1), SPEED, flags);
    },
    chains: { [COMPLETED!]: () => ["top", "base"] },
    removed: { [COMPLETED!]: () => ["mid"] },
  },
  "active commit": {
    moments: 300,
    async start(domain) {
      const flags = BLOCK_COMMIT.ACTIVE | BLOCK_COMMIT.DELETE | BLOCK_COMMIT.BANDWIDTH_BYTES;
      await domain.blockCommit("vda", null, null, SPEED, flags);
    },
    ready: pivot,
    chains: { [COMPLETED!]: () => ["base"] },
    removed: { [COMPLETED!]: () => ["top", "mid"] },
  },
  "copy with a pivot": {
    moments: 320,
    start: (domain, user) =>
      domain.blockCopy("vda", target(user, copyOf(user)), { bandwidth: SPEED }),
    ready: pivot,
    chains: { [COMPLETED!]: (user) => [copyOf(user)] },
    kept: { [COMPLETED!]: () => ALL },
  },
  "copy with an abort": {
    moments: 280,
    start: (domain, user) =>
      domain.blockCopy("vda", target(user, copyOf(user)), { bandwidth: SPEED }),
    ready: (domain) => domain.blockJobAbort("vda"),
    chains: { [CANCELED!]: () => ALL },
    kept: { [CANCELED!]: (user) => [copyOf(user)] },
  },
  "push backup with a checkpoint": {
    moments: 250,
    async start(domain, user) {
      const store = target(user, backupOf(user)).source;
      user.moment = user.guest!.ids();
      const disks = [{ name: "vda", target: store }];
      await domain.backupBegin({ disks }, { name: `now-${user.tries}` });
    },
    chains: { [COMPLETED!]: () => ALL, [FAILED!]: () => ALL },
    kept: { [COMPLETED!]: (user) => [backupOf(user)] },
    removed: { [FAILED!]: (user) => [backupOf(user)] },
  },
  "incremental push backup": {
    moments: 300,
    async start(domain, user) {
      const { guest, random } = user;
      const name = `since-${user.tries}`;
      user.since = guest!.ids();
      await domain.checkpointCreate({ name });
      await guest!.acts(3 + random.below(6), HABITS);
      await guest!.flush();
      user.moment = guest!.ids();
      const disks = [{ name: "vda", target: target(user, backupOf(user)).source }];
      await domain.backupBegin({ incremental: name, disks });
      const { BANDWIDTH_BYTES } = BLOCK_JOB_SPEED;
      await domain.blockJobSetSpeed("vda", SPEED / 8, BANDWIDTH_BYTES).catch(isNotThere);
    },
    chains: { [COMPLETED!]: () => ALL },
    kept: { [COMPLETED!]: (user) => [backupOf(user)] },
  },
};

async function trials(make: () => Ground, plan: Plan, count: number): Promise<void> {
  for (let seed = FIRST_SEED; seed < FIRST_SEED + count; seed++) {
    const ground = make();
    try {
      await trial(ground, plan, seededRandom(seed));
    } catch (error) {
      throw new Error(`DOMAIN_SEED=${seed} DOMAIN_TRIALS=1`, { cause: error });
    } finally {
      ground.end();
    }
  }
}

describe("driver and engine, lost together", () => {
  it.each(Object.entries(PLANS))("go on with: %s, over a browser's stores", (_name, plan) =>
    trials(memoryGround, plan, TRIALS),
  );

  const SOME = ["commit", "copy with a pivot", "push backup with a checkpoint"];
  it.each(SOME)("go on with: %s, over files on Node", { timeout: 120_000 }, (name) =>
    trials(nodeGround, PLANS[name]!, FEW),
  );
});

async function trial(ground: Ground, plan: Plan, random: Random): Promise<void> {
  const user: User = {
    ground,
    random,
    tries: 0,
    isAccepted: false,
    isLate: false,
    ends: [],
    moment: new Int32Array(),
    since: null,
    guest: null,
    expected: null,
  };
  let nowMs = 0;
  for (let life = 0; ; life++) {
    const one = new Life(nowMs);
    const isLast = life === LOSSES;
    const chosen = 1 + random.below(plan.moments);
    // Some while a job is at work, or one that is ready is being ended.
    user.isLate = !isLast && random.below(2) === 0;
    if (life > 0 && !isLast && !user.isLate) one.ticks.last = chosen;
    const all = async () => {
      await one.begin(ground);
      if (life === 0) await prepare(one, user);
      await enter(one, user);
      if (life === 0 && !user.isLate) one.ticks.last = one.ticks.count + chosen;
      await use(one, plan, user);
      if (isLast) await judge(one, plan, user);
    };
    const isThrough = await one.lasts(all());
    noteEnds(one, user);
    if (isThrough && isLast) {
      await one.driver.close();
      await one.lasts(one.engine.close());
      return;
    }
    const endedAt = one.ticks.count;
    if (user.guest) user.expected = user.guest.after({ done: endedAt, begun: endedAt });
    user.guest = null;
    // If it was through before its time: now is the moment.
    one.ticks.last = Math.min(one.ticks.last, one.ticks.count);
    ground.crash(random);
    await one.ticks.quiet();
    nowMs = one.clock.now();
  }
}

/** The engine was lost over the command itself: nobody had been answered. */
const isUnbegun = ({ status, error }: BlockJobEvent) =>
  status === FAILED && /never started/.test(error ?? "");

function endsOf({ events }: Life): BlockJobEvent[] {
  return events.flatMap((one) =>
    one.event === "block-job-2" && one.status !== READY ? [one] : [],
  );
}

/** Ends are told once in each life; a serial has one. */
function noteEnds(life: Life, user: User): void {
  const told = endsOf(life);
  expect(new Set(told.map(({ serial }) => serial)).size).toBe(told.length);
  const backups = life.events.filter(({ event }) => event === "job-completed");
  expect(backups.length).toBeLessThanOrEqual(told.length);
  user.ends.push(...told.filter((one) => !isUnbegun(one)));
}

const isEnded = (life: Life, { ends }: User): boolean =>
  ends.length > 0 || endsOf(life).some((one) => !isUnbegun(one));

// A life

/** A domain with base ← mid ← top, and data in each. */
async function prepare(life: Life, user: User): Promise<void> {
  const { client } = life;
  const { ground, random } = user;
  const file = ground.source("base");
  const make = async (options: object) => {
    await client.execute("blockdev-create", { "job-id": "make", options } as never);
    expect(await client.waitForJob("make", "concluded")).not.toHaveProperty("error");
    await client.execute("job-dismiss", { id: "make" });
  };
  await make({ ...file, size: 0 });
  await client.execute("blockdev-add", { ...file, "node-name": "new" } as never);
  const clusterSize = [4, 16, 64][random.below(3)]! * KiB;
  await make({ driver: "qcow2", file: "new", size: SIZE, "cluster-size": clusterSize });
  await client.execute("blockdev-del", { "node-name": "new" });
  const disk = { target: "vda", ...target(user, "base") };
  const domain = await life.connection.define({ name: "demo", disks: [disk] });
  await domain.create();
  const guest = new Guest(source(life), random, life.engine.exports.get("domain-1-vda").backend);
  for (const overlay of ["mid", "top", null]) {
    await guest.acts(8, { ...HABITS, flush: 0 });
    await guest.flush();
    if (overlay === null) break;
    const disks = [{ name: "vda", source: ground.source(overlay) }];
    await domain.snapshotCreate({ disks }, SNAPSHOT_CREATE.DISK_ONLY);
  }
}

/** For the guest: the log of this life is as long as it has had moments. */
const source = ({ ticks }: Life) => ({
  starts: new Map(),
  get log() {
    return { length: ticks.count } as never;
  },
});

/** The guest finds what it had flushed, and whatever it finds is what counts. */
async function enter(life: Life, user: User): Promise<void> {
  const { backend } = life.engine.exports.get("domain-1-vda");
  const guest = new Guest(source(life), user.random, backend);
  await guest.adopt();
  if (user.expected) expect(user.expected.wrong(guest.ids(), backend.length)).toBe("");
  await backend.flush();
  user.guest = guest;
}

async function use(life: Life, plan: Plan, user: User): Promise<void> {
  const { random } = user;
  const domain = life.connection.domain("demo");
  const guest = user.guest!;
  if (endsOf(life).some(isUnbegun)) expect(user.isAccepted).toBe(false);
  if (!user.isAccepted) {
    if ((await domain.listBlockJobs()).length === 0 && !isEnded(life, user)) {
      user.tries++;
      await plan.start(domain, user);
    }
    user.isAccepted = true;
  }
  for (let round = 0; ; round++) {
    expect(round).toBeLessThan(500);
    const [job] = await domain.listBlockJobs();
    if (!job && isEnded(life, user)) break;
    const isTime = plan.ready ? job?.state === "ready" : job !== undefined;
    if (isTime && user.isLate) {
      life.ticks.last = life.ticks.count + 1 + random.below(MOMENTS_OF_END);
      user.isLate = false;
    }
    if (job?.state === "ready") await plan.ready?.(domain).catch(isNotThere);
    else if (round < 40) await guest.acts(1 + random.below(2), HABITS);
    await life.nap(20 + random.below(60));
  }
  await guest.acts(3, HABITS);
  await guest.flush();
}

/** It may have come to its end in this moment. */
function isNotThere(error: unknown): void {
  if (!(error instanceof DomainError) || error.code !== "INVALID_ARG") throw error;
}

// What is there in the end

async function judge(life: Life, plan: Plan, user: User): Promise<void> {
  const { client, connection } = life;
  const { ground, guest } = user;
  const ends = [...user.ends, ...endsOf(life).filter((one) => !isUnbegun(one))];
  expect(new Set(ends.map(({ serial }) => serial)).size).toBe(1);
  const [status, ...others] = new Set(ends.map((one) => one.status));
  expect(others).toEqual([]);
  expect(Object.keys(plan.chains)).toContain(`${status}`);
  const domain = connection.domain("demo");
  const { disks } = await domain.info();
  const chain = plan.chains[status!]!(user);
  const paths = disks[0]!.chain.map(({ path }) => path!.slice(path!.lastIndexOf("/") + 1));
  expect(paths).toEqual(chain);

  await guest!.read(0, SIZE);
  const images = ground.images();
  for (const name of plan.kept?.[status!]?.(user) ?? []) expect([...images.keys()]).toContain(name);
  for (const name of plan.removed?.[status!]?.(user) ?? []) {
    expect([...images.keys()]).not.toContain(name);
  }
  // An end is told before the record is without it.
  await life.driver.host.save();
  const record = (await ground.domains.load()) as DriverRecord;
  const [demo] = record.domains;
  expect(demo).toMatchObject({ state: "running", jobs: [], backup: null, leftovers: [] });
  const nodes = await client.execute("query-named-block-nodes", { flat: true });
  const open = demo!.disks[0]!.layers.flatMap(({ n }) => [
    `libvirt-${n}-format`,
    `libvirt-${n}-storage`,
  ]);
  expect(nodes.map((node) => node["node-name"]).sort()).toEqual(open.sort());
  expect(await client.execute("query-jobs")).toEqual([]);
  expect((await client.execute("query-block-exports")).map(({ id }) => id)).toEqual([
    "domain-1-vda",
  ]);
  await checkImages(new Map([...images].filter(([name]) => chain.includes(name))), chain, guest!);
  const backup = images.get(backupOf(user));
  if (backup) await checkBackup(backup, user);
}

async function checkImages(
  images: ReadonlyMap<string, Uint8Array<ArrayBuffer>>,
  chain: readonly string[],
  guest: Guest,
): Promise<void> {
  const look = new Look(await testWorld(), images);
  for (const name of chain) {
    const { corruptions, "check-errors": errors } = await look.check(name, "none");
    expect({ name, corruptions, errors }).toEqual({ name, corruptions: 0, errors: 0 });
    if (hasQemu) await qemuChecks(images.get(name)!);
  }
  // From the headers on, whatever the engine has in memory.
  let backing: string | null = null;
  for (const name of chain.toReversed()) {
    const file = { driver: "recorded", filename: name };
    await look.graph.add({ driver: "qcow2", "node-name": name, file, backing, "read-only": true });
    backing = name;
  }
  const { ids } = await readIds(look.graph.get(chain[0]!));
  expect([...ids]).toEqual([...guest.ids()]);
}

/** The disk as it was when the backup began; at least what of it had changed. */
async function checkBackup(image: Uint8Array<ArrayBuffer>, { moment, since }: User): Promise<void> {
  const look = new Look(await testWorld(), new Map([["backup", image]]));
  const { ids } = await readIds(await look.open("backup"));
  const isNeeded = (id: number, at: number) => id !== 0 || moment[at] !== since?.[at];
  expect([...ids].filter(isNeeded)).toEqual([...moment].filter((_, at) => isNeeded(ids[at]!, at)));
}

/** Leaks are allowed, as status 3. */
async function qemuChecks(image: Uint8Array): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "blocktab-domain-"));
  try {
    const filename = join(folder, "image");
    writeFileSync(filename, image);
    const file = { driver: "file", filename, locking: "off" };
    const options = `json:${JSON.stringify({ driver: "qcow2", backing: null, file })}`;
    runWell("qemu-img", ["check", "-q", options]);
  } catch (error) {
    if ((error as { status?: number }).status !== 3) throw error;
  } finally {
    rmSync(folder, { recursive: true });
  }
}
