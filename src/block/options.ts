/**
 * What blockdev-add takes, put together from the driver's own members, the roles it has, and what
 * every node has (QEMU: BlockdevOptions in qapi/block-core.json).
 */

import * as v from "valibot";
import { check } from "../base/check.ts";
import { BlockError } from "../base/errors.ts";
import type { BlockDriver, ChildRole } from "./driver.ts";

/** A child: the name of a node that is there, or the options of one to open with its parent. */
export type BlockdevRef = string | BlockdevOptions;

/** As it comes in JSON: driver, node-name, read-only, roles, and the driver's own members. */
export interface BlockdevOptions {
  readonly driver: string;
  readonly "node-name"?: string;
  readonly "read-only"?: boolean;
  readonly file?: BlockdevRef;
  readonly backing?: BlockdevRef | null;
  readonly "data-file"?: BlockdevRef;
  readonly target?: BlockdevRef;
  readonly [member: string]: unknown;
}

export interface CheckedOptions {
  readonly nodeName: string | undefined;
  /** undefined: as the parent, or writable if there is none. */
  readonly readOnly: boolean | undefined;
  readonly roles: ReadonlyMap<ChildRole, BlockdevRef | null>;
  /** The driver's own members. */
  readonly own: Readonly<Record<string, unknown>>;
}

/** Letters, digits, '-', '.', '_', a letter first (QEMU: id_wellformed()). */
const NODE_NAME = /^[A-Za-z][A-Za-z0-9\-._]*$/;
const NODE_NAME_CHARACTERS_MAX = 31;

const ref = v.union([v.string(), v.looseObject({ driver: v.string() })]);

/** @throws BlockError EINVAL that names the parameter */
export function checkOptions(driver: BlockDriver, options: BlockdevOptions): CheckedOptions {
  const entries: Record<string, v.GenericSchema> = {
    driver: v.literal(driver.name),
    "node-name": v.optional(v.string()),
    "read-only": v.optional(v.boolean()),
    ...driver.openOptions,
  };
  for (const [role, required] of Object.entries(driver.roles)) {
    const schema = role === "backing" ? v.nullable(ref) : ref;
    entries[role] = required ? schema : v.optional(schema);
  }
  const checked = check(v.strictObject(entries), options) as Record<string, unknown>;

  const { driver: _driver, "node-name": nodeName, "read-only": readOnly, ...rest } = checked;
  const roles = new Map<ChildRole, BlockdevRef | null>();
  const own: Record<string, unknown> = {};
  for (const [member, value] of Object.entries(rest)) {
    if (value === undefined) continue;
    if (member in driver.roles) roles.set(member as ChildRole, value as BlockdevRef | null);
    else own[member] = value;
  }
  if (nodeName !== undefined) checkNodeName(nodeName as string);
  return {
    nodeName: nodeName as string | undefined,
    readOnly: readOnly as boolean | undefined,
    roles,
    own,
  };
}

export function checkNodeName(name: string): void {
  if (NODE_NAME.test(name) && name.length <= NODE_NAME_CHARACTERS_MAX) return;
  throw new BlockError(
    "EINVAL",
    `Invalid node name '${name}': at most ${NODE_NAME_CHARACTERS_MAX} letters, digits, '-', '.' ` +
      "and '_', starting with a letter",
  );
}
