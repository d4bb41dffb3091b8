/** One script on ours and on all that it is held against: daemons that are here, and a recording. */

import { compare, type Side } from "./compare.ts";
import { type Daemon, OURS } from "./daemon.ts";
import { ImageMaker, type ImageStock } from "./images.ts";
import type { Rule } from "./rules.ts";
import { type Meddling, runScript } from "./run.ts";
import type { Script } from "./script.ts";
import type { Transcript } from "./transcript.ts";

export interface Outcome {
  /** For each side that ours was held against. */
  readonly verdicts: readonly { readonly title: string; readonly report: readonly string[] }[];
  /** Rules of the tables without which there would have been a difference. */
  readonly needed: readonly Rule[];
}

export async function judge(
  script: Script,
  daemons: readonly Daemon[],
  stock: ImageStock,
  recording?: Side,
  meddling?: Meddling,
): Promise<Outcome> {
  const images = new ImageMaker(stock);
  const ours = { daemon: OURS, transcript: await runScript(script, OURS, images, meddling) };
  const sides: Side[] = recording ? [recording] : [];
  for (const daemon of daemons) {
    sides.push({ daemon, transcript: await runScript(script, daemon, images) });
  }
  const compared = sides.map((theirs) => ({
    title: theirs.daemon.title,
    ...compare(theirs, ours, script.options),
  }));
  return { verdicts: compared, needed: compared.flatMap(({ needed }) => needed) };
}

/** What one daemon says. */
export function listen(script: Script, daemon: Daemon, stock: ImageStock): Promise<Transcript> {
  return runScript(script, daemon, new ImageMaker(stock));
}
