/**
 * What `-o` takes when an image is made, as data: qemu-img's names, and what becomes of them for the
 * drivers, whose names are QMP's. In the order in which the options of a new image are told.
 */

import { BlockError } from "../base/errors.ts";
import { sizeOf } from "./size.ts";

export interface CreateOption {
  readonly name: string;
  readonly type: "str" | "bool" | "size" | "num";
  readonly help: string;
  /** Told, and used, where nothing is given. */
  readonly initial?: string;
  /** Of the store, not of the format: told by the help only where a file is named. */
  readonly ofStore?: true;
}

const SIZE: CreateOption = { name: "size", type: "size", help: "Size of the disk" };
const STORE_HINTS: readonly CreateOption[] = [
  { name: "nocow", type: "bool", help: "Taken, without effect", ofStore: true },
  { name: "extent_size_hint", type: "size", help: "Taken, without effect", ofStore: true },
];
const ENCRYPTION: readonly CreateOption[] = [
  { name: "encryption", type: "bool", help: "The old AES encryption, which is refused" },
  { name: "encrypt.format", type: "str", help: "How to encrypt: luks" },
  { name: "encrypt.key-secret", type: "str", help: "Id of the secret that holds the passphrase" },
  { name: "encrypt.cipher-alg", type: "str", help: "Cipher" },
  { name: "encrypt.cipher-mode", type: "str", help: "Mode of the cipher" },
  { name: "encrypt.ivgen-alg", type: "str", help: "Generator of initialization vectors" },
  { name: "encrypt.ivgen-hash-alg", type: "str", help: "Its hash" },
  { name: "encrypt.hash-alg", type: "str", help: "Hash of the key derivation" },
  { name: "encrypt.iter-time", type: "num", help: "Time for the key derivation, in milliseconds" },
];

const QCOW2: readonly CreateOption[] = [
  ...ENCRYPTION,
  { name: "cluster_size", type: "size", help: "Size of a cluster", initial: "65536" },
  { name: "extended_l2", type: "bool", help: "32 subclusters a cluster", initial: "off" },
  { name: "preallocation", type: "str", help: "off, metadata, falloc or full" },
  { name: "compression_type", type: "str", help: "zlib or zstd", initial: "zlib" },
  SIZE,
  { name: "compat", type: "str", help: "Version: v2 (0.10) or v3 (1.1)" },
  { name: "backing_file", type: "str", help: "Name of a backing file" },
  { name: "backing_fmt", type: "str", help: "Format of the backing file" },
  { name: "data_file", type: "str", help: "Name of a file that the data goes into" },
  { name: "data_file_raw", type: "bool", help: "The data file stays a raw image" },
  { name: "lazy_refcounts", type: "bool", help: "Refcounts may be written late", initial: "off" },
  { name: "refcount_bits", type: "num", help: "Width of a refcount", initial: "16" },
  ...STORE_HINTS,
];

const RAW: readonly CreateOption[] = [
  SIZE,
  { name: "preallocation", type: "str", help: "off, falloc or full", ofStore: true },
  ...STORE_HINTS,
];

const BY_FORMAT: ReadonlyMap<string, readonly CreateOption[]> = new Map([
  ["qcow2", QCOW2],
  ["raw", RAW],
]);

/** @throws BlockError ENOTSUP if images of this format are not made */
export function createOptionsOf(format: string): readonly CreateOption[] {
  const options = BY_FORMAT.get(format);
  if (options) return options;
  throw new BlockError("ENOTSUP", `Images of format '${format}' are not made`);
}

const AMEND: ReadonlyMap<string, readonly CreateOption[]> = new Map([
  [
    "qcow2",
    [
      ...QCOW2.filter(({ name }) =>
        [
          "backing_file",
          "backing_fmt",
          "compat",
          "data_file",
          "data_file_raw",
          "encrypt.iter-time",
          "lazy_refcounts",
          "refcount_bits",
          "size",
        ].includes(name),
      ),
      { name: "encrypt.keyslot", type: "num", help: "The one key slot that is meant" },
      { name: "encrypt.new-secret", type: "str", help: "Id of the secret of a new key" },
      { name: "encrypt.old-secret", type: "str", help: "Id of the secret of the key slots meant" },
      { name: "encrypt.state", type: "str", help: "active or inactive" },
    ],
  ],
]);

/** @throws BlockError ENOTSUP if nothing of this format's images can be changed */
export function amendOptionsOf(format: string): readonly CreateOption[] {
  const options = AMEND.get(format);
  if (options) return options;
  throw new BlockError("ENOTSUP", `Format '${format}' has nothing that could be amended`);
}

