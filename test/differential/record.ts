/**
 * What a QEMU 10 answered, kept in files, so that it counts where only an older one is installed.
 *
 * One file for each area. A script's lines are one of JSON with its name and the version of QEMU,
 * and then one for each entry of its transcript. Of errors there is the class, and what is named.
 */

import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Side } from "./compare.ts";
import { read, type Transcript, write } from "./transcript.ts";

const FOLDER = join(import.meta.dirname, "recorded");

/** Older ones are not worth it: they are installed nearly everywhere. */
export const RECORDED_SINCE = "10.0.0";

interface Head {
  readonly script: string;
  readonly qemu: string;
}

/** The recordings of an area, by the names of its scripts. */
export function readRecordings(area: string): Map<string, Side> {
  const recordings = new Map<string, Side>();
  if (!existsSync(pathOf(area))) return recordings;
  for (const part of readFileSync(pathOf(area), "utf8").split(/^(?=\{"script")/m)) {
    const end = part.indexOf("\n");
    const { script, qemu } = JSON.parse(part.slice(0, end)) as Head;
    const daemon = { title: `qemu-storage-daemon ${qemu} (recorded)`, version: qemu };
    recordings.set(script, { daemon, transcript: read(part.slice(end)) });
  }
  return recordings;
}

/** Replaces the recordings of an area. */
export function writeRecordings(
  area: string,
  recordings: readonly (readonly [script: string, version: string, transcript: Transcript])[],
): void {
  mkdirSync(FOLDER, { recursive: true });
  const parts = recordings.map(([script, qemu, transcript]) => {
    const head: Head = { script, qemu };
    return `${JSON.stringify(head)}\n${write(transcript)}`;
  });
  writeFileSync(pathOf(area), parts.join(""));
}

function pathOf(area: string): string {
  return join(FOLDER, `${area.replaceAll(" ", "-")}.jsonl`);
}
