/** An origin with two disks, of which one takes its time. */

import type { VirtualClock } from "../../../src/base/virtual-clock.ts";
import { throttle } from "../../../src/drivers/filter/throttle.ts";
import { MemoryStore } from "../../../src/drivers/protocol/memory.ts";
import { createEngine } from "../../../src/engine/engine.ts";
import { engineRealm, type OpenRealm } from "../../../src/engine/tabs/realm.ts";
import { compiledKernel } from "../../kernel/load.ts";
import { type Life, Origin } from "./origin.ts";

const NAMES = ["fast", "slow"];

/** @param size of each of its files, `fast` and `slow` */
export function twoFiles(clock: VirtualClock, size: number): Origin {
  const origin = new Origin(clock, 1);
  for (const name of NAMES) origin.files.set(name, new MemoryStore(size));
  return origin;
}

/** Exports `fast` and `slow`. @param limit bytes per second that are written to the latter */
export function twoDisks(limit: number): (life: Life) => OpenRealm {
  return (life) => async (opening) => {
    const engine = await createEngine({
      clock: life.clock,
      random: life.random,
      kernelBytes: await compiledKernel(),
      drivers: [life.shelf(), throttle],
    });
    const limits = { "bps-write": limit };
    await engine.execute("object-add", { "qom-type": "throttle-group", id: "g", limits });
    const file = (filename: string) => ({ driver: "shelf", filename });
    await engine.execute("blockdev-add", { ...file("fast"), "node-name": "fast-node" });
    const limited = { driver: "throttle", "throttle-group": "g", "node-name": "slow-node" };
    await engine.execute("blockdev-add", { ...limited, file: file("slow") });
    for (const id of NAMES) {
      const more = { id, "node-name": `${id}-node`, writable: true };
      await engine.execute("block-export-add", { type: "message-port", ...more });
    }
    return engineRealm(engine, opening);
  };
}
