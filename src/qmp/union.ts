/**
 * Unions as QAPI has them: objects of which one member, the tag, says what the others are.
 *
 *      { "driver": "qcow2", "node-name": "n", "file": … }
 *        tag, an enum ↑      base ↑            ↑ members of the case "qcow2"
 *
 * valibot's own variant() neither checks in QEMU's order (the base, then the case, then what does
 * not belong there) nor does it keep what an introspection has to tell.
 */

import * as v from "valibot";

export interface Union {
  readonly tag: string;
  /** Members of all cases, the tag among them. */
  readonly base: v.ObjectEntries;
  /** By value of the tag. */
  readonly cases: Readonly<Record<string, v.ObjectEntries>>;
}

const UNIONS = new WeakMap<object, Union>();

/** @param base members of all cases, but for the tag */
export function union<Tag extends string>(
  tag: Tag,
  base: v.ObjectEntries,
  cases: Readonly<Record<string, v.ObjectEntries>>,
): v.GenericSchema<{ [T in Tag]: string } & { [member: string]: unknown }> {
  const all = { [tag]: v.picklist(Object.keys(cases)), ...base };
  const schemas = new Map(
    Object.entries(cases).map(([name, entries]) => [name, v.strictObject({ ...all, ...entries })]),
  );
  // With no such case it is the tag that is wrong, or not even an object.
  const none = v.strictObject(all);
  const schema = v.lazy((input) => {
    const value = (input as { [member: string]: unknown } | null | undefined)?.[tag];
    return (typeof value === "string" && schemas.get(value)) || none;
  });
  UNIONS.set(schema, { tag, base: all, cases });
  return schema as v.GenericSchema<unknown> as ReturnType<typeof union<Tag>>;
}

/** What union() was given, if it has made this schema. */
export function unionOf(schema: v.GenericSchema): Union | undefined {
  return UNIONS.get(schema);
}
