/**
 * The engine with its journal, and domains beside it, from one owner to the next: real parts over files in
 * memory. What an owner leaves behind is what suspend() leaves.
 */

import { describe, expect, it } from "vitest";
import { KiB } from "../../src/base/bytes.ts";
import { BlockError } from "../../src/base/errors.ts";
import type { VirtualClock } from "../../src/base/virtual-clock.ts";
import { Connection } from "../../src/domain/domain.ts";
import { DomainClient } from "../../src/domain/domain-client.ts";
import { BLOCK_JOB_STATUS } from "../../src/domain/enums.ts";
import type { DomainEvent } from "../../src/domain/events.ts";
import { domainRealm } from "../../src/domain/realm.ts";
import { SharedCaller } from "../../src/domain/shared-caller.ts";
import { MemoryDomainStore } from "../../src/domain/store.ts";
import type { Client } from "../../src/engine/client.ts";
import { localPorts } from "../../src/engine/local-port.ts";
import { connectLocally } from "../../src/engine/node.ts";
import type { Realm } from "../../src/engine/tabs/realm.ts";
import { Recorder } from "../crash/recorder.ts";
import { MemoryJournal, startEngine } from "../engine/journal/rig.ts";

const DISK_BYTES = 1024 * KiB;

interface Owner {
  readonly clock: VirtualClock;
  readonly realm: Realm;
  readonly client: Client;
  readonly domains: Connection;
  readonly events: DomainEvent[];
}

/** What outlives owners. */
class Browser {
  readonly recorder = new Recorder();
  readonly journal = new MemoryJournal();
  readonly store = new MemoryDomainStore();
  readonly told = new Set<string>();

  async owner(): Promise<Owner> {
    const { engine, clock } = await startEngine(this.recorder, this.journal);
    const opening = {
      epoch: 1,
      blobs: new Map(),
      signal: new AbortController().signal,
      tell: () => {},
      onExportDeleted: async () => {},
      onRecovery: async () => {},
      replacing: (work: () => Promise<void>) => work(),
    };
    const realm = await clock.runUntil(domainRealm(engine, opening, this.store));
    const client = await clock.runUntil(connectLocally(engine));
    const [port, far] = localPorts();
    realm.services.get("domains")!(far);
    const domains = new Connection(new DomainClient(port, this.told));
    const events: DomainEvent[] = [];
    domains.subscribe((event) => events.push(event));
    return { clock, realm, client, domains, events };
  }
}

/** An overlay over a base that is full of 7, as vda of the domain "demo", which runs. */
async function makeDemo({ recorder }: Browser, { clock, client, domains }: Owner): Promise<void> {
  recorder.add("base", new Uint8Array(DISK_BYTES).fill(7));
  recorder.add("top");
  const file = { driver: "recorded", filename: "top" };
  const made = async () => {
    const options = { driver: "qcow2", size: DISK_BYTES, file } as never;
    await client.execute("blockdev-create", { "job-id": "make", options });
    await client.waitForJob("make", "concluded");
    await client.execute("job-dismiss", { id: "make" });
    const domain = await domains.define({
      name: "demo",
      disks: [
        {
          target: "vda",
          format: "qcow2",
          source: file,
          backingStore: { source: { driver: "recorded", filename: "base" } },
        },
      ],
    });
    await domain.create();
  };
  await clock.runUntil(made());
}

const ends = (events: readonly DomainEvent[]) =>
  events.flatMap((event) => (event.event === "block-job-2" ? [event.status] : []));

