/** A client that keeps as much as it may, beside one whose writes take long. */

import { expect, it } from "vitest";
import { VirtualClock } from "../../../src/base/virtual-clock.ts";
import { browserDrivers } from "../../../src/drivers/index.ts";
import { createEngine } from "../../../src/engine/engine.ts";
import { LOBBY, type LobbyMessage } from "../../../src/engine/tabs/lobby.ts";
import { engineRealm, type OpenRealm } from "../../../src/engine/tabs/realm.ts";
import { compiledKernel } from "../../kernel/load.ts";
import { type Life, Origin } from "./origin.ts";
import { Tab } from "./tab.ts";

const MIB = 1024 * 1024;

/** Exports `fast` and `slow`. */
function twoDisks(life: Life): OpenRealm {
  return async (opening) => {
    const engine = await createEngine({
      clock: life.clock,
      random: life.random,
      kernelBytes: await compiledKernel(),
      drivers: browserDrivers(new Map()),
    });
    const limits = { "bps-write": 65536 };
    await engine.execute("object-add", { "qom-type": "throttle-group", id: "g", limits });
    for (const name of ["fast-node", "below"]) {
      const memory = { driver: "memory", "node-name": name, size: 64 * MIB };
      await engine.execute("blockdev-add", memory);
    }
    const slow = {
      driver: "throttle",
      "node-name": "slow-node",
      "throttle-group": "g",
      file: "below",
    };
    await engine.execute("blockdev-add", slow);
    for (const id of ["fast", "slow"]) {
      const more = { id, "node-name": `${id}-node`, writable: true };
      await engine.execute("block-export-add", { type: "message-port", ...more });
    }
    return engineRealm(engine, opening);
  };
}

it("goes on meanwhile", async () => {
  const clock = new VirtualClock();
  const origin = new Origin(clock, 1);
  const run = <T>(promise: Promise<T>) => clock.runUntil(promise);
  const [a, b] = [new Tab(origin, twoDisks), new Tab(origin, twoDisks)];
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
