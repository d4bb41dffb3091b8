/** What need not be kept any more, and what must be: nobody is told too early that a write of his is there to stay. */

import { describe, expect, it } from "vitest";
import { sleep } from "../../../src/base/clock.ts";
import { VirtualClock } from "../../../src/base/virtual-clock.ts";
import { openJournal } from "../../../src/engine/journal/store.ts";
import { type Life, Origin } from "./origin.ts";
import { DISK_BYTES, diskForTabs, makeDisk, openDisk, recoverDisk, Tab, threeTabs } from "./tab.ts";

const bytes = (value: number) => new Uint8Array(512).fill(value);

async function tabsOf(open: (life: Life, clock: VirtualClock) => ReturnType<typeof openDisk>) {
  const clock = new VirtualClock();
  const origin = new Origin(clock, 1);
  await clock.runUntil(makeDisk(origin));
  const run = <T>(promise: Promise<T>) => clock.runUntil(promise);
  const tabs: Tab[] = [];
  for (let i = 0; i < 3; i++) {
    const tab = new Tab(origin, (life) => open(life, clock));
    await run(tab.client.start());
    tabs.push(tab);
  }
  return { clock, run, tabs: tabs as [Tab, Tab, Tab] };
}

it("an owner that is killed amid its leaving takes no write with it", async () => {
  for (const ms of [0, 1, 2, 4, 8]) {
    const { clock, run, tabs } = await tabsOf(openDisk);
    const [owner, writer] = tabs;
    const disk = await run(writer.client.openDevice("d"));
    for (let i = 0; i < 10; i++) await run(disk.write(i * 65_536, bytes(1)));
    owner.client.hurry();
    await clock.advance(ms);
    owner.crash();
    expect({ ms, byte: (await run(disk.read(0, 512)))[0] }).toEqual({ ms, byte: 1 });
    await run(disk.flush());
  }
});

it("a page that was suspended with its owner does not undo what another one had flushed by then", async () => {
  const { clock, run, tabs } = await threeTabs(1);
  const [own, other, third] = tabs;
  await run(third.client.close());
  const ownDisk = await run(own.client.openDevice("d"));
  const otherDisk = await run(other.client.openDevice("d"));
  await run(ownDisk.write(0, bytes(1)));
  await run(otherDisk.write(0, bytes(2)));
  // The page is busy, and its worker is not.
  own.page.freeze();
  await run(otherDisk.flush());
  other.crash();
  await clock.advance(5);
  own.client.suspend();
  own.page.thaw();
  await run(own.client.resume());
  expect((await run(ownDisk.read(0, 512)))[0]).toBe(2);
  await expect(run(ownDisk.flush())).rejects.toMatchObject({ errno: "EIO" });
});

/** A page that has had the disks alone, and is blocked until it goes to sleep: what it is told meanwhile it does not hear. */
async function asleepAlone(meanwhile: (alone: Alone) => Promise<void>) {
  const alone = await oneTab();
  const { run, own } = alone;
  const disk = await run(own.client.openDevice("d"));
  await run(disk.write(0, bytes(1)));
  await meanwhile(alone);
  own.client.suspend();
  own.page.thaw();
  await run(own.client.resume());
  return { run, disk, own };
}

type Alone = Awaited<ReturnType<typeof oneTab>>;

async function oneTab() {
  const made = await diskForTabs(1);
  return { ...made, own: await made.open() };
}

type Run = <T>(promise: Promise<T>) => Promise<T>;

/** A node `second` on a file of its own. */
async function addSecond(run: Run, { client }: Tab): Promise<void> {
  const file = { driver: "shelf", "node-name": "other", filename: "other" };
  await run(client.execute("blockdev-add", file as never));
  const options = { driver: "qcow2", file: "other", size: DISK_BYTES } as const;
  await run(client.execute("blockdev-create", { "job-id": "make", options }));
  await run(client.waitForJob("make", "concluded"));
  const second = { driver: "qcow2", "node-name": "second", file: "other" } as const;
  await run(client.execute("blockdev-add", second));
}

