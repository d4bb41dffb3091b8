/**
 * What qemu-img 10 tells and the 7.2 that tests may find does not: taken out of what we say before both
 * are compared, and only where the real one is that old.
 */

import { theirs } from "./rig.ts";

const [, major, minor] = /version (\d+)\.(\d+)/.exec(theirs(["--version"]).stdout)!;
const isOlderThan = (wanted: number, wantedMinor: number) =>
  Number(major) < wanted || (Number(major) === wanted && Number(minor) < wantedMinor);

/** One reason a line. */
export const NEWER = {
  /** `info` tells of the nodes below an image since 8.0. */
  children: isOlderThan(8, 0),
  /** `map --output=json` has `compressed` since 8.2. */
  mapCompressed: isOlderThan(8, 2),
  /** LUKS may keep its header in another file since 9.0, and says whether it does. */
  detachedHeader: isOlderThan(9, 0),
  /** The table of snapshots has had wider gaps, and `--` for no icount, since 10.0. */
  snapshotTable: isOlderThan(10, 0),
};

/** As the real one would have said it. */
export function asOld(command: string, stdout: string): string {
  let text = stdout;
  if (command === "info" && NEWER.children) text = withoutChildren(text);
  if (command === "map" && NEWER.mapCompressed)
    text = text.replace(/, "compressed": (?:true|false)/g, "");
  if (command === "info" && NEWER.detachedHeader) {
    text = text.replace(/^ *(?:"detached-header"|detached header): false,?\n/gm, "");
  }
  if (NEWER.snapshotTable) text = withOldTable(text);
  return text;
}

const ROW =
  /^(\d+) +(.*?) +(\S+ [KMGTPE]?i?B) (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) +(\d+):(\d\d:\d\d\.\d{3}) +(\S+)$/gm;

function withOldTable(text: string): string {
  return text
    .replace(
      "ID      TAG               VM_SIZE                DATE        VM_CLOCK     ICOUNT",
      "ID        TAG               VM SIZE                DATE     VM CLOCK     ICOUNT",
    )
    .replace(ROW, (_, id, tag, size, date, hours, clock, icount) => {
      const [left, time] = [
        `${id.padEnd(9)} ${tag.padEnd(16)} ${size.padStart(8)}`,
        `${Number(hours)}`,
      ];
      const count = icount === "--" ? "" : icount;
      return `${left}${date.padStart(20)}${`${time.padStart(2, "0")}:${clock}`.padStart(13)}${count.padStart(11)}`;
    });
}

/** Of text: the sections at the end of an image. Of JSON: the members, each with what is nested in it. */
function withoutChildren(text: string): string {
  if (!/^[[{]/.test(text)) return text.replace(/^Child node '.*':\n(?: +.*\n)*/gm, "");
  return text.replace(/^( *)"children": \[\n(?:\1 .*\n)*\1\],?\n/gm, "");
}
