/**
 * JSON as qemu-img prints it: pretty, 4 spaces a level. The order of members is QEMU's, too, so that the
 * text is the same and not only what it means.
 */

import { jsonString } from "../base/json-string.ts";

/** QEMU keeps members in a hash table: this is how the names that are told come out of it. */
const ORDER = [
  ["ivgen-alg", "compat", "icount", "flags", "vm-clock-nsec", "detached-header"],
  ["image-end-offset", "name", "active", "compressed-clusters", "hash-alg", "iters"],
  ["compression-type", "compressed", "lazy-refcounts", "date-sec", "bitmaps", "cipher-alg"],
  ["refcount-bits", "uuid", "total-clusters", "corruptions", "data-file", "ivgen-hash-alg"],
  ["corruptions-fixed", "check-errors", "children", "backing-filename-format", "date-nsec"],
  ["granularity", "required", "leaks", "snapshots", "key-offset", "leaks-fixed"],
  ["allocated-clusters", "virtual-size", "filename", "cluster-size", "fully-allocated", "format"],
  ["encrypt", "actual-size", "format-specific", "data-file-raw", "full-backing-filename"],
  ["cipher-mode", "stripes", "slots", "payload-offset", "vm-clock-sec", "encrypted", "type"],
  ["master-key-iters", "backing-filename", "corrupt", "fragmented-clusters", "id"],
  ["vm-state-size", "info", "dirty-flag", "extended-l2", "data"],
].flat();
const RANKS: ReadonlyMap<string, number> = new Map(ORDER.map((name, rank) => [name, rank]));

/** Members in the order in which they are shown; others come last. Those that are undefined go. */
export function orderedEntries(value: object): [string, unknown][] {
  const rank = (name: string) => RANKS.get(name) ?? RANKS.size;
  return Object.entries(value)
    .filter(([, member]) => member !== undefined)
    .sort(([a], [b]) => rank(a) - rank(b));
}

/** With the line's end. */
export function prettyJson(value: unknown): string {
  return `${render(value, "\n")}\n`;
}

function render(value: unknown, newline: string): string {
  if (typeof value === "string") return jsonString(value);
  if (value === null || typeof value !== "object") return String(value);
  const inner = `${newline}    `;
  if (Array.isArray(value)) {
    return enclosed(
      "[]",
      newline,
      value.map((item) => render(item, inner)),
    );
  }
  const members = orderedEntries(value).map(
    ([name, member]) => `${jsonString(name)}: ${render(member, inner)}`,
  );
  return enclosed("{}", newline, members);
}

function enclosed(brackets: string, newline: string, parts: readonly string[]): string {
  const inner = `${newline}    `;
  const lines = parts.map((part, i) => `${inner}${part}${i < parts.length - 1 ? "," : ""}`);
  return `${brackets[0]}${lines.join("")}${newline}${brackets[1]}`;
}
