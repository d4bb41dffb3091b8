/**
 * Objects that are no nodes (QEMU: qapi/qom.json). There is one type, throttle-group, whose one
 * property is `limits`.
 */

import * as v from "valibot";
import { check } from "../../base/check.ts";
import { BlockError } from "../../base/errors.ts";
import type { Graph } from "../../block/graph.ts";
import type { ThrottleGroup } from "../../block/throttle-group.ts";
import { throttleLimits, withDefaults } from "../../block/throttle-limits.ts";
import { command, nothing } from "../schema.ts";
import { union } from "../union.ts";

/** As QEMU's id_wellformed(). */
const ID = /^[A-Za-z][A-Za-z0-9\-._]*$/;

/** Properties by type. */
const objectOptions = union(
  "qom-type",
  { id: v.string() },
  { "throttle-group": { limits: v.optional(throttleLimits) } },
);

export const objectAdd = command({
  name: "object-add",
  doc: "Makes an object: a throttle-group for throttle nodes.",
  args: {
    "qom-type": v.string(),
    id: v.string(),
  },
  open: true,
  exactArgs: () => objectOptions,
  returns: nothing,
  run({ graph }, { id, ...properties }) {
    if (!ID.test(id)) {
      throw new BlockError(
        "EINVAL",
        `Invalid object ID '${id}': letters, digits, '-', '.' and '_', starting with a letter`,
      );
    }
    const { limits = {} } = properties as { limits?: v.InferOutput<typeof throttleLimits> };
    graph.throttleGroups.add(id, limits);
    return {};
  },
});

export const objectDel = command({
  name: "object-del",
  doc: "Removes an object that nothing uses.",
  args: { id: v.string() },
  returns: nothing,
  run({ graph }, { id }) {
    graph.throttleGroups.remove(id);
    return {};
  },
});

export const qomGet = command({
  name: "qom-get",
  doc: "Tells a property of an object: the limits of a throttle-group.",
  args: {
    /** "/objects/ID", or the id alone. */
    path: v.string(),
    property: v.string(),
  },
  returns: throttleLimits,
  run: ({ graph }, { path, property }) => withDefaults(limitsOf(graph, path, property).limits),
});

export const qomSet = command({
  name: "qom-set",
  doc: "Changes a property of an object; limits of a throttle-group that are left out stay.",
  args: { path: v.string(), property: v.string(), value: v.unknown() },
  returns: nothing,
  run({ graph }, { path, property, value }) {
    limitsOf(graph, path, property).setLimits(check(throttleLimits, value, "value"));
    return {};
  },
});

/** @throws BlockError ENOENT (DeviceNotFound) for an object, EINVAL for a property there is not */
function limitsOf(graph: Graph, path: string, property: string): ThrottleGroup {
  const id = path.startsWith("/objects/") ? path.slice("/objects/".length) : path;
  const group = graph.throttleGroups.find(id);
  if (!group) {
    throw new BlockError("ENOENT", `There is no object '${path}'`, { class: "DeviceNotFound" });
  }
  if (property === "limits") return group;
  throw new BlockError("EINVAL", `Object '${path}' has no property '${property}'; it has 'limits'`);
}
