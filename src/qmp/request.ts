/**
 * One message of a client, taken apart: { "execute": name, "arguments": {…}, "id": any }. What is
 * wrong with it is told as QEMU tells it (qapi/qmp-dispatch.c).
 */

import { BlockError } from "../base/errors.ts";
import { JsonFloat } from "./json/numbers.ts";
import { addMember } from "./json/parser.ts";

export interface Request {
  readonly name: string;
  readonly args: object;
}

/**
 * @param message plain JSON
 * @param oob the client has enabled `oob`: commands may be sent with `exec-oob` as well
 * @throws BlockError EINVAL that names the member in the wrong
 */
export function parseRequest(message: unknown, oob: boolean): Request {
  if (!isObject(message)) throw new BlockError("EINVAL", "QMP input must be a JSON object");
  let verb: string | undefined;
  let name = "";
  let args: object = {};
  for (const [member, value] of Object.entries(message)) {
    if (member === "execute" || (member === "exec-oob" && oob)) {
      if (typeof value !== "string") throw wrongType(member, "a string");
      if (verb) {
        throw new BlockError("EINVAL", `QMP input member '${member}' clashes with '${verb}'`);
      }
      verb = member;
      name = value;
    } else if (member === "arguments") {
      if (!isObject(value)) throw wrongType(member, "an object");
      args = withoutFloats(value) as object;
    } else if (member !== "id") {
      throw new BlockError("EINVAL", `QMP input member '${member}' is unexpected`);
    }
  }
  if (!verb) throw new BlockError("EINVAL", "QMP input lacks member 'execute'");
  return { name, args };
}

/** It asks to be run at once, past what waits. */
export function isOutOfBand(message: unknown): boolean {
  return isObject(message) && "exec-oob" in message && !("execute" in message);
}

/** { id } as it came, to be repeated in the reply, or {} if there is none. */
export function idOf(message: unknown): { id?: unknown } {
  return isObject(message) && Object.hasOwn(message, "id") ? { id: message["id"] } : {};
}

function isObject(value: unknown): value is Record<string, unknown> {
  return (
    typeof value === "object" &&
    value !== null &&
    !Array.isArray(value) &&
    !(value instanceof JsonFloat)
  );
}

/**
 * Floats that are whole, 1.0 for example, as NaN: to what checks arguments a number that is no whole
 * one. Nesting is bounded by whoever made the value.
 */
function withoutFloats(value: unknown): unknown {
  if (value instanceof JsonFloat) return Number.NaN;
  if (Array.isArray(value)) return value.map(withoutFloats);
  if (!isObject(value)) return value;
  const members = {};
  for (const [key, member] of Object.entries(value)) addMember(members, key, withoutFloats(member));
  return members;
}

function wrongType(member: string, expected: string): BlockError {
  return new BlockError("EINVAL", `QMP input member '${member}' must be ${expected}`);
}