/** By name, as text that is valid for the option's type; a boolean is on or off. */
export type OptionValues = ReadonlyMap<string, string>;

/**
 * A list of options against the table.
 *
 * @param text several lists have a comma between them
 * @param forNewImages options that are none here, but there when an image is made: it is said then
 * @throws BlockError EINVAL that names the option
 */
export function parseOptions(
  text: string,
  table: readonly CreateOption[],
  forNewImages: readonly CreateOption[] = [],
): OptionValues {
  const values = new Map<string, string>();
  for (const [key, value] of pairsOf(text)) {
    const option =
      table.find(({ name }) => name === key) ??
      // A boolean may stand alone, and be taken back with `no` in front.
      (value === undefined ? negated(key, table) : undefined);
    if (!option) {
      const isElsewhere = forNewImages.some(({ name }) => name === key);
      const why = isElsewhere ? ": it is for new images only" : "";
      throw new BlockError("EINVAL", `Invalid parameter '${key}'${why}`);
    }
    values.set(option.name, checked(option, value ?? (option.name === key ? "on" : "off")));
  }
  return values;
}

function negated(key: string, table: readonly CreateOption[]): CreateOption | undefined {
  return key.startsWith("no") ? table.find(({ name }) => `no${name}` === key) : undefined;
}

function pairsOf(text: string): [string, string | undefined][] {
  const pieces = text === "" ? [] : text.match(/(?:[^,]|,,)+|(?<=^|,)(?=,|$)/g)!;
  return pieces.map((piece) => {
    const [key] = /^[^=]*/.exec(piece)!;
    const value = piece === key ? undefined : piece.slice(key.length + 1).replaceAll(",,", ",");
    return [key, value];
  });
}

function checked({ name, type }: CreateOption, value: string): string {
  switch (type) {
    case "bool":
      if (["on", "yes", "true", "y"].includes(value)) return "on";
      if (["off", "no", "false", "n"].includes(value)) return "off";
      throw new BlockError("EINVAL", `Parameter '${name}' expects 'on' or 'off'; got '${value}'`);
    case "size": {
      const bytes = sizeOf(value);
      if (bytes === null) {
        throw new BlockError("EINVAL", `Parameter '${name}' expects a size; got '${value}'`);
      }
      return String(bytes);
    }
    case "num":
      if (/^(?:0x[0-9a-f]+|[0-9]+)$/i.test(value)) return String(Number(value));
      throw new BlockError("EINVAL", `Parameter '${name}' expects a number; got '${value}'`);
    case "str":
      return value;
  }
}

/**
 * Joins the lists of several -o. @throws BlockError EINVAL for a list that begins or ends with a comma
 */
export function joinLists(lists: readonly string[]): string {
  for (const list of lists) {
    const isPart = list !== "" && !/^,|(?<!,)(?:,,)*,$/.test(list);
    if (!isPart) throw new BlockError("EINVAL", `Invalid option list: ${list}`);
  }
  return lists.join(",");
}

/** `help` or `?` is among the options. */
export function asksForHelp(list: string): boolean {
  return pairsOf(list).some(([key, value]) => value === undefined && /^(?:help|\?)$/.test(key));
}

const TYPE_NAMES = { str: "<str>", bool: "<bool (on/off)>", size: "<size>", num: "<num>" };

/** What `-o help` shows for a new image. @param isNamed its file is named, so that is known, too */
export function describeNewImage(format: string, isNamed: boolean): string {
  const table = createOptionsOf(format);
  if (isNamed) return describeCreateOptions("Supported options", table);
  const own = table.filter(({ ofStore }) => !ofStore);
  return `${describeCreateOptions(`Supported ${format} options`, own)}
Where a file is named, the options of what it is kept in are listed, too.
`;
}

/** By name. */
export function describeCreateOptions(title: string, options: readonly CreateOption[]): string {
  const lines = [...options]
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .map(({ name, type, help }) => `  ${`${name}=${TYPE_NAMES[type]}`.padEnd(22)} - ${help}`);
  return `${title}:\n${lines.join("\n")}\n`;
}

/** ` cluster_size=65536 …`: what an image is made with, as qemu-img tells it. */
export function tellOptions(values: OptionValues, table: readonly CreateOption[]): string {
  return table
    .flatMap(({ name, type, initial }) => {
      const value = values.get(name) ?? initial;
      if (value === undefined) return [];
      return [` ${name}=${type === "str" ? value.replaceAll(",", ",,") : value}`];
    })
    .join("");
}
