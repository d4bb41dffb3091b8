/**
 * What blockdev-add takes, put together from the driver's own members, the roles it has, and what
 * every node has (QEMU: BlockdevOptions in qapi/block-core.json).
 */

import * as v from "valibot";
import { check } from "../base/check.ts";
import { BlockError } from "../base/errors.ts";
import type { BlockDriver, ChildRole, OptionEntries } from "./driver.ts";

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
  readonly log?: BlockdevRef;
  readonly [member: string]: unknown;
}

/** What every node is told, whatever its driver. */
export interface NodeSettings {
  /** Writes of zeroes become zero writes, which may free what they cover with "unmap". */
  readonly detectZeroes: DetectZeroes;
  /** "ignore": discards end here, and zero writes free nothing. */
  readonly discard: DiscardPolicy;
  /** Nothing here caches, so nothing could be passed by: it is only shown. */
  readonly direct: boolean;
  /** Flushes do not reach the store: fast, and a crash may take anything back. */
  readonly noFlush: boolean;
  /** Where the store cannot be written, open it for reading instead of failing. */
  readonly autoReadOnly: boolean;
  /** Its users may have whatever permissions the others have. */
  readonly forceShare: boolean;
}

/** Those of NodeSettings that a node opened with its parent has from it. */
export type InheritedSettings = Pick<NodeSettings, "direct" | "noFlush" | "autoReadOnly">;

export interface CheckedOptions {
  readonly nodeName: string | undefined;
  /** undefined: as the parent, or writable if there is none. */
  readonly readOnly: boolean | undefined;
  readonly settings: NodeSettings;
  readonly roles: ReadonlyMap<ChildRole, BlockdevRef | null>;
  /** The driver's own members. */
  readonly own: Readonly<Record<string, unknown>>;
}

/** What to do with a write of nothing but zeroes. */
export type DetectZeroes = "off" | "on" | "unmap";
/** What to do with discards. QEMU ignores them unless told otherwise, we pass them on. */
export type DiscardPolicy = "ignore" | "unmap";

/** What every node takes, whatever its driver. */
export const COMMON_OPTIONS = {
  "node-name": v.optional(v.string()),
  "read-only": v.optional(v.boolean()),
  "auto-read-only": v.optional(v.boolean()),
  "force-share": v.optional(v.boolean()),
  "detect-zeroes": v.optional(v.picklist(["off", "on", "unmap"])),
  discard: v.optional(v.picklist(["ignore", "unmap"])),
  cache: v.optional(
    v.strictObject({ direct: v.optional(v.boolean()), "no-flush": v.optional(v.boolean()) }),
  ),
};
type CommonOptions = v.InferOutput<v.ObjectSchema<typeof COMMON_OPTIONS, undefined>>;

/** Letters, digits, '-', '.', '_', a letter first (QEMU: id_wellformed()). */
const NODE_NAME = /^[A-Za-z][A-Za-z0-9\-._]*$/;
const NODE_NAME_CHARACTERS_MAX = 31;

/** A child in options. */
export const blockdevRef = v.union([v.string(), v.looseObject({ driver: v.string() })]);

/**
 * @param inherited what the node has from its parent where the options do not say
 * @param within dotted name of the parameter that the options are, if they are not all there is
 * @throws BlockError EINVAL that names the parameter
 */
export function checkOptions(
  driver: BlockDriver,
  options: BlockdevOptions,
  inherited: Partial<InheritedSettings> = {},
  within?: string,
): CheckedOptions {
  const schema = v.strictObject({
    driver: v.literal(driver.name),
    ...COMMON_OPTIONS,
    ...openEntries(driver, blockdevRef),
  });
  const checked = check(schema, options, within) as Record<string, unknown>;
  const roleOf = new Map(
    Object.keys(driver.roles).map((role) => [
      roleMember(driver, role as ChildRole),
      role as ChildRole,
    ]),
  );

  const roles = new Map<ChildRole, BlockdevRef | null>();
  const own: Record<string, unknown> = {};
  for (const [member, value] of Object.entries(checked)) {
    if (value === undefined || member === "driver" || member in COMMON_OPTIONS) continue;
    const role = roleOf.get(member);
    if (role) roles.set(role, value as BlockdevRef | null);
    else own[member] = value;
  }
  return { ...checkCommon(checked as CommonOptions, inherited), roles, own };
}

/**
 * What a driver takes besides the common options: its own members, and its children.
 *
 * @param ref schema of a child
 */
export function openEntries(driver: BlockDriver, ref: v.GenericSchema): OptionEntries {
  const entries: Record<string, v.GenericSchema> = { ...driver.openOptions };
  for (const [role, required] of Object.entries(driver.roles)) {
    const schema = role === "backing" ? v.nullable(ref) : ref;
    entries[roleMember(driver, role as ChildRole)] = required ? schema : v.optional(schema);
  }
  return entries;
}

/** What blockdev-add calls a child of this role. */
export function roleMember(driver: BlockDriver, role: ChildRole): string {
  return driver.roleMembers?.[role] ?? role;
}

function checkCommon(
  options: CommonOptions,
  inherited: Partial<InheritedSettings>,
): Omit<CheckedOptions, "roles" | "own"> {
  const nodeName = options["node-name"];
  const detectZeroes = options["detect-zeroes"] ?? "off";
  if (nodeName !== undefined) checkNodeName(nodeName);
  if (detectZeroes === "unmap" && options.discard !== "unmap") {
    throw new BlockError(
      "EINVAL",
      "'detect-zeroes' can be 'unmap' only together with 'discard': 'unmap'",
    );
  }
  const { cache } = options;
  return {
    nodeName,
    readOnly: options["read-only"],
    settings: {
      detectZeroes,
      discard: options.discard ?? "unmap",
      direct: cache?.direct ?? inherited.direct ?? false,
      noFlush: cache?.["no-flush"] ?? inherited.noFlush ?? false,
      autoReadOnly: options["auto-read-only"] ?? inherited.autoReadOnly ?? false,
      forceShare: options["force-share"] ?? false,
    },
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