describe("an owner that gives the disks back", () => {
  it("leaves a pull to the next one, which ends it once, under its name", async () => {
    const browser = new Browser();
    const first = await browser.owner();
    await makeDemo(browser, first);
    const domain = first.domains.domain("demo");
    await first.clock.runUntil(domain.blockPull("vda", 64 * KiB, 1 << 6));
    const [job] = await first.clock.runUntil(domain.listBlockJobs());
    await first.clock.runUntil(first.realm.close());
    expect(ends(first.events)).toEqual([]);

    const next = await browser.owner();
    const again = next.domains.domain("demo");
    const jobs = await next.clock.runUntil(again.listBlockJobs());
    expect(jobs).toMatchObject([{ name: job!.name, kind: "pull", state: "running" }]);
    const ended = next.client.waitForJob(job!.name, "concluded");
    await next.clock.runUntil(again.blockJobSetSpeed("vda", 0));
    await next.clock.runUntil(ended);
    while (ends(next.events).length === 0) await next.clock.runUntil(again.info());
    const info = await next.clock.runUntil(again.info());
    expect(ends(next.events)).toEqual([BLOCK_JOB_STATUS.COMPLETED]);
    expect(info.disks[0]!.chain).toHaveLength(1);
    const history = await next.clock.runUntil(next.client.execute("x-query-job-history"));
    expect(history.filter(({ id }) => id === job!.name)).toMatchObject([{ outcome: "completed" }]);
    const device = await next.clock.runUntil(next.client.openDevice(info.disks[0]!.device!));
    const bytes = await next.clock.runUntil(device.read(0, DISK_BYTES));
    expect(bytes.every((byte) => byte === 7)).toBe(true);
    await next.clock.runUntil(next.realm.close());
  });

  it("has flushed and closed every file, and its record is as it was while it worked", async () => {
    const browser = new Browser();
    const owner = await browser.owner();
    await makeDemo(browser, owner);
    const { device } = (await owner.clock.runUntil(owner.domains.domain("demo").info())).disks[0]!;
    const disk = await owner.clock.runUntil(owner.client.openDevice(device!));
    await owner.clock.runUntil(disk.write(0, new Uint8Array(64 * KiB).fill(9)));
    await owner.clock.runUntil(owner.domains.domain("demo").blockPull("vda", 64 * KiB, 1 << 6));
    const { nodes, exports, jobs } = browser.journal.record;
    browser.recorder.record();
    await owner.clock.runUntil(owner.realm.close());
    expect(browser.journal.record).toMatchObject({ nodes, exports, jobs: [{ id: jobs[0]!.id }] });
    expect(browser.recorder.log.at(-1)).toMatchObject({ kind: "flush" });

    const next = await browser.owner();
    const opened = await next.clock.runUntil(next.client.openDevice(device!));
    const bytes = await next.clock.runUntil(opened.read(0, 64 * KiB));
    expect(bytes.every((byte) => byte === 9)).toBe(true);
    await next.clock.runUntil(next.realm.close());
  });
});

describe("a call that is under way when the disks are given back", () => {
  it("has been done or has not: the next driver and the next engine agree, and nothing is recorded later", async () => {
    const found = new Set<number>();
    for (let turns = 0; turns < 60; turns += 6) {
      const browser = new Browser();
      const first = await browser.owner();
      await makeDemo(browser, first);
      const call = first.domains.domain("demo").blockPull("vda", 64 * KiB, 1 << 6);
      call.catch(() => {});
      for (let n = 0; n < turns; n++) await null;
      await first.clock.runUntil(first.realm.close());
      const { text } = browser.journal;
      await first.clock.advance(5000);
      expect(browser.journal.text).toBe(text);

      const next = await browser.owner();
      const jobs = await next.clock.runUntil(next.domains.domain("demo").listBlockJobs());
      const known = await next.clock.runUntil(next.client.execute("query-jobs"));
      expect(known.map(({ id }) => id)).toEqual(jobs.map(({ name }) => name));
      found.add(jobs.length);
      await next.clock.runUntil(next.realm.close());
    }
    expect([...found].sort()).toEqual([0, 1]);
  });
});

describe("a page's calls", () => {
  it("go to whoever has the disks: questions are asked again, of others is told that nobody knows", async () => {
    const browser = new Browser();
    const first = await browser.owner();
    await makeDemo(browser, first);
    let owner: Owner | null = first;
    let tell = () => {};
    let hangUp = () => {};
    const caller = new SharedCaller({
      dial() {
        if (!owner) return null;
        const [port, far] = localPorts();
        owner.realm.services.get("domains")!(far);
        hangUp = () => far.close();
        return port;
      },
      onHandOver(listener) {
        tell = listener;
        return () => {};
      },
    });
    const domain = new Connection(caller).domain("demo");
    expect(await first.clock.runUntil(domain.info())).toMatchObject({ name: "demo" });
    owner = null;
    // Both are on their way when the owner goes without a word.
    const asked = domain.info();
    const changed = expect(domain.blockPull("vda")).rejects.toThrow(/blockPull.*listBlockJobs/);
    hangUp();
    await first.clock.runUntil(first.realm.close());
    const waiting = domain.listBlockJobs();

    owner = await browser.owner();
    tell();
    expect(await owner.clock.runUntil(asked)).toMatchObject({ name: "demo" });
    await changed;
    expect(await owner.clock.runUntil(waiting)).toBeInstanceOf(Array);
    caller.close();
    await expect(domain.info()).rejects.toThrow(/closed/);
    await owner.clock.runUntil(owner.realm.close());
  });
});

