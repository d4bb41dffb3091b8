/**
 * `measure`: how large the file of a new image would get, for a disk of some size or for what is in an
 * image that is there.
 *
 *     required          as much as is in it now
 *     fully-allocated   at most
 *     bitmaps           besides, if the bitmaps are taken along
 */

import { alignUp, SECTOR_BYTES } from "../../base/bytes.ts";
import { BlockError } from "../../base/errors.ts";
import { TimeSlice } from "../../base/time-slice.ts";
import type { BlockBackend } from "../../block/backend.ts";
import { skipFilters } from "../../block/status.ts";
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
import { createOptionsOf, joinLists, type OptionValues, parseOptions } from "../create-options.ts";
import { formatDriver } from "../image-name.ts";
import { prettyJson } from "../json.ts";
import { bitmapsBytes, fullBytes, type Geometry, geometryOf } from "../measure.ts";
import { openImage } from "../open.ts";
import type { Session } from "../session.ts";
import { parseSize } from "../size.ts";
import { loadSnapshot } from "../snapshot-source.ts";

export const measure: ImgCommand = {
  name: "measure",
  summary: "Tells how large the file of a new image would get",
  operands: "--size SIZE | FILENAME",
  options: [
    {
      name: "target-format",
      short: "O",
      value: "FORMAT",
      help: "the new image's; raw unless given",
    },
    { name: "options", short: "o", value: "OPTION=VALUE,…", help: "of the new image's format" },
    { name: "size", short: "s", value: "SIZE", help: "of the disk" },
    { ...FORMAT, help: "FILENAME's format" },
    IMAGE_OPTS,
    { name: "snapshot", short: "l", value: "SNAPSHOT", help: "of FILENAME, not the disk as it is" },
    FORCE_SHARE,
    OBJECT,
    OUTPUT,
  ],
  run,
};

interface Measured {
  readonly required: number;
  readonly "fully-allocated": number;
  readonly bitmaps?: number | undefined;
}

async function run(session: Session, args: Arguments): Promise<number> {
  const json = wantsJson(args);
  const target = args.last("target-format") ?? "raw";
  const list = joinLists(args.all("options"));
  formatDriver(session, target);
  const size = args.last("size");
  checkSource(args, size);
  const values = parseOptions(list, createOptionsOf(target));
  if (target !== "raw") checkSecret(session, values);
  const measured =
    size === undefined
      ? await measureImage(session, args, target, values)
      : measureSize(target, values, parseSize(size, "Image size"));
  await session.print(json ? prettyJson(measured) : asText(measured));
  return 0;
}

/** The new image's would be opened with it. @throws BlockError ENOENT, EINVAL */
function checkSecret(session: Session, values: OptionValues): void {
  const secret = values.get("encrypt.key-secret");
  if (values.has("encrypt.format") && secret !== undefined) {
    session.graph.secrets.passphrase(secret);
  }
}

function checkSource(args: Arguments, size: string | undefined): void {
  if (size === undefined) {
    if (args.operands.length === 1) return;
    throw new BlockError("EINVAL", "Either '--size' or the name of one image is needed");
  }
  if (args.operands.length > 0) {
    throw new BlockError("EINVAL", "Option '--size' is not for an image that is there");
  }
  const needsImage = ["format", "image-opts", "snapshot"].find((option) => args.has(option));
  if (needsImage) {
    throw new BlockError("EINVAL", `Option '--${needsImage}' needs the name of an image`);
  }
}

function asText({ required, "fully-allocated": full, bitmaps }: Measured): string {
  const last = bitmaps === undefined ? "" : `bitmaps size: ${bitmaps}\n`;
  return `required size: ${required}\nfully allocated size: ${full}\n${last}`;
}

function measureSize(target: string, values: OptionValues, bytes: number): Measured {
  if (target === "raw") return measureRaw(bytes);
  return together(geometryOf(values, bytes), 0);
}

function measureRaw(bytes: number): Measured {
  const size = alignUp(bytes, SECTOR_BYTES);
  return { required: size, "fully-allocated": size };
}

/** @param data bytes of the disk that are not known to be zero, in whole clusters */
function together(geometry: Geometry, data: number): Measured {
  const full = fullBytes(geometry);
  const disk = geometry.diskBytes;
  const isFilled = geometry.preallocation === "falloc" || geometry.preallocation === "full";
  return { required: full - disk + (isFilled ? disk : data), "fully-allocated": full };
}

async function measureImage(
  session: Session,
  args: Arguments,
  target: string,
  values: OptionValues,
): Promise<Measured> {
  const source = await openImage(session, args.theImage());
  const snapshot = args.last("snapshot");
  if (snapshot !== undefined) loadSnapshot(source.node, snapshot);
  const length = alignUp(source.length, SECTOR_BYTES);
  if (target === "raw") return measureRaw(length);
  const geometry = geometryOf(values, length);
  // How much of what a backing file would have is not looked at: nothing may be missing.
  const data = values.has("backing_file")
    ? geometry.diskBytes
    : await dataBytes(session, source, geometry.clusterBytes);
  const { state, bitmaps } = skipFilters(source.node);
  const keepsBitmaps =
    geometry.version === 3 && state.bitmapStore !== undefined && isV3(state.info?.());
  return {
    ...together(geometry, data),
    ...(keepsBitmaps && { bitmaps: bitmapsBytes(bitmaps.all(), geometry.clusterBytes) }),
  };
}

function isV3(info: { readonly "format-specific"?: { readonly data: object } } = {}): boolean {
  const data = info["format-specific"]?.data as { readonly compat?: string } | undefined;
  return data?.compat !== "0.10";
}

/** In whole clusters of the new image, each counted once. */
async function dataBytes(
  session: Session,
  source: BlockBackend,
  clusterBytes: number,
): Promise<number> {
  const slice = new TimeSlice(session.host.world.clock, session.signal);
  let bytes = 0;
  for (let at = 0; at < source.length; ) {
    const run = await source.status(at, source.length - at);
    let next = at + run.bytes;
    if (run.node !== null && !run.zero) {
      next = alignUp(next, clusterBytes);
      bytes += (at % clusterBytes) + next - at;
    }
    at = next;
    if (slice.isOver) await slice.rest();
  }
  return bytes;
}
