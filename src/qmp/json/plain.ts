/**
 * Messages that come as objects, over a port. Structured cloning lets through what JSON has not:
 * cycles, Maps, Blobs, NaN, undefined. This copies what is JSON, and refuses the rest by name.
 */

import { BlockError } from "../../base/errors.ts";
import { is64Bit } from "./numbers.ts";
import { addMember } from "./parser.ts";
import { VALUE_BYTES_MAX, VALUE_NESTING_MAX, VALUE_TOKENS_MAX } from "./reader.ts";

/** What of the limits is left. */
interface Budget {
  values: number;
  characters: number;
}

/**
 * A copy of nothing but objects, arrays, strings, numbers, booleans and nulls. Members that are
 * undefined are left out, as JSON.stringify() does. Small bigints become numbers.
 *
 * @throws BlockError EINVAL
 */
export function plainJson(value: unknown): unknown {
  return copy(value, 0, { values: VALUE_TOKENS_MAX, characters: VALUE_BYTES_MAX });
}

function copy(value: unknown, depth: number, budget: Budget): unknown {
  if (--budget.values < 0) throw refused(`more than ${VALUE_TOKENS_MAX} values`);
  switch (typeof value) {
    case "boolean":
      return value;
    case "string":
      return countText(value, budget);
    case "number":
      if (Number.isFinite(value)) return value;
      throw refused(`the number ${value}`);
    case "bigint":
      if (!is64Bit(value)) throw refused("a whole number of more than 64 bits");
      return Number.isSafeInteger(Number(value)) ? Number(value) : value;
    case "object":
      return value === null ? null : copyContainer(value, depth + 1, budget);
    default:
      throw refused(`a value of type ${typeof value}`);
  }
}

function copyContainer(value: object, depth: number, budget: Budget): unknown {
  if (depth > VALUE_NESTING_MAX) throw refused(`values nested deeper than ${VALUE_NESTING_MAX}`);
  if (Array.isArray(value)) {
    // A sparse array may claim to be longer than memory.
    if (value.length > budget.values) throw refused(`more than ${VALUE_TOKENS_MAX} values`);
    return Array.from(value, (item) => copy(item, depth, budget));
  }
  const tag = Object.prototype.toString.call(value);
  if (tag !== "[object Object]") throw refused(`a value of type ${tag.slice(8, -1)}`);
  const members = {};
  for (const [key, member] of Object.entries(value)) {
    if (member === undefined) continue;
    addMember(members, countText(key, budget), copy(member, depth, budget));
  }
  return members;
}

function countText(text: string, budget: Budget): string {
  budget.characters -= text.length;
  if (budget.characters < 0) throw refused(`more than ${VALUE_BYTES_MAX} characters of text`);
  return text;
}

function refused(what: string): BlockError {
  return new BlockError("EINVAL", `QMP input must be JSON: ${what} cannot be in it`);
}
