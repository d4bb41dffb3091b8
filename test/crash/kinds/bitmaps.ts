/** Persistent bitmaps: whoever relies on one after a crash must not miss a write. */

import { KiB } from "../../../src/base/bytes.ts";
import { SECTOR_BYTES } from "../content.ts";
import { USUAL } from "../guest.ts";
import type { Kind, Left, Trial } from "../trial.ts";

const NAMES = ["fine", "coarse"];

export const bitmaps: readonly Kind[] = [
  {
    name: "bitmaps stored, loaded and reopened",
    async run(trial: Trial) {
      await trial.create("disk", { size: 512 * KiB, "cluster-size": 4 * KiB });
      const { graph, source } = trial;
      let disk = await trial.open("disk");
      const guest = await trial.enter(disk);
      await guest.acts(6);
      for (const [i, name] of NAMES.entries()) {
        const granularity = i === 0 ? 512 : 16 * KiB;
        disk.node.bitmaps.add({ name, granularity, persistent: true });
      }
      const since = guest.ids();
      // From one place in the log to another they must be there and good.
      const good: { from: number; to: number }[] = [];
      const rest = (from: number) => good.push({ from, to: Number.POSITIVE_INFINITY });
      const change = () => {
        const last = good.at(-1);
        if (last) last.to = Math.min(last.to, source.log.length);
      };
      trial.claims.push(async (left) => {
        const wanted = good.some(({ from, to }) => from <= left.cut.done && left.cut.begun <= to);
        return misses(left, since) || (wanted ? absent(left) : "");
      });
      await trial.record();
      for (let round = 0; round < 3; round++) {
        change();
        await guest.acts(4, USUAL);
        await guest.flush();
        if (round === 1) {
          await graph.reopen(disk.node, { readOnly: false });
          await guest.acts(2, USUAL);
        }
        await trial.close(disk);
        rest(source.log.length);
        disk = await trial.open("disk");
        guest.moveTo(disk);
      }
      change();
      await guest.acts(3);
      await trial.close(disk);
    },
  },
];

/** A bitmap that says it can be relied on has every sector that has changed since it was made. */
function misses({ node, ids }: Left, since: Int32Array): string {
  for (const { name, inconsistent, bits, granularity } of node.bitmaps.named()) {
    if (inconsistent) continue;
    const at = since.findIndex((id, sector) => {
      const granule = Math.floor((sector * SECTOR_BYTES) / granularity);
      return ids[sector] !== id && !bits.get(granule);
    });
    if (at >= 0) return `bitmap '${name}' has no mark for sector ${at}, which has been written`;
  }
  return "";
}

function absent({ node }: Left): string {
  for (const name of NAMES) {
    const bitmap = node.bitmaps.find(name);
    if (!bitmap) return `bitmap '${name}' is gone`;
    if (bitmap.inconsistent) return `bitmap '${name}' is inconsistent, though it was stored`;
  }
  return "";
}
