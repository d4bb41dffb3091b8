/** An owner whose engine has stopped: it says so, lets go of the disks, and another tab goes on. */

import { expect, it } from "vitest";
import { BlockError } from "../../../src/base/errors.ts";
import { VirtualClock } from "../../../src/base/virtual-clock.ts";
import { openJournal } from "../../../src/engine/journal/store.ts";
import type { OpenRealm } from "../../../src/engine/tabs/realm.ts";
import { type Life, Origin } from "./origin.ts";
import { makeDisk, recoverDisk, Tab } from "./tab.ts";

it("lets another tab take over, with what was written and not flushed", async () => {
  const clock = new VirtualClock();
  const origin = new Origin(clock, 1);
  const run = <T>(promise: Promise<T>) => clock.runUntil(promise);
  await run(makeDisk(origin));
  let isFull = false;
  /** The store of its journal may be full. */
  const sick = (life: Life): OpenRealm => {
    const { journal } = life;
    const load = () => journal.load();
    const save: typeof journal.save = async (record) => {
      if (isFull) throw new BlockError("ENOSPC", "No space left");
      await journal.save(record);
    };
    return recoverDisk(life, () => openJournal({ load, save }));
  };
  const a = new Tab(origin, sick);
  await run(a.client.start());
  const b = new Tab(origin, recoverDisk);
  await run(b.client.start());
  expect([a.isOwner, b.isOwner]).toEqual([true, false]);
  const states: string[] = [];
  b.client.onState = ({ phase, text }) => states.push(`${phase}: ${text}`);
  const disk = await run(b.client.openDevice("d"));
  await run(disk.write(512, new Uint8Array(512).fill(6)));
  isFull = true;
  const node = { driver: "memory", "node-name": "m", size: 512 } as const;
  const asked = await run(b.client.execute("blockdev-add", node).catch((error: unknown) => error));
  // If the first one is gone before it has said why, the next one has done it.
  if (asked instanceof Error) expect(asked.message).toMatch(/No space left/);
  else expect(await run(nodeNames(b))).toContain("m");
  isFull = false;
  expect(await run(disk.read(512, 512))).toEqual(new Uint8Array(512).fill(6));
  expect(states.some((state) => /^failed: .*No space left/.test(state))).toBe(true);
  expect(b.isOwner).toBe(true);
  await run(disk.flush());
});

async function nodeNames(tab: Tab): Promise<unknown[]> {
  const nodes = await tab.client.execute("query-named-block-nodes");
  return nodes.map((node) => node["node-name"]);
}
