/**
 * The older of QEMU's two kinds of option lists, which --chardev takes: flat, and a boolean may
 * stand without a value (`server`, `nowait`). QEMU: util/qemu-option.c.
 */

import { BlockError } from "./errors.ts";

/** One list, from which each member is taken once; what is left at the end is unknown. */
export class Opts {
  readonly #values = new Map<string, string>();

  /** @param implied key of a first value that has none */
  constructor(text: string, implied: string) {
    const pairs = text === "" ? [] : text.match(/(?:[^,]|,,)+|(?<=^|,)(?=,|$)/g)!;
    for (const [i, pair] of pairs.entries()) {
      const piece = pair.replaceAll(",,", ",");
      const [key] = /^[^=]*/.exec(piece)!;
      if (piece !== key) this.#values.set(key, piece.slice(key.length + 1));
      else if (i === 0) this.#values.set(implied, piece);
      else if (/^no./.test(piece)) this.#values.set(piece.slice(2), "off");
      else if (piece !== "") this.#values.set(piece, "on");
    }
  }

  take(key: string): string | undefined {
    const value = this.#values.get(key);
    this.#values.delete(key);
    return value;
  }

  /** @throws BlockError EINVAL */
  takeBoolean(key: string): boolean | undefined {
    const value = this.take(key);
    if (value === undefined) return undefined;
    if (["on", "yes", "true", "y"].includes(value)) return true;
    if (["off", "no", "false", "n"].includes(value)) return false;
    throw new BlockError("EINVAL", `Parameter '${key}' expects 'on' or 'off'; got '${value}'`);
  }

  /** @throws BlockError EINVAL */
  takeNumber(key: string): number | undefined {
    const value = this.take(key);
    if (value === undefined) return undefined;
    if (/^[0-9]{1,15}$/.test(value)) return Number(value);
    throw new BlockError("EINVAL", `Parameter '${key}' expects a number; got '${value}'`);
  }

  /** @throws BlockError EINVAL for the first member that nobody has taken */
  finish(): void {
    const [unknown] = this.#values.keys();
    if (unknown !== undefined) throw new BlockError("EINVAL", `Invalid parameter '${unknown}'`);
  }
}
