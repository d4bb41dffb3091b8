/**
 * Objects that are no nodes (QEMU: qapi/qom.json). Two types can be made, throttle-group and secret;
 * objects.ts draws the tree that they stand in.
 */

import * as v from "valibot";
import { check, size } from "../../base/check.ts";
import { BlockError } from "../../base/errors.ts";
import { type SecretProperties, secretOf, secretProperties } from "../../block/secret-object.ts";
import { LIMIT_MEMBERS, throttleLimits, withDefaults } from "../../block/throttle-limits.ts";
import {
  findObject,
  limitProperty,
  listTypes,
  propertiesOf,
  propertiesOfType,
  type QomObject,
} from "../objects.ts";
import { command, nothing } from "../schema.ts";
import { union } from "../union.ts";

/** As QEMU's id_wellformed(). */
const ID = /^[A-Za-z][A-Za-z0-9\-._]*$/;

type SingleLimit = `x-${(typeof LIMIT_MEMBERS)[number]}`;
const singleLimits = Object.fromEntries(
  LIMIT_MEMBERS.map((member) => [limitProperty(member), v.optional(size)]),
) as Record<SingleLimit, v.OptionalSchema<typeof size, undefined>>;

/** Limits together, and each on its own; of both `limits` counts. */
const groupProperties = { ...singleLimits, limits: v.optional(throttleLimits) };
type GroupProperties = v.InferOutput<v.StrictObjectSchema<typeof groupProperties, undefined>>;

/** Properties by type. */
const objectOptions = union(
  "qom-type",
  { id: v.string() },
  { secret: secretProperties, "throttle-group": groupProperties },
);

export const objectAdd = command({
  name: "object-add",
  doc: "Makes an object: a throttle-group for throttle nodes, or a secret for encrypted images.",
  args: {
    "qom-type": v.string(),
    id: v.string(),
  },
  open: true,
  exactArgs: () => objectOptions,
  returns: nothing,
  async run({ graph, readSecretFile }, { id, "qom-type": type, ...properties }) {
    if (!ID.test(id)) {
      throw new BlockError(
        "EINVAL",
        `Invalid object ID '${id}': letters, digits, '-', '.' and '_', starting with a letter`,
      );
    }
    if (type === "secret") {
      const { file, format = "raw" } = properties as SecretProperties;
      const secret = await secretOf(properties as SecretProperties, readSecretFile);
      checkFree(graph.throttleGroups.find(id) !== undefined, id);
      graph.secrets.add(id, secret, file === undefined ? undefined : { file, format });
      return {};
    }
    checkFree(graph.secrets.has(id), id);
    const { limits = {}, ...single } = properties as GroupProperties;
    const alone = LIMIT_MEMBERS.flatMap((member) => {
      const value = single[limitProperty(member)];
      return value === undefined ? [] : [[member, value]];
    });
    graph.throttleGroups.add(id, { ...Object.fromEntries(alone), ...limits });
    return {};
  },
});

export const objectDel = command({
  name: "object-del",
  doc: "Removes an object that nothing uses; images that a secret has unlocked stay so.",
  args: { id: v.string() },
  returns: nothing,
  run({ graph }, { id }) {
    if (graph.secrets.has(id)) graph.secrets.remove(id);
    else graph.throttleGroups.remove(id);
    return {};
  },
});

export const qomGet = command({
  name: "qom-get",
  doc: "Tells a property of an object, such as the limits of a throttle-group.",
  args: {
    /** "/objects/ID", or the id alone. */
    path: v.string(),
    property: v.string(),
  },
  returns: v.unknown(),
  run: ({ graph }, { path, property }) => propertyOf(findObject(graph, path), path, property),
});

export const qomSet = command({
  name: "qom-set",
  doc: "Changes a property of an object; limits of a throttle-group that are left out stay.",
  args: { path: v.string(), property: v.string(), value: v.unknown() },
  returns: nothing,
  run({ graph }, { path, property, value }) {
    const found = findObject(graph, path);
    propertyOf(found, path, property);
    if (!found.group || property !== "limits") {
      throw new BlockError("EPERM", `Property '${property}' of '${path}' cannot be set any more`);
    }
    found.group.setLimits(check(throttleLimits, value, "value"));
    return {};
  },
});

const propertyInfos = v.array(v.strictObject({ name: v.string(), type: v.string() }));

export const qomList = command({
  name: "qom-list",
  doc: "Lists the properties of an object, and the objects in it.",
  args: { path: v.string() },
  returns: propertyInfos,
  run: ({ graph }, { path }) => propertiesOf(findObject(graph, path)),
});

export const qomListTypes = command({
  name: "qom-list-types",
  doc: "Lists the types of objects.",
  args: {
    /** Only those that are, or implement, this one. */
    implements: v.optional(v.string()),
    /** Also those of which there can be no objects. */
    abstract: v.optional(v.boolean()),
  },
  returns: v.array(
    v.strictObject({
      name: v.string(),
      parent: v.exactOptional(v.string()),
      abstract: v.exactOptional(v.boolean()),
    }),
  ),
  run: (_context, args) => listTypes(args.implements, args.abstract ?? false),
});

export const qomListProperties = command({
  name: "qom-list-properties",
  doc: "Lists the properties that objects of a type have.",
  args: { typename: v.string() },
  returns: propertyInfos,
  run: (_context, { typename }) => propertiesOfType(typename),
});

function checkFree(isTaken: boolean, id: string): void {
  if (isTaken) throw new BlockError("EEXIST", `There is an object '${id}' already`);
}

/** @throws BlockError EINVAL for a property there is not */
function propertyOf(found: QomObject, path: string, property: string): unknown {
  const { type, children, group } = found;
  if (property === "type") return type;
  // It is kept as bytes, whatever it came as.
  if (type === "secret" && property === "format") return "raw";
  const limits = group && withDefaults(group.limits);
  if (limits && property === "limits") return limits;
  const member = LIMIT_MEMBERS.find((name) => limitProperty(name) === property);
  if (limits && member) return limits[member];
  if (children.has(property)) return `${path === "/" ? "" : path}/${property}`;
  throw new BlockError("EINVAL", `Object '${path}' has no property '${property}'`);
}
