/**
 * Where an image's bytes are: a store's own options, as blockdev-add takes them.
 *
 *     { "driver": "opfs", "filename": "disk.qcow2" }        path /opfs/disk.qcow2
 *     { "driver": "indexeddb", "name": "disk" }             path /indexeddb/disk
 *     { "driver": "file", "filename": "/home/a/disk.raw" }  path /home/a/disk.raw
 *     { "driver": "http", "url": "https://…" }              no path
 *
 * libvirt names disks by target ("vda") or by source path. Which it is, the first character tells: paths
 * begin with a slash. What a browser's stores keep has names without folders, so here their paths are
 * the store and the name: no two images share one, and none can be taken for a target.
 */

import * as v from "valibot";
import { DomainError } from "./errors.ts";

export const sourceSchema = v.looseObject({ driver: v.string() });
export type Source = v.InferOutput<typeof sourceSchema>;

/** Stores in which images can be made, and what they call a name. */
const NAME_MEMBER: Readonly<Record<string, string>> = {
  file: "filename",
  opfs: "filename",
  indexeddb: "name",
  memory: "name",
};

function nameOf(source: Source): string | null {
  const member = NAME_MEMBER[source.driver];
  const name = member === undefined ? undefined : source[member];
  return typeof name === "string" ? name : null;
}

/** null: it has none. */
export function pathOf(source: Source): string | null {
  const name = nameOf(source);
  if (name === null || source.driver === "file") return name;
  return `/${source.driver}/${name}`;
}

/** @throws DomainError INVALID_ARG unless it is a path */
export function fromPath(path: string): Source {
  const [, driver, name] = /^\/(opfs|indexeddb|memory)\/([^/]+)$/.exec(path) ?? [];
  if (driver !== undefined) return { driver, [NAME_MEMBER[driver]!]: name };
  if (path.startsWith("/")) return { driver: "file", filename: path };
  throw new DomainError("INVALID_ARG", `'${path}' is not an absolute path`);
}

/** @throws DomainError of that code: a relative name would depend on who reads it */
export function checkSource(source: Source, code: "XML_ERROR" | "INVALID_ARG"): void {
  const name = nameOf(source);
  if (source.driver === "file" && name !== null && !name.startsWith("/")) {
    throw new DomainError(code, `The file name '${name}' is not an absolute path`);
  }
}

/**
 * What blockdev-create takes to make it, empty.
 *
 * @throws DomainError CONFIG_UNSUPPORTED where nothing can be made
 */
export function createOptions(source: Source, size: number): Record<string, unknown> {
  const name = nameOf(source);
  if (name === null) {
    const isStore = source.driver in NAME_MEMBER;
    const why = isStore ? "it has no name" : `driver '${source.driver}' makes none`;
    const text = `No image can be made at '${describeSource(source)}': ${why}`;
    throw new DomainError("CONFIG_UNSUPPORTED", text);
  }
  return { driver: source.driver, [NAME_MEMBER[source.driver]!]: name, size };
}

/** For people: the path, or what else it is known by. */
export function describeSource(source: Source): string {
  const { url } = source as { url?: unknown };
  return pathOf(source) ?? (typeof url === "string" ? url : JSON.stringify(source));
}

/** What an image above writes into its header: a label, never followed. */
export function labelOf(source: Source): string {
  return describeSource(source);
}