describe("an owner whose record of domains cannot be kept", () => {
  const full = () => Promise.reject(new BlockError("ENOSPC", "There is no room"));

  it("tries again, and nobody sees it", async () => {
    const browser = new Browser();
    const first = await browser.owner();
    await makeDemo(browser, first);
    const { store } = browser;
    const save = store.save.bind(store);
    let left = 3;
    store.save = (record) => (left-- > 0 ? full() : save(record));
    await first.clock.runUntil(first.domains.domain("demo").blockPull("vda", 64 * KiB, 1 << 6));
    expect(left).toBeLessThan(0);
    await first.clock.runUntil(first.realm.close());
  });

  it("stops, says why, and leaves all to the next one", async () => {
    const browser = new Browser();
    const first = await browser.owner();
    await makeDemo(browser, first);
    const domain = first.domains.domain("demo");
    await first.clock.runUntil(domain.blockPull("vda", 64 * KiB, 1 << 6));
    const { store } = browser;
    const { save } = store;
    store.save = full;
    const call = first.clock.runUntil(domain.blockJobAbort("vda"));
    await expect(call).rejects.toMatchObject({
      code: "OPERATION_FAILED",
      message: expect.stringContaining("no room"),
    });
    expect(await first.clock.runUntil(first.realm.stopped)).toMatchObject({ errno: "EIO" });
    await first.clock.runUntil(first.realm.close());
    store.save = save;

    const next = await browser.owner();
    const jobs = await next.clock.runUntil(next.domains.domain("demo").listBlockJobs());
    expect(jobs).toMatchObject([{ kind: "pull", state: "running" }]);
    await next.clock.runUntil(next.realm.close());
  });
});

describe("an owner that misses an image", () => {
  it("refuses calls of domains until it is back, and then goes on with the job", async () => {
    const browser = new Browser();
    const first = await browser.owner();
    await makeDemo(browser, first);
    await first.clock.runUntil(first.domains.domain("demo").blockPull("vda", 64 * KiB, 1 << 6));
    await first.clock.runUntil(first.realm.close());

    const base = browser.recorder.remove("base");
    const next = await browser.owner();
    const domain = next.domains.domain("demo");
    const refused = next.clock.runUntil(domain.info());
    await expect(refused).rejects.toMatchObject({
      code: "OPERATION_INVALID",
      message: expect.stringMatching(/base.*x-recovery-retry/s),
    });
    browser.recorder.add("base", base);
    await next.clock.runUntil(next.client.execute("x-recovery-retry"));
    const jobs = await next.clock.runUntil(domain.listBlockJobs());
    expect(jobs).toMatchObject([{ kind: "pull", state: "running" }]);
    await next.clock.runUntil(next.realm.close());
  });

  it("takes the domain for crashed once somebody has given the image up", async () => {
    const browser = new Browser();
    const first = await browser.owner();
    await makeDemo(browser, first);
    await first.clock.runUntil(first.domains.domain("demo").blockPull("vda", 64 * KiB, 1 << 6));
    await first.clock.runUntil(first.realm.close());

    browser.recorder.remove("base");
    const next = await browser.owner();
    const giveUp = async () => {
      for (const { kind, name, outcome } of await next.client.execute("x-query-recovery")) {
        if (outcome === "kept") await next.client.execute("x-recovery-dismiss", { kind, name });
      }
    };
    await next.clock.runUntil(giveUp());
    const info = await next.clock.runUntil(next.domains.domain("demo").info());
    expect(info).toMatchObject({ id: null });
    expect(ends(next.events)).toEqual([BLOCK_JOB_STATUS.FAILED]);
    // A browser lets nobody have a file twice: what is left open the next start would not get.
    const open = next.client.execute("query-named-block-nodes", { flat: true });
    expect((await next.clock.runUntil(open)).map((node) => node["node-name"])).toEqual([]);
    await next.clock.runUntil(next.realm.close());
  });
});
