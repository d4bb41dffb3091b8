/** What need not be kept any more, and what must be: nobody is told too early that a write of his is there to stay. */

import { expect, it } from "vitest";
import { sleep } from "../../../src/base/clock.ts";
import { VirtualClock } from "../../../src/base/virtual-clock.ts";
import { openJournal } from "../../../src/engine/journal/store.ts";
import { type Life, Origin } from "./origin.ts";
import { makeDisk, openDisk, recoverDisk, Tab, threeTabs } from "./tab.ts";

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

it("an export that is made anew has its writes kept, while the end of the old one is put on record", async () => {
  let saveMs = 0;
  const { clock, run, tabs } = await tabsOf((life, time) => {
    const { journal } = life;
    const save: typeof journal.save = async (record) => {
      await sleep(time, saveMs);
      await journal.save(record);
    };
    return recoverDisk(life, () => openJournal({ load: () => journal.load(), save }, life.intents));
  });
  const [owner, writer, other] = tabs;
  await run(writer.client.execute("query-block-exports"));
  saveMs = 500;
  const type = { type: "message-port", id: "d", "node-name": "disk", writable: true } as const;
  const gone = other.client.execute("block-export-del", { id: "d" });
  const made = other.client.execute("block-export-add", type);
  await clock.advance(50);
  const disk = await run(writer.client.openDevice("d"));
  await run(disk.write(0, bytes(1)));
  await run(Promise.all([gone, made]));
  await clock.advance(2000);
  saveMs = 0;
  owner.crash();
  expect((await run(disk.read(0, 512)))[0]).toBe(1);
  await run(disk.flush());
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