describe("a page that was blocked on its way to sleep", () => {
  it("does not undo what a tab has flushed that came and went meanwhile", async () => {
    const { run, disk } = await asleepAlone(async ({ run, own, open }) => {
      own.page.freeze();
      const other = await open();
      const same = await run(other.client.openDevice("d"));
      await run(same.write(0, bytes(2)));
      await run(same.flush());
      await run(other.client.close());
    });
    expect((await run(disk.read(0, 512)))[0]).toBe(2);
    await expect(run(disk.flush())).rejects.toMatchObject({ errno: "EIO" });
  });

  it("does not undo a snapshot's load of its own", async () => {
    const snapshot = { tag: "s", vmstate: "disk", devices: ["disk"] };
    const { run, disk, own } = await asleepAlone(async ({ run, clock, own }) => {
      await run(own.client.execute("snapshot-save", { "job-id": "save", ...snapshot }));
      await run(own.client.waitForJob("save", "concluded"));
      const device = await run(own.client.openDevice("d"));
      await run(device.write(0, bytes(2)));
      const load = own.client.execute("snapshot-load", { "job-id": "load", ...snapshot });
      own.page.freeze();
      await clock.advance(500);
      await run(load);
    });
    const history = await run(own.client.execute("x-query-job-history"));
    expect(history.map(({ id, outcome }) => `${id} ${outcome}`)).toContain("load completed");
    expect((await run(disk.read(0, 512)))[0]).toBe(1);
  });

  it("writes nothing that was for an export to another one of its name", async () => {
    const { run, own } = await asleepAlone(async ({ run, clock, own }) => {
      await addSecond(run, own);
      own.page.freeze();
      const type = {
        type: "message-port",
        id: "d",
        "node-name": "second",
        writable: true,
      } as const;
      await run(own.client.execute("block-export-del", { id: "d", mode: "hard" }));
      await clock.advance(50);
      await run(own.client.execute("block-export-add", type));
    });
    const other = await run(own.client.openDevice("d"));
    expect((await run(other.read(0, 512)))[0]).toBe(0);
  });
});

it("an owner that cannot put on record that it lets others in lets none in, and goes", async () => {
  const { clock, origin, run, own } = await oneTab();
  const disk = await run(own.client.openDevice("d"));
  await run(disk.write(0, bytes(1)));
  origin.isReignFull = true;
  const other = new Tab(origin, recoverDisk);
  const told: string[] = [];
  other.client.onState = ({ phase, text }) => told.push(`${phase}: ${text}`);
  const started = other.client.start();
  await clock.advance(100);
  expect(told.slice(0, 2)).toEqual(["opening: ", "failed: No space left"]);
  origin.isReignFull = false;
  await run(started);
  expect((await run(disk.read(0, 512)))[0]).toBe(1);
  await run(disk.flush());
});

describe("an export that is deleted, and made anew on another disk", () => {
  const type = { type: "message-port", id: "d", "node-name": "second", writable: true } as const;

  /** An owner and two more tabs; to put something on record takes long, and so does it to hear of that. */
  async function begin() {
    let tookMs = 0;
    const { clock, run, tabs } = await tabsOf((life, time) => {
      const { journal } = life;
      const save: typeof journal.save = async (record) => {
        await sleep(time, tookMs);
        await journal.save(record);
        await sleep(time, tookMs);
      };
      const open = () => openJournal({ load: () => journal.load(), save }, life.intents);
      return recoverDisk(life, open);
    });
    const [owner, writer, other] = tabs;
    await addSecond(run, other);
    // So that there is always one, and the next owner makes none of its own.
    await run(other.client.execute("block-export-add", { ...type, id: "e", writable: false }));
    const old = await run(writer.client.openDevice("d"));
    await run(old.write(0, bytes(1)));
    await run(old.close());
    tookMs = 100;
    // What comes while this is put on record is put on record together.
    void other.client.execute("blockdev-add", { driver: "memory", "node-name": "m", size: 512 });
    await clock.advance(20);
    const gone = other.client.execute("block-export-del", { id: "d" });
    const made = other.client.execute("block-export-add", type);
    const both = Promise.allSettled([gone, made]);
    const crash = () => {
      tookMs = 0;
      owner.crash();
    };
    return { clock, run, writer, other, both, crash };
  }

  it.each([50, 150, 250, 350, 450, 550])(
    "has nothing of the old one written to it if the owner is lost after %i ms",
    async (ms) => {
      const { clock, run, other, both, crash } = await begin();
      await clock.advance(ms);
      crash();
      await run(both);
      const exports = await run(other.client.execute("query-block-exports"));
      const node = exports.find(({ id }) => id === "d")!["node-name"];
      const found = await run(other.client.openDevice("d"));
      const [byte] = await run(found.read(0, 512));
      expect([node, byte]).toEqual(node === "second" ? ["second", 0] : ["disk", 1]);
    },
  );

  it("has its own writes kept", async () => {
    const { run, writer, other, both, crash } = await begin();
    await run(both);
    const device = await run(other.client.openDevice("d"));
    await run(device.write(512, bytes(2)));
    crash();
    const found = await run(writer.client.openDevice("d"));
    expect([...(await run(found.read(0, 1024)))].filter((byte) => byte !== 0)).toEqual([
      ...bytes(2),
    ]);
    await run(device.flush());
  });
});
