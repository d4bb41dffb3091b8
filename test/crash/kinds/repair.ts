/** Repairs: of what a crash has left, cut by another one. */

import { checkNode } from "../../../src/block/check.ts";
import { Look } from "../look.ts";
import { choicesOf, StateMaker } from "../states.ts";
import { type Kind, Trial } from "../trial.ts";
import { allocation } from "./allocation.ts";
import { snapshots } from "./snapshots.ts";

/** Leaves leaks where one of these was cut. */
function repairAfter(kinds: readonly Kind[], name: string): Kind {
  const kind = kinds.find((kind) => kind.name === name)!;
  return {
    name: `repair after: ${name}`,
    async run(trial) {
      const { recorder, images, graph, random } = trial;
      recorder.add("disk", await leaky(kind, trial));
      images.push("disk");
      const disk = await trial.open("disk");
      const guest = await trial.enter(disk);
      await trial.record();
      await trial.close(disk);
      const file = { driver: "recorded", filename: "disk" };
      const options = { driver: "qcow2", "node-name": "disk", file };
      const node = await graph.addForCheck(options);
      await checkNode(node, { fix: random.below(2) ? "all" : "leaks" });
      await graph.remove("disk");
      const again = await trial.open("disk");
      guest.moveTo(again);
      await guest.acts(4);
      await trial.close(again);
    },
  };
}

/** The first crash of some run that has left leaks. */
async function leaky(kind: Kind, { random, graph }: Trial): Promise<Uint8Array<ArrayBuffer>> {
  for (;;) {
    const trial = await Trial.start(random.below(2 ** 31));
    await kind.run(trial);
    const { starts, log } = trial.source;
    const maker = new StateMaker(starts, log);
    for (const choice of choicesOf(log, random)) {
      if (random.below(6) > 0) continue;
      const files = maker.make(choice);
      const { leaks } = await new Look(graph.world, files).check("disk", "none");
      if (leaks > 0) return files.get("disk")!;
    }
  }
}

export const repairs: readonly Kind[] = [
  repairAfter(allocation, "discard and reuse"),
  repairAfter(allocation, "new refcount blocks"),
  repairAfter(snapshots, "snapshot create, apply and delete, clusters of 512"),
];
