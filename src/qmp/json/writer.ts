/**
 * Writes messages in QEMU's text form (qobject/json-writer.c): a space after ':' and ',', ASCII only,
 * numbers exactly, one message a line. The pretty form has a member a line, 4 spaces for each level.
 */

import { jsonString } from "../../base/json-string.ts";
import { JsonFloat, numberText } from "./numbers.ts";

const INDENT = "    ";
/** As a terminal wants it; QEMU's monitors write no other. */
const LINE_END = "\r\n";

/** One message on the wire, with its line end. */
export function messageText(message: object, pretty = false): string {
  return `${jsonText(message, pretty ? LINE_END : null)}${LINE_END}`;
}

/**
 * @param value of JSON's types, bigints and JsonFloats among them, not nested without end; members
 *   that are undefined are left out
 * @param newline what the pretty form ends lines with; null for the form in one line
 */
function jsonText(value: unknown, newline: string | null): string {
  if (typeof value === "string") return jsonString(value);
  if (typeof value === "number" || typeof value === "bigint" || value instanceof JsonFloat) {
    return numberText(value);
  }
  if (value === null || typeof value !== "object") return String(value);
  const inner = newline === null ? null : newline + INDENT;
  if (Array.isArray(value)) {
    return enclosed(
      "[",
      "]",
      newline,
      value.map((item) => jsonText(item, inner)),
    );
  }
  const members: string[] = [];
  for (const [key, member] of Object.entries(value)) {
    if (member !== undefined) members.push(`${jsonString(key)}: ${jsonText(member, inner)}`);
  }
  return enclosed("{", "}", newline, members);
}

function enclosed(open: string, close: string, newline: string | null, parts: string[]): string {
  if (newline === null) return `${open}${parts.join(", ")}${close}`;
  const inner = newline + INDENT;
  const first = parts.length > 0 ? inner : "";
  return `${open}${first}${parts.join(`,${inner}`)}${newline}${close}`;
}
