/**
 * qemu-img's names for what an image is like (`cluster_size`) as the members that a driver takes to make it
 * or to change it (`cluster-size`).
 */

import { BlockError } from "../base/errors.ts";
import type { OptionValues } from "./create-options.ts";

const VERSIONS: ReadonlyMap<string, "v2" | "v3"> = new Map([
  ["0.10", "v2"],
  ["v2", "v2"],
  ["1.1", "v3"],
  ["v3", "v3"],
]);

/**
 * @param values checked by parseOptions(): nothing else is among them than the command takes
 * @param encrypt members of the encryption that go without saying
 * @throws BlockError EINVAL
 */
export function membersOf(values: OptionValues, encrypt: object = {}): Record<string, unknown> {
  const number = (name: string) => numberOf(values.get(name));
  const flag = (name: string) => booleanOf(values.get(name));
  const all = {
    version: versionOf(values),
    size: number("size"),
    "cluster-size": number("cluster_size"),
    "refcount-bits": number("refcount_bits"),
    "extended-l2": flag("extended_l2"),
    "compression-type": values.get("compression_type"),
    "backing-file": values.get("backing_file"),
    "backing-fmt": values.get("backing_fmt"),
    "lazy-refcounts": flag("lazy_refcounts"),
    "data-file": values.get("data_file"),
    "data-file-raw": flag("data_file_raw"),
    preallocation: values.get("preallocation"),
    encrypt: encryptOptions(values, encrypt),
  };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined));
}

/** @throws BlockError EINVAL */
export function versionOf(values: OptionValues): "v2" | "v3" | undefined {
  const compat = values.get("compat");
  const version = compat === undefined ? undefined : VERSIONS.get(compat);
  if (compat === undefined || version !== undefined) return version;
  throw new BlockError("EINVAL", `Parameter 'compat' takes v2 (0.10) or v3 (1.1), not '${compat}'`);
}

const NUMBERS = ["iter-time", "keyslot"];

function encryptOptions(values: OptionValues, implied: object): object | undefined {
  if (values.get("encryption") === "on") return { format: "qcow" };
  const members: [string, unknown][] = [];
  for (const [name, value] of values) {
    const [, member] = /^encrypt\.(.*)$/.exec(name) ?? [];
    if (member === undefined) continue;
    // As drivers call it where images are made.
    const known = member === "format" && value === "aes" ? "qcow" : value;
    members.push([member, NUMBERS.includes(member) ? Number(known) : known]);
  }
  return members.length > 0 ? { ...implied, ...Object.fromEntries(members) } : undefined;
}

function numberOf(text: string | undefined): number | undefined {
  return text === undefined ? undefined : Number(text);
}

function booleanOf(text: string | undefined): boolean | undefined {
  return text === undefined ? undefined : text === "on";
}
