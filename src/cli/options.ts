/**
 * The options of `blocktab daemon` as data, and how a command line is taken apart: as getopt_long()
 * does it, names may be cut short where that is clear, and a value stands behind '=' or in the next
 * word.
 */

import { BlockError } from "../base/errors.ts";

export interface Option {
  readonly name: string;
  /** One letter. */
  readonly short?: string;
  /** Of its value, as --help shows it; missing if it takes none. */
  readonly value?: string;
  /** One or more lines for people. */
  readonly help: string;
}

export const OPTIONS = [
  { name: "help", short: "h", help: "shows this and ends" },
  { name: "version", short: "V", help: "shows the version and ends" },
  {
    name: "trace",
    short: "T",
    value: "[[enable=]PATTERN][,events=FILE][,file=FILE]",
    help: "watches the engine; `help` lists what there is to see",
  },
  {
    name: "blockdev",
    value: "[driver=]DRIVER[,node-name=NAME][,MEMBER=VALUE…] | JSON",
    help: "opens a node, as blockdev-add does",
  },
  {
    name: "chardev",
    value: "[backend=]BACKEND,id=ID[,MEMBER=VALUE…]",
    help: "opens a character device for a monitor:\nstdio, socket, pipe, file, null",
  },
  { name: "daemonize", help: "goes to the background once all is set up" },
  {
    name: "export",
    value: "[type=]TYPE,id=ID,node-name=NAME[,MEMBER=VALUE…] | JSON",
    help: "exports a node, as block-export-add does",
  },
  {
    name: "monitor",
    value: "[chardev=]ID[,mode=control][,pretty=on|off]",
    help: "serves QMP on a character device",
  },
  {
    name: "nbd-server",
    value: "addr.type=inet,addr.host=HOST,addr.port=PORT | addr.type=unix,addr.path=PATH",
    help: "starts an NBD server, as nbd-server-start does",
  },
  {
    name: "object",
    value: "[qom-type=]TYPE,id=ID[,PROPERTY=VALUE…] | JSON",
    help: "makes an object, as object-add does",
  },
  { name: "pidfile", value: "PATH", help: "writes the process number there once all is set up" },
] as const satisfies readonly Option[];

export type OptionName = (typeof OPTIONS)[number]["name"];
type NamedOption = Option & { readonly name: OptionName };
const ALL: readonly NamedOption[] = OPTIONS;

/** An option on a command line. */
export interface Given {
  readonly name: OptionName;
  /** "" if it takes none. */
  readonly value: string;
  /** For error texts: as somebody would write it. */
  readonly shown: string;
}

/**
 * In the order of the words. Ends early behind an option that ends the command (help, version).
 *
 * @throws BlockError EINVAL
 */
export function parseCommandLine(words: readonly string[]): Given[] {
  const given: Given[] = [];
  const left = [...words];
  for (let word = left.shift(); word !== undefined; word = left.shift()) {
    if (word === "--") {
      if (left[0] === undefined) break;
      throw unexpected(left[0]);
    }
    if (word.startsWith("--")) given.push(takeLong(word, left));
    else if (/^-./.test(word)) given.push(takeShort(word, left));
    else throw unexpected(word);
    const { name } = given.at(-1)!;
    if (name === "help" || name === "version") break;
  }
  return given;
}

function takeLong(word: string, left: string[]): Given {
  const [start] = /^[^=]*/.exec(word)!;
  const option = findLong(start);
  const inWord = start === word ? undefined : word.slice(start.length + 1);
  if (!option.value) {
    if (inWord === undefined) return { name: option.name, value: "", shown: start };
    throw new BlockError("EINVAL", `Option '--${option.name}' takes no value; got '${inWord}'`);
  }
  return withValue(option, inWord ?? left.shift(), `--${option.name}`);
}

/** More letters may follow one that takes no value; of one that takes one, it may follow at once. */
function takeShort(word: string, left: string[]): Given {
  const letter = word[1]!;
  const option = ALL.find(({ short }) => short === letter);
  if (!option) throw new BlockError("EINVAL", `There is no option '-${letter}'`);
  const rest = word.slice(2);
  if (option.value) return withValue(option, rest === "" ? left.shift() : rest, `-${letter}`);
  if (rest !== "") left.unshift(`-${rest}`);
  return { name: option.name, value: "", shown: `-${letter}` };
}

function withValue(
  { name, value: expected }: NamedOption,
  value: string | undefined,
  written: string,
): Given {
  if (value !== undefined) return { name, value, shown: `${written} ${value}` };
  throw new BlockError("EINVAL", `Option '${written}' needs a value: ${expected}`);
}

function findLong(start: string): NamedOption {
  const found = ALL.filter(({ name }) => `--${name}`.startsWith(start));
  const exact = found.find(({ name }) => `--${name}` === start);
  const option = exact ?? found[0];
  if (!option || start === "--") throw new BlockError("EINVAL", `There is no option '${start}'`);
  if (exact || found.length === 1) return option;
  const names = found.map(({ name }) => `'--${name}'`).join(", ");
  throw new BlockError("EINVAL", `Option '${start}' could be ${names}`);
}

function unexpected(word: string): BlockError {
  return new BlockError("EINVAL", `Unexpected argument '${word}'`);
}

/** What --help shows. */
export function helpText(): string {
  const lines = ALL.flatMap((option) => {
    const { name, short, value, help } = option;
    const head = `  ${short ? `-${short}, ` : ""}--${name}${value ? ` ${value}` : ""}`;
    const text = help.split("\n").map((line) => `${" ".repeat(26)}${line}`);
    if (head.length > 25) return [head, ...text];
    return [head.padEnd(26) + text[0]!.trim(), ...text.slice(1)];
  });
  return `Usage: blocktab daemon [options]

Serves disk images over QMP and exports, as qemu-storage-daemon does, whose options these are.
They are carried out in the order in which they are given.

${lines.join("\n")}

A value may be JSON where that is said; else a comma in it is written twice. For example:

  blocktab daemon --blockdev file,node-name=f,filename=disk.qcow2 \\
      --blockdev qcow2,node-name=disk,file=f \\
      --chardev socket,path=qmp.sock,server=on,wait=off,id=c --monitor c
`;
}
