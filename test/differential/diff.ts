/** Two lists of lines as a unified diff: what differs, with some lines around it. */

import { structuredPatch } from "diff";

const CONTEXT = 4;

export interface Text {
  readonly title: string;
  readonly lines: readonly string[];
}

/** @returns lines, the headings included; empty if the two are equal */
export function unifiedDiff(a: Text, b: Text): string[] {
  const [one, other] = [a, b].map(({ lines }) => lines.map((line) => `${line}\n`).join(""));
  const { hunks } = structuredPatch(a.title, b.title, one!, other!, undefined, undefined, {
    context: CONTEXT,
  });
  if (hunks.length === 0) return [];
  return [
    `--- ${a.title}`,
    `+++ ${b.title}`,
    ...hunks.flatMap(({ oldStart, newStart, lines }) => [
      `@@ line ${oldStart} of the first, ${newStart} of the second @@`,
      ...lines.map((line) => `${line[0]} ${line.slice(1)}`),
    ]),
  ];
}
