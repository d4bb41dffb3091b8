/** `create`: a new, empty image, which may stand on another. */

import { alignUp, SECTOR_BYTES } from "../../base/bytes.ts";
import { BlockError } from "../../base/errors.ts";
import { warnOfName } from "../chain.ts";
import { type Arguments, FORMAT, type ImgCommand, OBJECT, QUIET } from "../command.ts";
import {
  asksForHelp,
  createOptionsOf,
  describeNewImage,
  joinLists,
  parseOptions,
  tellOptions,
} from "../create-options.ts";
import { formatDriver } from "../image-name.ts";
import { makeImage } from "../make-image.ts";
import { peek } from "../peek.ts";
import type { Session } from "../session.ts";
import { parseSize } from "../size.ts";

export const create: ImgCommand = {
  name: "create",
  summary: "Makes a new image",
  operands: "FILENAME [SIZE]",
  options: [
    QUIET,
    { ...FORMAT, help: "the new image's format; raw unless given" },
    {
      name: "options",
      short: "o",
      value: "OPTION=VALUE,…",
      help: "of the format; -o help lists them",
    },
    { name: "backing", short: "b", value: "FILENAME", help: "the backing file" },
    { name: "backing-format", short: "F", value: "FORMAT", help: "the backing file's format" },
    { name: "backing-unsafe", short: "u", help: "does not look at the backing file" },
    OBJECT,
  ],
  run,
};

async function run(session: Session, args: Arguments): Promise<number> {
  const format = args.last("format") ?? "raw";
  const list = joinLists(args.all("options"));
  const [name, size, ...more] = args.operands;
  if (asksForHelp(list)) {
    formatDriver(session, format);
    await session.print(describeNewImage(format, name !== undefined));
    return 0;
  }
  if (name === undefined) throw new BlockError("EINVAL", "Expected the name of an image");
  if (more[0] !== undefined) throw new BlockError("EINVAL", `Unexpected argument '${more[0]}'`);
  const bytes = size === undefined ? undefined : parseSize(size, "Image size");
  try {
    return await make(session, args, { name, format, list, bytes });
  } catch (error) {
    throw error instanceof BlockError ? error.prepend(name) : error;
  }
}

interface Wanted {
  readonly name: string;
  readonly format: string;
  readonly list: string;
  readonly bytes: number | undefined;
}

async function make(
  session: Session,
  args: Arguments,
  { name, format, list, bytes }: Wanted,
): Promise<number> {
  formatDriver(session, format);
  const table = createOptionsOf(format);
  const values = new Map(parseOptions(list, table));
  if (bytes !== undefined) {
    if (values.has("size")) throw new BlockError("EINVAL", "The image's size is given twice");
    values.set("size", String(bytes));
  }
  for (const [option, key] of [
    ["backing", "backing_file"],
    ["backing-format", "backing_fmt"],
  ] as const) {
    const value = args.last(option);
    if (value === undefined) continue;
    if (!table.some((one) => one.name === key)) {
      throw new BlockError("ENOTSUP", `Format '${format}' has no backing files`);
    }
    values.set(key, value);
  }
  const backing = values.get("backing_file");
  if (backing !== undefined) {
    const size = await sizeOfBacking(session, args, { name, backing, values });
    if (size !== undefined && !values.has("size")) values.set("size", String(size));
  }
  if (!values.has("size")) throw new BlockError("EINVAL", "A new image needs a size");
  if (!args.has("quiet")) {
    if (backing !== undefined) await warnOfName(session, backing, name);
    await session.print(`Formatting '${name}', fmt=${format}${tellOptions(values, table)}\n`);
  }
  await makeImage(session, name, format, values);
  return 0;
}

/** Looks at the backing file, too: an image that stands on nothing cannot be read. */
async function sizeOfBacking(
  session: Session,
  args: Arguments,
  { name, backing, values }: { name: string; backing: string; values: ReadonlyMap<string, string> },
): Promise<number | undefined> {
  const format = values.get("backing_fmt");
  if (backing === name) {
    throw new BlockError("EINVAL", "An image cannot be its own backing file");
  }
  if (format !== undefined) formatDriver(session, format);
  if (format === undefined) {
    throw new BlockError(
      "EINVAL",
      `The backing file '${backing}' is given without its format: give -F, too`,
    );
  }
  if (args.has("backing-unsafe")) return undefined;
  // The user has named it: it is followed wherever it is.
  const from = { image: name, role: "backing", trusted: true } as const;
  const place = await session.host.follow(backing, from);
  const { length } = await peek(session, { driver: format, file: session.host.store(place) });
  return alignUp(length, SECTOR_BYTES);
}
