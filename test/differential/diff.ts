/** Two lists of lines as a unified diff: what differs, with some lines around it. */

const CONTEXT = 4;

/** What is alike up to here is not looked at again: lists may have some thousand lines. */
const LONGEST = 4000;

/**
 * @returns lines, the headings included; empty if the lists are equal
 */
export function unifiedDiff(
  a: { readonly title: string; readonly lines: readonly string[] },
  b: { readonly title: string; readonly lines: readonly string[] },
): string[] {
  const edits = editScript(a.lines.slice(0, LONGEST), b.lines.slice(0, LONGEST));
  if (edits.every(({ mark }) => mark === " ")) return [];
  const out = [`--- ${a.title}`, `+++ ${b.title}`];
  let shown = -1;
  for (const [i, { mark }] of edits.entries()) {
    if (mark === " " || i <= shown) continue;
    // A hunk ends where two contexts of equal lines follow.
    let end = i;
    for (let j = i; j < edits.length && j <= end + 2 * CONTEXT; j++) {
      if (edits[j]!.mark !== " ") end = j;
    }
    const start = Math.max(shown + 1, i - CONTEXT);
    const stop = Math.min(edits.length - 1, end + CONTEXT);
    const { inA, inB } = edits[start]!;
    out.push(`@@ line ${inA + 1} of the first, ${inB + 1} of the second @@`);
    for (const edit of edits.slice(start, stop + 1)) out.push(`${edit.mark} ${edit.line}`);
    shown = stop;
  }
  return out;
}

interface Edit {
  readonly mark: " " | "-" | "+";
  readonly line: string;
  /** Where in each list this is, from 0. */
  readonly inA: number;
  readonly inB: number;
}

/** By the longest common subsequence, after what is alike at the beginning. */
function editScript(a: readonly string[], b: readonly string[]): Edit[] {
  let head = 0;
  while (head < a.length && head < b.length && a[head] === b[head]) head++;
  const [n, m] = [a.length - head, b.length - head];
  // lengths[i][j]: of the longest common subsequence of what follows i in a and j in b.
  const lengths = Array.from({ length: n + 1 }, () => new Uint16Array(m + 1));
  for (let i = n - 1; i >= 0; i--) {
    for (let j = m - 1; j >= 0; j--) {
      lengths[i]![j] =
        a[head + i] === b[head + j]
          ? lengths[i + 1]![j + 1]! + 1
          : Math.max(lengths[i + 1]![j]!, lengths[i]![j + 1]!);
    }
  }
  const edits: Edit[] = a.slice(0, head).map((line, i) => ({ mark: " ", line, inA: i, inB: i }));
  let [i, j] = [0, 0];
  while (i < n || j < m) {
    const [inA, inB] = [head + i, head + j];
    if (i < n && j < m && a[inA] === b[inB]) {
      edits.push({ mark: " ", line: a[inA]!, inA, inB });
      i++;
      j++;
    } else if (i < n && (j === m || lengths[i + 1]![j]! >= lengths[i]![j + 1]!)) {
      edits.push({ mark: "-", line: a[inA]!, inA, inB });
      i++;
    } else {
      edits.push({ mark: "+", line: b[inB]!, inA, inB });
      j++;
    }
  }
  return edits;
}
