/**
 * Objects that are no nodes, as a tree of paths (QEMU: qom/, qapi/qom.json).
 *
 *     /                    container
 *     ├── backend          container, empty
 *     ├── chardevs         container, empty
 *     └── objects          container: what object-add has made
 *         ├── t0           throttle-group: limits, and each limit as x-…
 *         └── s0           secret: what it holds is never told
 *
 * There are no iothread objects: there is one thread, and an object that says otherwise would be a lie.
 */

import { BlockError } from "../base/errors.ts";
import type { Graph } from "../block/graph.ts";
import type { ThrottleGroup } from "../block/throttle-group.ts";
import { LIMIT_MEMBERS } from "../block/throttle-limits.ts";

/** A property, as qom-list and qom-list-properties tell it. */
export interface PropertyInfo {
  readonly name: string;
  readonly type: string;
}

export interface TypeInfo {
  readonly name: string;
  readonly parent?: string;
  readonly abstract?: boolean;
}

/** What a path leads to. */
export interface QomObject {
  readonly type: "container" | "throttle-group" | "secret";
  /** Of a container: names, and where they lead. */
  readonly children: ReadonlyMap<string, QomObject>;
  readonly group?: ThrottleGroup;
}

const TYPES: readonly (TypeInfo & { readonly implements: readonly string[] })[] = [
  { name: "container", parent: "object", implements: [] },
  { name: "secret", parent: "secret_common", implements: ["user-creatable"] },
  { name: "secret_common", parent: "object", abstract: true, implements: [] },
  { name: "throttle-group", parent: "object", implements: ["user-creatable"] },
  { name: "user-creatable", parent: "interface", abstract: true, implements: [] },
];

const NO_CHILDREN: ReadonlyMap<string, QomObject> = new Map();
const EMPTY: QomObject = { type: "container", children: NO_CHILDREN };
const TYPE_PROPERTY: PropertyInfo = { name: "type", type: "string" };

/** QEMU's also has `data`, and tells it to whoever asks. */
const SECRET_PROPERTIES: PropertyInfo[] = [
  TYPE_PROPERTY,
  { name: "format", type: "QCryptoSecretFormat" },
];

/** What object-add and qom-get call a limit on its own. */
export const limitProperty = <Member extends string>(member: Member): `x-${Member}` =>
  `x-${member}`;

export function listTypes(implementing: string | undefined, abstract: boolean): TypeInfo[] {
  return TYPES.filter((type) => abstract || !type.abstract)
    .filter(
      ({ name, implements: interfaces }) =>
        implementing === undefined ||
        implementing === "object" ||
        implementing === name ||
        interfaces.includes(implementing),
    )
    .map(({ implements: _, ...info }) => info);
}

/** @throws BlockError ENOENT (DeviceNotFound) for a type there is not */
export function propertiesOfType(typename: string): PropertyInfo[] {
  if (typename === "container") return [TYPE_PROPERTY];
  if (typename === "secret") return SECRET_PROPERTIES;
  if (typename !== "throttle-group") throw notFound(`type '${typename}'`);
  return [
    TYPE_PROPERTY,
    { name: "limits", type: "ThrottleLimits" },
    ...LIMIT_MEMBERS.map((member) => ({ name: limitProperty(member), type: "int" })),
  ];
}

export function propertiesOf({ type, children }: QomObject): PropertyInfo[] {
  const inside = [...children].map(([name, child]) => ({ name, type: `child<${child.type}>` }));
  return [...propertiesOfType(type), ...inside];
}

/**
 * @param path from "/", or the end of a path, which must mean one object
 * @throws BlockError ENOENT (DeviceNotFound)
 */
export function findObject(graph: Graph, path: string): QomObject {
  const root = tree(graph);
  const parts = path.split("/").filter((part) => part !== "");
  const found = path.startsWith("/")
    ? walk(root, parts)
    : (walk(root, parts) ?? walk(root.children.get("objects"), parts));
  if (found) return found;
  throw notFound(`object '${path}'`);
}

function tree(graph: Graph): QomObject {
  const groups = [...graph.throttleGroups.all].map(([name, group]): [string, QomObject] => [
    name,
    { type: "throttle-group", children: NO_CHILDREN, group },
  ]);
  const secrets = [...graph.secrets.ids].map((name): [string, QomObject] => [
    name,
    { type: "secret", children: NO_CHILDREN },
  ]);
  const objects: QomObject = { type: "container", children: new Map([...groups, ...secrets]) };
  const children = new Map([
    ["backend", EMPTY],
    ["objects", objects],
    ["chardevs", EMPTY],
  ]);
  return { type: "container", children };
}

function walk(from: QomObject | undefined, parts: readonly string[]): QomObject | undefined {
  return parts.reduce((at, part) => at?.children.get(part), from);
}

function notFound(what: string): BlockError {
  return new BlockError("ENOENT", `There is no ${what}`, { class: "DeviceNotFound" });
}
