/**
 * `map`: which layer of an image's chain holds a part of the disk, and where.
 *
 *     text   what is known to be data, a run a line; refused where there is no one place
 *     JSON   every run, also of zeroes; one object a line
 */

import { alignUp, SECTOR_BYTES } from "../../base/bytes.ts";
import { BlockError } from "../../base/errors.ts";
import { TimeSlice } from "../../base/time-slice.ts";
import * as io from "../../block/io.ts";
import type { BlockNode } from "../../block/node.ts";
import { backingOf, skipFilters } from "../../block/status.ts";
import {
  type Arguments,
  FORCE_SHARE,
  FORMAT,
  IMAGE_OPTS,
  type ImgCommand,
  OBJECT,
  OUTPUT,
  wantsJson,
} from "../command.ts";
import { openImage } from "../open.ts";
import type { Session } from "../session.ts";
import { parseSize } from "../size.ts";

export const map: ImgCommand = {
  name: "map",
  summary: "Tells where the parts of a disk are kept",
  operands: "FILENAME",
  options: [
    FORMAT,
    IMAGE_OPTS,
    { name: "start-offset", short: "s", value: "OFFSET", help: "begins there" },
    { name: "max-length", short: "l", value: "LENGTH", help: "ends so much further on" },
    FORCE_SHARE,
    OBJECT,
    OUTPUT,
  ],
  run,
};

/** MapEntry of qapi/block-core.json. */
interface Run {
  readonly start: number;
  readonly length: number;
  readonly depth: number;
  readonly present: boolean;
  readonly zero: boolean;
  readonly data: boolean;
  readonly compressed: boolean;
  readonly offset?: number | undefined;
  /** Not told by qemu-img's JSON. */
  readonly filename?: string | undefined;
}

async function run(session: Session, args: Arguments): Promise<number> {
  const json = wantsJson(args);
  const start = parseSize(args.last("start-offset") ?? "0", "Start offset");
  const most = args.last("max-length");
  const length = most === undefined ? Number.MAX_SAFE_INTEGER : parseSize(most, "Max length");
  const { node } = await openImage(session, args.theImage());
  const end = Math.min(alignUp(io.getLength(node), SECTOR_BYTES), start + length);
  if (json) await printJson(session, node, start, end);
  else await printText(session, node, start, end);
  return 0;
}

async function printJson(session: Session, node: BlockNode, start: number, end: number) {
  let opening = "[";
  for await (const entry of runs(session, node, start, end)) {
    await session.print(`${opening}${jsonLine(entry)}`);
    opening = ",\n";
  }
  await session.print("]\n");
}

function jsonLine({ start, length, depth, present, zero, data, compressed, offset }: Run): string {
  const place = offset === undefined ? "" : `, "offset": ${offset}`;
  return (
    `{ "start": ${start}, "length": ${length}, "depth": ${depth}, "present": ${present}, ` +
    `"zero": ${zero}, "data": ${data}, "compressed": ${compressed}${place}}`
  );
}

async function printText(session: Session, node: BlockNode, start: number, end: number) {
  await session.print(textLine("Offset", "Length", "Mapped to", "File"));
  for await (const entry of runs(session, node, start, end)) {
    if (!entry.data || entry.zero) continue;
    if (entry.offset === undefined) {
      throw new BlockError(
        "ENOTSUP",
        "There are compressed or encrypted clusters, which have no one place: use --output=json",
      );
    }
    const { start: at, length, offset, filename = "" } = entry;
    await session.print(textLine(hex(at), hex(length), hex(offset), filename));
  }
}

function textLine(...columns: readonly [string, string, string, string]): string {
  const [offset, length, place, file] = columns;
  return `${offset.padEnd(16)}${length.padEnd(16)}${place.padEnd(16)}${file}\n`;
}

function hex(value: number): string {
  return value === 0 ? "0" : `0x${value.toString(16)}`;
}

/** Runs that are alike and next to each other are one; there is always one, if an empty one. */
async function* runs(
  session: Session,
  node: BlockNode,
  start: number,
  end: number,
): AsyncGenerator<Run> {
  const slice = new TimeSlice(session.host.world.clock, session.signal);
  let current = null as Run | null;
  for (let at = start; at < end; ) {
    const next: Run = await runAt(node, at, end - at);
    at += next.length;
    const before = current;
    if (before && isOne(before, next)) {
      current = { ...before, length: before.length + next.length };
    } else {
      if (before) yield before;
      current = next;
    }
    if (slice.isOver) await slice.rest();
  }
  yield current ?? { ...NOTHING, start, length: 0 };
}

const NOTHING = { depth: 0, present: false, zero: false, data: false, compressed: false };

function isOne(a: Run, b: Run): boolean {
  const isAlike = (["zero", "data", "present", "compressed", "depth", "filename"] as const).every(
    (member) => a[member] === b[member],
  );
  const isFurtherOn = a.offset === undefined || a.offset + a.length === b.offset;
  return isAlike && isFurtherOn && (a.offset === undefined) === (b.offset === undefined);
}

/** The first layer from the top that says something of the run: it holds it, or knows it is zero. */
async function runAt(top: BlockNode, start: number, bytes: number): Promise<Run> {
  let node = skipFilters(top);
  let length = bytes;
  for (let depth = 0; ; depth++) {
    const size = io.getLength(node);
    // The end of a disk's last sector, which no byte of the file stands for.
    if (start >= size)
      return { ...NOTHING, start, length, depth, present: true, zero: true, offset: start };
    const status = await io.blockStatus(node, start, Math.min(length, size - start));
    const { allocated, zero, data, compressed, offset, file } = status;
    length = status.bytes;
    const below = backingOf(node);
    const isPastBacking = !allocated && below !== null && start >= io.getLength(below);
    if (allocated || zero || isPastBacking || below === null) {
      const filename = file?.state.info?.().filename;
      const isZero = zero || isPastBacking;
      return {
        start,
        length,
        depth,
        present: allocated,
        zero: isZero,
        data,
        compressed,
        offset,
        filename,
      };
    }
    node = below;
  }
}
