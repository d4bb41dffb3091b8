/** A client that keeps as much as it may, beside one whose writes take long. */

import { expect, it } from "vitest";
import { VirtualClock } from "../../../src/base/virtual-clock.ts";
import { LOBBY, type LobbyMessage } from "../../../src/engine/tabs/lobby.ts";
import { Tab } from "./tab.ts";
import { twoDisks, twoFiles } from "./two-disks.ts";

const MIB = 1024 * 1024;

it("goes on meanwhile", async () => {
  const clock = new VirtualClock();
  const origin = twoFiles(clock, 64 * MIB);
  const run = <T>(promise: Promise<T>) => clock.runUntil(promise);
  const [a, b] = [new Tab(origin, twoDisks(65536)), new Tab(origin, twoDisks(65536))];
  await run(a.client.start());
  await run(b.client.start());
  const slow = await run(a.client.openDevice("slow"));
  const fast = await run(b.client.openDevice("fast"));
  let told = 0;
  origin.newLife().host.openChannel(LOBBY).onmessage = (message) => {
    if ((message as LobbyMessage).type === "durable") told++;
  };
  const slowWrites = [0, 1, 2].map((n) => slow.write(n * MIB, new Uint8Array(MIB)));
  await clock.advance(10);
  const fastWrites: Promise<void>[] = [];
  for (let n = 4; n < 64; n++) fastWrites.push(fast.write(n * MIB, new Uint8Array(MIB).fill(n)));
  let isDone = false;
  const done = Promise.all([...fastWrites, fast.flush()]).then(() => {
    isDone = true;
  });
  await clock.advance(10_000);
  expect(isDone).toBe(true);
  // Nobody has asked again and again meanwhile.
  expect(told).toBeLessThan(20);
  await done;
  await run(Promise.all(slowWrites));
});
