/**
 * One message of a client, taken apart: { "execute": name, "arguments": {…}, "id": any }. What is
 * wrong with it is told as QEMU tells it (qapi/qmp-dispatch.c).
 */

import { BlockError } from "../base/errors.ts";

export interface Request {
  readonly name: string;
  readonly args: object;
}

/** @throws BlockError EINVAL that names the member in the wrong */
export function parseRequest(message: unknown): Request {
  if (!isObject(message)) throw new BlockError("EINVAL", "QMP input must be a JSON object");
  let name: string | undefined;
  let args: object = {};
  for (const [member, value] of Object.entries(message)) {
    if (member === "execute") {
      if (typeof value !== "string") throw wrongType(member, "a string");
      name = value;
    } else if (member === "arguments") {
      if (!isObject(value)) throw wrongType(member, "an object");
      args = value;
    } else if (member !== "id") {
      throw new BlockError("EINVAL", `QMP input member '${member}' is unexpected`);
    }
  }
  if (name === undefined) throw new BlockError("EINVAL", "QMP input lacks member 'execute'");
  return { name, args };
}

/** { id } as it came, to be repeated in the reply, or {} if there is none. */
export function idOf(message: unknown): { id?: unknown } {
  return isObject(message) && "id" in message ? { id: message["id"] } : {};
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function wrongType(member: string, expected: string): BlockError {
  return new BlockError("EINVAL", `QMP input member '${member}' must be ${expected}`);
}
