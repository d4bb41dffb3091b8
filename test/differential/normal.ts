/**
 * What is made equal before transcripts are compared: this table, and nothing else.
 *
 * Members of objects are put in order, since JSON has none. Sentences of errors become the names
 * that they mention (names.ts).
 */

import { mentioned } from "./names.ts";
import type { Json, Transcript } from "./transcript.ts";

/** Members that are left out wherever they stand. */
const LEFT_OUT: Readonly<Record<string, string>> = {
  timestamp: "when it was",
  "actual-size": "depends on the file system, and on what it has got round to",
  "date-sec": "when it was",
  "date-nsec": "when it was",
};

/** And this one, in what is told of a block job: whether it is at work at this very moment. */
const AT_WORK = "busy";

/** Members of which only counts that there is a number. */
const NUMBERS: Readonly<Record<string, string>> = {
  rd_total_time_ns: "how long it took",
  wr_total_time_ns: "how long it took",
  flush_total_time_ns: "how long it took",
  unmap_total_time_ns: "how long it took",
  zone_append_total_time_ns: "how long it took",
  idle_time_ns: "how long it took",
  "vm-clock-sec": "when it was",
  "vm-clock-nsec": "when it was",
};

/**
 * QEMU puts the options of a node that no file name can stand for into a name of its own:
 * `json:{"driver": "blkdebug", "image": {…}}`. Ours tells the name of the file at the bottom, and that
 * is what becomes of QEMU's.
 */
function bottomFile(options: unknown): string {
  const { filename, file, image } = options as Record<string, unknown>;
  if (typeof filename === "string") return filename;
  return file === undefined && image === undefined ? "" : bottomFile(file ?? image);
}

/** Names that a daemon made up. */
const GENERATED = /#block(\d+|<\d+>)/g;

/** Such a name becomes `#block` and its place in the row of those in this transcript. */
export function renumbered(transcript: Transcript): Transcript {
  const known = new Map<string, string>();
  const text = JSON.stringify(transcript).replace(GENERATED, (name) => {
    const shown = known.get(name) ?? `#block<${known.size + 1}>`;
    known.set(name, shown);
    return shown;
  });
  return JSON.parse(text);
}

export class Normaliser {
  readonly #folder: string;
  readonly #isTheirs: boolean;

  /**
   * @param folder of the run: it differs, and is cut off
   * @param isTheirs of error sentences QEMU's tell what must be named, ours all that is
   */
  constructor(folder: string, isTheirs: boolean) {
    this.#folder = folder;
    this.#isTheirs = isTheirs;
  }

  /** @param said all names and words that the script has sent so far: see names.ts */
  normalise(value: unknown, said: ReadonlySet<string>): Json {
    if (typeof value === "string") return this.#text(value);
    if (Array.isArray(value)) return value.map((item) => this.normalise(item, said));
    if (typeof value !== "object" || value === null) return value as Json;
    const members = Object.entries(value)
      .filter(([name]) => !(name in LEFT_OUT) && !(name === AT_WORK && "io-status" in value))
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, inner]): [string, Json] => {
        if (name in NUMBERS && typeof inner === "number") return [name, "a number"];
        // The sentence of a reply, of an event, and of a job in a list.
        const isSentence = (name === "desc" || name === "error") && typeof inner === "string";
        if (!isSentence) return [name, this.normalise(inner, said)];
        return [name, { naming: mentioned(inner, said, this.#isTheirs) }];
      });
    return Object.fromEntries(members);
  }

  #text(text: string): string {
    const file = text.startsWith("json:") ? bottomFile(JSON.parse(text.slice(5))) : text;
    return file.replaceAll(`${this.#folder}/`, "");
  }
}
