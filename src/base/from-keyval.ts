/**
 * Strings of an option list as the values that a schema wants: numbers, booleans, lists. What does
 * not fit stays a string, and the schema's own check says what is wrong with it.
 *
 * A boolean is on or off, also yes, no, true, false, y, n; an integer may be hexadecimal (0x10) or
 * octal (010). QEMU: qapi/qobject-input-visitor.c, the keyval variant.
 */

import type * as v from "valibot";
import { BlockError } from "./errors.ts";
import type { KeyvalTree, KeyvalValue } from "./keyval.ts";

/** What is looked at of a valibot schema; each kind has some of it. */
interface Shape {
  readonly type: string;
  readonly wrapped?: Shape;
  readonly getter?: (input: unknown) => Shape;
  readonly entries?: Readonly<Record<string, Shape>>;
  readonly item?: Shape;
  readonly key?: string;
  readonly options?: readonly (Shape | string)[];
  readonly literal?: unknown;
}

/** @throws BlockError EINVAL that names a parameter that is no number or boolean but has to be */
export function fromKeyval(schema: v.GenericSchema, tree: KeyvalTree): Record<string, unknown> {
  return convert(schema as unknown as Shape, tree, "") as Record<string, unknown>;
}

function convert(shape: Shape, value: KeyvalValue, path: string): unknown {
  const { type, wrapped, getter, item } = shape;
  if (wrapped) return convert(wrapped, value, path);
  if (getter) return convert(getter(value), value, path);
  if (type === "union" || type === "variant") {
    const member = choose(shape, value);
    return member ? convert(member, value, path) : value;
  }
  if (typeof value === "string") return convertString(type, value, path);
  if (Array.isArray(value)) {
    return item ? value.map((element, i) => convert(item, element, join(path, String(i)))) : value;
  }
  const { entries } = shape;
  if (!entries) return value;
  return Object.fromEntries(
    Object.entries(value as KeyvalTree).map(([key, inner]) => {
      const entry = Object.hasOwn(entries, key) ? entries[key] : undefined;
      return [key, entry ? convert(entry, inner, join(path, key)) : inner];
    }),
  );
}

function convertString(type: string, text: string, path: string): unknown {
  if (type === "boolean") return toBoolean(text, path);
  if (type === "number" || type === "bigint") return toInteger(text, path);
  return text;
}

function toBoolean(text: string, path: string): boolean {
  if (["on", "yes", "true", "y"].includes(text)) return true;
  if (["off", "no", "false", "n"].includes(text)) return false;
  throw new BlockError("EINVAL", `Parameter '${path}' expects 'on' or 'off'; got '${text}'`);
}

const INTEGER = /^([+-]?)(?:0[xX]([0-9a-fA-F]+)|(0[0-7]*)|([1-9][0-9]*))$/;

function toInteger(text: string, path: string): number {
  const match = INTEGER.exec(text);
  if (!match) throw new BlockError("EINVAL", `Parameter '${path}' expects integer; got '${text}'`);
  const [, sign, hex, octal, decimal] = match;
  const [digits, radix] = hex ? [hex, 16] : octal ? [octal, 8] : [decimal!, 10];
  const number = Number.parseInt(digits, radix);
  return sign === "-" && number !== 0 ? -number : number;
}

/** Of a choice, the member that is meant: told by the tag, or by what the value is. */
function choose(shape: Shape, value: KeyvalValue): Shape | undefined {
  const members = (shape.options ?? [])
    .filter((member) => typeof member !== "string")
    .map((member) => resolved(member, value));
  const kinds = kindsOf(value);
  const { key } = shape;
  for (const kind of kinds) {
    const fitting = members.filter((member) => kind.includes(member.type));
    const tagged = fitting.find((member) => hasTag(member, value, key));
    if (tagged ?? fitting[0]) return tagged ?? fitting[0];
  }
  return undefined;
}

/** Types that such a value may become, the likeliest first. */
function kindsOf(value: KeyvalValue): string[][] {
  if (typeof value === "string") {
    return [["string", "picklist", "enum", "literal"], ["boolean"], ["number", "bigint"]];
  }
  if (Array.isArray(value)) return [["array"]];
  return [["object", "strict_object", "loose_object", "variant", "union"]];
}

/** Every literal that the member asks for is there. */
function hasTag(member: Shape, value: KeyvalValue, key: string | undefined): boolean {
  if (typeof value === "string" || Array.isArray(value)) return false;
  const literals = Object.entries(member.entries ?? {}).filter(
    ([name, entry]) => entry.type === "literal" && (key === undefined || name === key),
  );
  const tree = value as KeyvalTree;
  return literals.length > 0 && literals.every(([name, { literal }]) => tree[name] === literal);
}

function resolved(shape: Shape, value: KeyvalValue): Shape {
  if (shape.wrapped) return resolved(shape.wrapped, value);
  return shape.getter ? resolved(shape.getter(value), value) : shape;
}

function join(path: string, key: string): string {
  return path === "" ? key : `${path}.${key}`;
}
