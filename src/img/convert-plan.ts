/** What a command line of `convert` asks for, and what of it excludes what else. Nothing is opened here. */

import { MiB, SECTOR_BYTES } from "../base/bytes.ts";
import { BlockError } from "../base/errors.ts";
import { type Arguments, rateOf } from "./command.ts";
import { checkNewTarget } from "./copy-target.ts";
import { createOptionsOf, type OptionValues, parseOptions } from "./create-options.ts";
import type { ImageName } from "./image-name.ts";
import type { Session } from "./session.ts";
import { parseSize } from "./size.ts";

const SPARSE_BYTES = 4096;
const SPARSE_BYTES_MAX = 16 * MiB;
const PARALLEL = 8;
const PARALLEL_MAX = 16;

export interface ConvertPlan {
  readonly sources: readonly string[];
  readonly target: string;
  readonly format: string;
  readonly snapshot: string | undefined;
  readonly compress: boolean;
  /** Bytes. */
  readonly sparse: number;
  readonly parallel: number;
  /** Bytes a second; 0: no limit. */
  readonly rate: number;
  /** How an image that is there is named. */
  targetName(): ImageName;
  /**
   * How to make a new one; null with -n.
   *
   * @param bytes of its disk
   * @throws BlockError EINVAL, ENOTSUP
   */
  targetValues(session: Session, bytes: number): OptionValues | null;
  readsAsZeroes(values: OptionValues): boolean;
}

/** @throws BlockError EINVAL */
export function planConvert(args: Arguments, format: string, list: string): ConvertPlan {
  const sources = args.operands.slice(0, -1);
  const target = args.operands.at(-1);
  if (target === undefined || sources.length === 0) {
    throw new BlockError("EINVAL", "Expected the names of a source and a target");
  }
  const compress = args.has("compress");
  checkManners(args, list);
  const snapshot = args.last("source-snapshot");
  if (snapshot !== undefined && sources.length > 1) {
    throw new BlockError("EINVAL", "A snapshot is read from one source only");
  }
  if (args.has("bitmaps") && sources.length > 1) {
    throw new BlockError("EINVAL", "Bitmaps are taken over from one source only");
  }
  return {
    sources,
    target,
    format,
    snapshot,
    compress,
    sparse: sparseOf(args),
    parallel: parallelOf(args),
    rate: rateOf(args),

    targetName: () => {
      const isOptions = args.has("target-image-opts");
      return { name: target, isOptions, ...(!isOptions && { format }) };
    },

    targetValues(session, bytes) {
      if (args.has("no-create")) return null;
      const table = createOptionsOf(format);
      const values = new Map(parseOptions(list, table));
      values.set("size", String(bytes));
      if (args.has("backing")) values.set("backing_file", args.last("backing")!);
      if (args.has("backing-format")) values.set("backing_fmt", args.last("backing-format")!);
      checkNewTarget(session, format, values);
      checkTogether(values, sources.length, compress, format);
      return values;
    },

    // Zeroes that were written before the key was there are none when they are read with it.
    readsAsZeroes: (values) =>
      !values.has("encrypt.format") || (values.get("preallocation") ?? "off") === "off",
  };
}

function checkManners(args: Arguments, list: string): void {
  const needs = (option: string, other: string) => {
    if (!args.has(option) || args.has(other)) return;
    throw new BlockError("EINVAL", `Option '--${option}' needs '--${other}'`);
  };
  needs("target-image-opts", "no-create");
  needs("target-is-zero", "no-create");
  needs("skip-broken-bitmaps", "bitmaps");
  args.checkExclusive("image-opts", "source-format");
  args.checkExclusive("target-image-opts", "target-format");
  args.checkExclusive("copy-range-offloading", "compress");
  args.checkExclusive("copy-range-offloading", "sparse-size");
  args.checkExclusive("target-is-zero", "backing");
  if (args.has("no-create") && list !== "") {
    throw new BlockError(
      "EINVAL",
      "Option '--target-options' is for images that are made: not with -n",
    );
  }
}

function checkTogether(
  values: OptionValues,
  sources: number,
  compress: boolean,
  format: string,
): void {
  if (values.has("backing_file") && sources > 1) {
    throw new BlockError("EINVAL", "A target of several sources cannot have a backing file");
  }
  if (!compress) return;
  if (format === "raw") throw new BlockError("ENOTSUP", "Format 'raw' packs no clusters");
  if (values.has("encrypt.format") || values.get("encryption") === "on") {
    throw new BlockError("ENOTSUP", "A target is either compressed or encrypted");
  }
  if ((values.get("preallocation") ?? "off") !== "off") {
    throw new BlockError("ENOTSUP", "A target is either compressed or preallocated");
  }
}

function sparseOf(args: Arguments): number {
  const text = args.last("sparse-size");
  if (text === undefined) return SPARSE_BYTES;
  const bytes = parseSize(text, "The sparse size");
  if (bytes % SECTOR_BYTES === 0 && bytes <= SPARSE_BYTES_MAX) return bytes;
  throw new BlockError(
    "EINVAL",
    `The sparse size is a multiple of ${SECTOR_BYTES} up to ${SPARSE_BYTES_MAX}, or 0 for no holes at all`,
  );
}

function parallelOf(args: Arguments): number {
  const text = args.last("parallel");
  if (text === undefined) return PARALLEL;
  const number = /^[0-9]{1,3}$/.test(text) ? Number(text) : 0;
  if (number >= 1 && number <= PARALLEL_MAX) return number;
  throw new BlockError("EINVAL", `Option '--parallel' takes 1 to ${PARALLEL_MAX}, not '${text}'`);
}
