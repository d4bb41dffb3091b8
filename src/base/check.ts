/**
 * Checks what comes in from outside (QMP arguments, driver options) against a valibot schema, and
 * says what is wrong with it as QEMU does: the parameter by its dotted name, and what was expected.
 */

import * as v from "valibot";
import { BlockError } from "./errors.ts";

type Issue = v.BaseIssue<unknown>;

/**
 * @param value plain JSON, as a client sent it; never changed
 * @param within dotted name of the parameter that `value` is, if it is not the whole
 * @returns the value, typed
 * @throws BlockError EINVAL (GenericError) that names the first parameter in the wrong
 */
export function check<Schema extends v.GenericSchema>(
  schema: Schema,
  value: unknown,
  within?: string,
): v.InferOutput<Schema> {
  const result = v.safeParse(schema, value, { abortEarly: true });
  if (result.success) return result.output;
  throw new BlockError("EINVAL", describe(result.issues[0], within));
}

function describe(issue: Issue, within: string | undefined): string {
  const name = nameOf(issue, within);
  const inside = closestMember(issue);
  if (inside) return describe(inside, name);
  // valibot tells a key that must not be there by an expectation of "never".
  if (issue.expected === "never") return `Parameter '${name}' is unexpected`;
  const last = issue.path?.at(-1);
  const missing = last !== undefined && "origin" in last && last.origin === "key";
  if (missing || (issue.received === "undefined" && issue.path)) {
    return `Parameter '${name}' is missing`;
  }
  const isChoice = issue.type === "variant" && issue.expected?.includes('"');
  if (isChoice || issue.type === "picklist" || issue.type === "literal") {
    return describeChoice(issue, name);
  }
  const isBeyond = issue.type === "safe_integer" && Number.isInteger(issue.input);
  if (isBeyond || (issue.type === "number" && typeof issue.input === "bigint")) {
    return `Parameter '${name}' expects a whole number within 2^53; got ${issue.input}`;
  }
  if (issue.kind === "schema" || issue.type === "safe_integer") {
    return `Invalid parameter type for '${name}', expected: ${typeName(issue)}`;
  }
  return `Parameter '${name}' expects ${issue.expected ?? issue.message}; got ${issue.received}`;
}

/** a.b[0].c, as QEMU writes it. */
function nameOf(issue: Issue, within = ""): string {
  let name = within;
  for (const { type, key } of issue.path ?? []) {
    if (type === "array") name += `[${key}]`;
    else name += name === "" ? key : `.${key}`;
  }
  return name || "arguments";
}

/** Of a choice of types: what is wrong inside the one that was meant, where that can be told. */
function closestMember(issue: Issue): Issue | undefined {
  if (issue.type !== "union") return undefined;
  return issue.issues?.find((member) => member.path !== undefined);
}

function describeChoice(issue: Issue, name: string): string {
  const isText = issue.expected?.includes('"');
  if (isText && typeof issue.input !== "string") {
    return `Invalid parameter type for '${name}', expected: string`;
  }
  const choice = issue.expected?.replace(/[()]/g, "").replaceAll(" | ", ", ").replaceAll('"', "'");
  return `Parameter '${name}' does not accept value '${issue.input}'; it takes ${choice}`;
}

/** In JSON's words; numbers are whole everywhere. */
function typeName(issue: Issue): string {
  if (issue.type === "safe_integer") return "integer";
  return (
    (issue.expected ?? issue.message)
      .replace(/[()]/g, "")
      .replaceAll(" | ", " or ")
      .replace("number", "integer")
      // What a lazy schema expects, which are objects.
      .replace("unknown", "object")
      .replace("Object", "object")
      .replace("Array", "array")
  );
}

/** A whole number of bytes, 0 .. 2^53-1 (QAPI: size, or int where a negative is refused later). */
export const size = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
