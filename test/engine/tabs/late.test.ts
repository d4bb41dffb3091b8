/** A write that is still under way when its client is gone: nobody hears of it, but it will be done. */

import { expect, it } from "vitest";
import { VirtualClock } from "../../../src/base/virtual-clock.ts";
import type { BlockDriver } from "../../../src/block/driver.ts";
import { memoryDriver } from "../../../src/drivers/protocol/memory.ts";
import { createEngine } from "../../../src/engine/engine.ts";
import { engineRealm, type OpenRealm } from "../../../src/engine/tabs/realm.ts";
import { compiledKernel } from "../../kernel/load.ts";
import { type Life, Origin } from "./origin.ts";
import { Tab } from "./tab.ts";

/** Memory whose first write takes until it is let go, and is done then. */
function slowAtFirst(letGo: Promise<void>): BlockDriver {
  const driver = memoryDriver() as BlockDriver;
  let writes = 0;
  return {
    ...driver,
    async open(context) {
      const state = await driver.open(context);
      return new Proxy(state, {
        get(target, key) {
          const member = Reflect.get(target, key);
          if (typeof member !== "function") return member;
          if (key !== "pwrite") return member.bind(target);
          return async (...args: unknown[]) => {
            if (writes++ > 0) return member.apply(target, args);
            await letGo;
            // As of a request that has been sent: nobody calls it off any more.
            return member.apply(target, args.slice(0, 2));
          };
        },
      });
    },
  };
}

it("does not come over what the client has written when it was back", async () => {
  const clock = new VirtualClock();
  const origin = new Origin(clock, 1);
  const run = <T>(promise: Promise<T>) => clock.runUntil(promise);
  let letGo = () => {};
  const held = new Promise<void>((resolve) => {
    letGo = resolve;
  });
  const open =
    (life: Life): OpenRealm =>
    async (opening) => {
      const engine = await createEngine({
        clock: life.clock,
        random: life.random,
        kernelBytes: await compiledKernel(),
        drivers: [slowAtFirst(held)],
      });
      const disk = { driver: "memory", "node-name": "disk", size: 4096 };
      await engine.execute("blockdev-add", disk);
      const more = { id: "d", "node-name": "disk", writable: true };
      await engine.execute("block-export-add", { type: "message-port", ...more });
      return engineRealm(engine, opening);
    };
  const [a, b] = [new Tab(origin, open), new Tab(origin, null)];
  await run(a.client.start());
  await run(b.client.start());
  const device = await run(b.client.openDevice("d"));
  const bytes = (value: number) => new Uint8Array(512).fill(value);
  // A page that goes to sleep amid a write, and comes back to the same owner.
  const first = device.write(0, bytes(1));
  await clock.advance(10);
  b.client.suspend();
  await clock.advance(100);
  await run(b.client.resume());
  const second = first.then(() => device.write(0, bytes(2))).then(() => device.flush());
  await clock.advance(1000);
  letGo();
  await run(second);
  await clock.advance(1000);
  expect((await run(device.read(0, 512)))[0]).toBe(2);
});
