/**
 * What a subcommand is: its options as data, from which parsing and --help are made, and what it does.
 */

import { BlockError } from "../base/errors.ts";
import type { Given, Option } from "../base/getopt.ts";
import type { ImageName } from "./image-name.ts";
import type { Session } from "./session.ts";
import { parseSize } from "./size.ts";

export interface ImgCommand {
  readonly name: string;
  /** One line for people, without a full stop. */
  readonly summary: string;
  /** How its words are shown that are no options. */
  readonly operands: string;
  /** One of them may be a number below zero, which looks like an option. */
  readonly hasSignedOperands?: true;
  /** `help` is everybody's and not among them. */
  readonly options: readonly Option[];
  /**
   * @returns the exit status
   * @throws BlockError then it is 1
   */
  run(session: Session, args: Arguments): Promise<number>;
}

/** A command line, taken apart. */
export class Arguments {
  readonly given: readonly Given[];
  readonly operands: readonly string[];

  constructor(given: readonly Given[], operands: readonly string[]) {
    this.given = given;
    this.operands = operands;
  }

  has(option: string): boolean {
    return this.given.some(({ name }) => name === option);
  }

  /** Where an option is given twice the last one counts. */
  last(option: string): string | undefined {
    return this.all(option).at(-1);
  }

  all(option: string): string[] {
    return this.given.filter(({ name }) => name === option).map(({ value }) => value);
  }

  /** @throws BlockError EINVAL unless there is one operand: an image */
  oneImage(): string {
    const [image, ...more] = this.operands;
    if (image !== undefined && more.length === 0) return image;
    throw new BlockError("EINVAL", "Expected the name of one image");
  }

  /** The one image, as -f and --image-opts say it is meant. @throws BlockError EINVAL */
  theImage(name = this.oneImage()): ImageName {
    return { name, format: this.last("format"), isOptions: this.has("image-opts") };
  }

  /** @throws BlockError EINVAL for two of these at once */
  checkExclusive(...names: readonly string[]): void {
    const [first, second] = names.filter((name) => this.has(name));
    if (second === undefined) return;
    throw new BlockError("EINVAL", `Options '--${first}' and '--${second}' exclude each other`);
  }
}

// Options that several subcommands have.

export const QUIET: Option = {
  name: "quiet",
  short: "q",
  help: "says nothing but what went wrong",
};
export const FORMAT: Option = {
  name: "format",
  short: "f",
  value: "FORMAT",
  help: "the image's format, which is looked for otherwise",
};
export const IMAGE_OPTS: Option = {
  name: "image-opts",
  help: "the image is named by options, as for blockdev-add",
};
export const OBJECT: Option = {
  name: "object",
  value: "TYPE,id=ID[,PROPERTY=VALUE…] | JSON",
  help: "makes an object that options may name, such as a secret",
};
export const FORCE_SHARE: Option = {
  name: "force-share",
  short: "U",
  help: "others may write to the image meanwhile",
};
export const OUTPUT: Option = {
  name: "output",
  value: "human|json",
  help: "for people (human) or for programs (json)",
};
export const PROGRESS: Option = { name: "progress", short: "p", help: "shows how far it is" };

/** Quiet is stronger, wherever it stands. */
export function showsProgress(args: Arguments): boolean {
  return args.has("progress") && !args.has("quiet");
}

/** Of the image that is read. */
export const SOURCE_CACHE: Option = {
  name: "cache",
  short: "T",
  value: "MODE",
  help: "none, writeback (the default), writethrough,\ndirectsync, unsafe",
};
/** Of the image that is written. */
export const CACHE: Option = { ...SOURCE_CACHE, short: "t" };

/** Bytes a second; 0: as fast as it goes. @throws BlockError EINVAL */
export function rateOf(args: Arguments): number {
  const rate = args.last("rate");
  return rate === undefined ? 0 : parseSize(rate, "The rate limit");
}
export const RATE: Option = {
  name: "rate",
  short: "r",
  value: "BYTES",
  help: "moves this much a second at most",
};

/** @throws BlockError EINVAL */
export function wantsJson(args: Arguments): boolean {
  const output = args.last("output") ?? "human";
  if (output === "human" || output === "json") return output === "json";
  throw new BlockError("EINVAL", `Option '--output' takes 'human' or 'json', not '${output}'`);
}
