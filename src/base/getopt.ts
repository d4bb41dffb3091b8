/**
 * Command lines taken apart as getopt_long() does it: names may be cut short where that is clear, a
 * value stands behind '=' or in the next word, letters may be joined.
 *
 *     -q -f raw     -qfraw     --output=json     --outp json     -- operands only from here on
 *
 * What options there are is a table, from which the help is made as well.
 */

import { BlockError } from "./errors.ts";

export interface Option {
  /** Its long form, without the dashes. */
  readonly name: string;
  /** One letter. */
  readonly short?: string;
  /** Of its value, as the help shows it; missing if it takes none. */
  readonly value?: string;
  /** One or more lines for people. */
  readonly help: string;
}

/** An option on a command line. */
export interface Given<Name extends string = string> {
  readonly name: Name;
  /** "" if it takes none. */
  readonly value: string;
  /** For error texts: as somebody would write it. */
  readonly shown: string;
}

export interface CommandLine<Name extends string = string> {
  /** In the order of the words. */
  readonly given: readonly Given<Name>[];
  /** The words that are no options. */
  readonly operands: readonly string[];
  /** What has not been looked at, behind an option or an operand that ended it. */
  readonly rest: readonly string[];
}

export interface Manners {
  /**
   * A word that is no option: refused, one of many among the options, or the end of the options, as the
   * name of a subcommand is. Where they are `signed`, those behind the first may be numbers below zero.
   */
  readonly operands: "none" | "any" | "signed" | "end";
  /** Names of options behind which nothing is looked at: help, version. */
  readonly last: readonly string[];
}

type NamedOption<Name extends string> = Option & { readonly name: Name };

/** @throws BlockError EINVAL */
export function getopt<Name extends string>(
  words: readonly string[],
  options: readonly NamedOption<Name>[],
  { operands: manner, last }: Manners,
): CommandLine<Name> {
  const given: Given<Name>[] = [];
  const operands: string[] = [];
  const left = [...words];
  for (let word = left.shift(); word !== undefined; word = left.shift()) {
    if (manner === "signed" && operands.length > 0 && /^-[0-9]/.test(word)) operands.push(word);
    else if (word === "--") {
      if (manner === "none" && left[0] !== undefined) throw unexpected(left[0]);
      operands.push(...left.splice(0));
    } else if (word.startsWith("--")) given.push(takeLong(word, left, options));
    else if (/^-./.test(word)) given.push(takeShort(word, left, options));
    else if (manner === "none") throw unexpected(word);
    else if (manner === "any" || manner === "signed") {
      operands.push(word);
      continue;
    } else {
      left.unshift(word);
      break;
    }
    const latest = given.at(-1);
    if (latest && last.includes(latest.name)) break;
  }
  return { given, operands, rest: left };
}

function takeLong<Name extends string>(
  word: string,
  left: string[],
  options: readonly NamedOption<Name>[],
): Given<Name> {
  const [start] = /^[^=]*/.exec(word)!;
  const option = findLong(start, options);
  const inWord = start === word ? undefined : word.slice(start.length + 1);
  if (!option.value) {
    if (inWord === undefined) return { name: option.name, value: "", shown: start };
    throw new BlockError("EINVAL", `Option '--${option.name}' takes no value; got '${inWord}'`);
  }
  return withValue(option, inWord ?? left.shift(), `--${option.name}`);
}

/** More letters may follow one that takes no value; of one that takes one, it may follow at once. */
function takeShort<Name extends string>(
  word: string,
  left: string[],
  options: readonly NamedOption<Name>[],
): Given<Name> {
  const letter = word[1]!;
  const option = options.find(({ short }) => short === letter);
  if (!option) throw new BlockError("EINVAL", `There is no option '-${letter}'`);
  const rest = word.slice(2);
  if (option.value) return withValue(option, rest === "" ? left.shift() : rest, `-${letter}`);
  if (rest !== "") left.unshift(`-${rest}`);
  return { name: option.name, value: "", shown: `-${letter}` };
}

function withValue<Name extends string>(
  { name, value: expected }: NamedOption<Name>,
  value: string | undefined,
  written: string,
): Given<Name> {
  if (value !== undefined) return { name, value, shown: `${written} ${value}` };
  throw new BlockError("EINVAL", `Option '${written}' needs a value: ${expected}`);
}

function findLong<Name extends string>(
  start: string,
  options: readonly NamedOption<Name>[],
): NamedOption<Name> {
  const found = options.filter(({ name }) => `--${name}`.startsWith(start));
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

const HELP_COLUMN = 26;

/** The table for people, an option a line or more. */
export function describeOptions(options: readonly Option[]): string {
  const lines = options.flatMap(({ name, short, value, help }) => {
    const head = `  ${short ? `-${short}, ` : ""}--${name}${value ? ` ${value}` : ""}`;
    const text = help.split("\n").map((line) => `${" ".repeat(HELP_COLUMN)}${line}`);
    if (head.length >= HELP_COLUMN) return [head, ...text];
    return [head.padEnd(HELP_COLUMN) + text[0]!.trim(), ...text.slice(1)];
  });
  return lines.join("\n");
}
