/** Internal snapshots as a table, one a line (QEMU: bdrv_snapshot_dump()). */

import { localTime } from "../base/local-time.ts";
import type { SnapshotInfo } from "../block/driver.ts";
import { humanSize } from "./size.ts";

/** Nothing at all for none. */
export function snapshotTable(snapshots: readonly SnapshotInfo[]): string {
  if (snapshots.length === 0) return "";
  const head = line("ID", "TAG", "VM_SIZE", "DATE", "VM_CLOCK", "ICOUNT");
  const rows = snapshots.map(({ id, name, vmStateBytes, dateSeconds, clockNanoseconds, icount }) =>
    line(
      id,
      name,
      humanSize(vmStateBytes),
      localTime(dateSeconds),
      duration(clockNanoseconds),
      icount === undefined ? "--" : String(icount),
    ),
  );
  return `Snapshot list:\n${head}${rows.join("")}`;
}

function line(
  id: string,
  tag: string,
  size: string,
  date: string,
  clock: string,
  icount: string,
): string {
  const left = `${id.padEnd(7)} ${tag.padEnd(16)} ${size.padStart(8)}`;
  return `${left} ${date.padStart(19)} ${clock.padStart(15)} ${icount.padStart(10)}\n`;
}

/** Hours, minutes, seconds, milliseconds. */
function duration(nanoseconds: number): string {
  const seconds = Math.floor(nanoseconds / 1e9);
  const part = (value: number, digits: number) => String(Math.floor(value)).padStart(digits, "0");
  const clock = [part(seconds / 3600, 4), part((seconds / 60) % 60, 2), part(seconds % 60, 2)];
  return `${clock.join(":")}.${part((nanoseconds / 1e6) % 1000, 3)}`;
}
