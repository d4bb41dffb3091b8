/**
 * QEMU's option lists, `driver=qcow2,file.driver=file,file.filename=a,,b`, as a tree of strings.
 *
 *   key=value,…        a comma in a value is written twice
 *   a.b=x              { a: { b: "x" } }
 *   a.0=x,a.1=y        { a: ["x", "y"] }; the numbers from 0 on, each once
 *   value,…            the first key may be left out where the option has an implied one
 *   help, ?            asks what there is to say
 *   a=x,a=y            the last one counts
 *
 * What a string means is decided by whoever knows the schema (from-keyval.ts). QEMU: util/keyval.c.
 */

import { BlockError } from "./errors.ts";

export type KeyvalTree = { readonly [key: string]: KeyvalValue };
export type KeyvalValue = string | readonly KeyvalValue[] | KeyvalTree;

export interface Keyval {
  readonly tree: KeyvalTree;
  /** `help` was among them. */
  readonly help: boolean;
}

/** Part of a key: a name as QAPI has them, or a number. */
const FRAGMENT = /^(?:__[A-Za-z0-9.-]+_)?[A-Za-z][A-Za-z0-9_-]*$|^[0-9]+$/;
/** Longer ones are refused (QEMU: 127). */
const FRAGMENT_CHARACTERS_MAX = 127;

type Branch = Map<string, string | Branch>;

/**
 * @param implied key of a first value that has none
 * @throws BlockError EINVAL that names the key
 */
export function parseKeyval(text: string, implied: string | null): Keyval {
  const root: Branch = new Map();
  let help = false;
  let rest = text;
  if (implied !== null) {
    const [first] = /^[^=,]*/.exec(text)!;
    const isValue = first !== "" && text[first.length] !== "=" && !isHelp(first);
    if (isValue) {
      put(root, implied, first);
      rest = text.slice(first.length + 1);
    }
  }
  while (rest !== "") {
    const [key] = /^[^=,]*/.exec(rest)!;
    rest = rest.slice(key.length);
    if (rest.startsWith("=")) {
      const [value] = /^(?:[^,]|,,)*/.exec(rest.slice(1))!;
      put(root, key, value.replaceAll(",,", ","));
      rest = rest.slice(1 + value.length);
    } else if (isHelp(key)) {
      help = true;
    } else if (key === "") {
      throw new BlockError("EINVAL", "Invalid parameter ''");
    } else {
      throw new BlockError("EINVAL", `Expected '=' after parameter '${key}'`);
    }
    rest = rest.slice(1);
  }
  return { tree: toTree(root), help };
}

function isHelp(key: string): boolean {
  return key === "help" || key === "?";
}

function put(root: Branch, key: string, value: string): void {
  const fragments = key.split(".").map((part) => part.replace(/^0+(?=[0-9]+$)/, ""));
  let branch = root;
  for (const [i, fragment] of fragments.entries()) {
    // The first part names a parameter, so it is no number.
    const isName = FRAGMENT.test(fragment) && !(i === 0 && /^[0-9]/.test(fragment));
    if (!isName || fragment.length > FRAGMENT_CHARACTERS_MAX) {
      throw new BlockError("EINVAL", `Invalid parameter '${key}'`);
    }
    const path = fragments.slice(0, i + 1).join(".");
    const there = branch.get(fragment);
    if (i === fragments.length - 1) {
      if (there instanceof Map) throw mixed(path);
      branch.set(fragment, value);
      return;
    }
    if (typeof there === "string") throw mixed(path);
    const next: Branch = there ?? new Map();
    branch.set(fragment, next);
    branch = next;
  }
}

function toTree(branch: Branch): KeyvalTree {
  return Object.fromEntries([...branch].map(([key, value]) => [key, toValue(value, key)]));
}

function toValue(value: string | Branch, path: string): KeyvalValue {
  if (typeof value === "string") return value;
  const keys = [...value.keys()];
  const numbers = keys.filter((key) => /^[0-9]/.test(key));
  if (numbers.length === 0) {
    return Object.fromEntries(
      [...value].map(([key, inner]) => [key, toValue(inner, `${path}.${key}`)]),
    );
  }
  if (numbers.length < keys.length) {
    throw new BlockError("EINVAL", `Parameters '${path}.*' are used both as a list and by name`);
  }
  return keys.map((_, i) => {
    const element = value.get(String(i));
    if (element === undefined) {
      throw new BlockError("EINVAL", `Parameter '${path}.${i}' is missing`);
    }
    return toValue(element, `${path}.${i}`);
  });
}

function mixed(path: string): BlockError {
  return new BlockError("EINVAL", `Parameters '${path}.*' and '${path}' do not go together`);
}
