/** What a flush makes last, whatever else is under way. */

import { expect, it } from "vitest";
import { VirtualClock } from "../../../src/base/virtual-clock.ts";
import { throttle } from "../../../src/drivers/filter/throttle.ts";
import { MemoryStore } from "../../../src/drivers/protocol/memory.ts";
import { createEngine } from "../../../src/engine/engine.ts";
import { engineRealm, type OpenRealm } from "../../../src/engine/tabs/realm.ts";
import { compiledKernel } from "../../kernel/load.ts";
import { type Life, Origin } from "./origin.ts";
import { Tab } from "./tab.ts";

const MIB = 1024 * 1024;
const bytes = (value: number) => new Uint8Array(512).fill(value);

/** Exports `fast` and `slow`, each on a file of its own. */
function twoDisks(life: Life): OpenRealm {
  return async (opening) => {
    const engine = await createEngine({
      clock: life.clock,
      random: life.random,
      kernelBytes: await compiledKernel(),
      drivers: [life.shelf(), throttle],
    });
    const limits = { "bps-write": 4096 };
    await engine.execute("object-add", { "qom-type": "throttle-group", id: "g", limits });
    const file = (filename: string) => ({ driver: "shelf", filename });
    await engine.execute("blockdev-add", { ...file("fast"), "node-name": "fast-node" });
    const limited = { driver: "throttle", "throttle-group": "g", "node-name": "slow-node" };
    await engine.execute("blockdev-add", { ...limited, file: file("slow") });
    for (const id of ["fast", "slow"]) {
      const more = { id, "node-name": `${id}-node`, writable: true };
      await engine.execute("block-export-add", { type: "message-port", ...more });
    }
    return engineRealm(engine, opening);
  };
}

it("a flush beside a write that takes long: nothing older comes back over what it has made last", async () => {
  const clock = new VirtualClock();
  const origin = new Origin(clock, 1);
  const run = <T>(promise: Promise<T>) => clock.runUntil(promise);
  for (const name of ["fast", "slow"]) origin.files.set(name, new MemoryStore(4 * MIB));
  const [a, b, c] = [1, 2, 3].map(() => new Tab(origin, twoDisks)) as [Tab, Tab, Tab];
  for (const { client } of [a, b, c]) await run(client.start());
  const slow = await run(a.client.openDevice("slow"));
  const one = await run(b.client.openDevice("fast"));
  const other = await run(c.client.openDevice("fast"));
  for (const n of [0, 1, 2]) void slow.write(n * MIB, new Uint8Array(MIB));
  await clock.advance(10);
  // Others, elsewhere, pass it.
  await run(one.write(3 * MIB, bytes(1)));
  await run(other.write(3 * MIB, bytes(2)));
  await run(other.flush());
  await run(c.client.close());
  a.crash();
  expect((await run(one.read(3 * MIB, 512)))[0]).toBe(2);
});
