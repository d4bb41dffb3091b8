/**
 * Sets our schema against QEMU's, both resolved. Told are paths, as in SchemaGraph.has():
 *
 *     only ours     what a client of QEMU does not know of
 *     only theirs   members of what both have: a client of QEMU may want to use them
 *     unlike        both have it, and do not mean the same
 */

import type { SchemaInfo } from "../../../src/qmp/types.ts";
import type { Of, SchemaGraph } from "./types.ts";

export interface Differences {
  readonly onlyOurs: string[];
  readonly onlyTheirs: string[];
  readonly unlike: string[];
}

export function compareSchemas(ours: SchemaGraph, theirs: SchemaGraph): Differences {
  return new Comparison(ours, theirs).run();
}

class Comparison {
  readonly #ours: SchemaGraph;
  readonly #theirs: SchemaGraph;
  readonly #found: Differences = { onlyOurs: [], onlyTheirs: [], unlike: [] };
  readonly #seen = new Set<string>();

  constructor(ours: SchemaGraph, theirs: SchemaGraph) {
    this.#ours = ours;
    this.#theirs = theirs;
  }

  run(): Differences {
    for (const info of this.#ours.infos) {
      if (info["meta-type"] !== "command" && info["meta-type"] !== "event") continue;
      const other = this.#theirs.find(info.name);
      if (other) this.#compare(info, other, info.name);
      else this.#found.onlyOurs.push(info.name);
    }
    return this.#found;
  }

  #compare(a: SchemaInfo, b: SchemaInfo, path: string): void {
    // A pair of types is compared where it is met first.
    const pair = `${a.name} ${b.name}`;
    if (this.#seen.has(pair)) return;
    this.#seen.add(pair);
    this.#sets(a.features ?? [], b.features ?? [], `${path}/$`);
    if (a["meta-type"] !== b["meta-type"]) {
      this.#found.unlike.push(`${path}: ${a["meta-type"]}, ${b["meta-type"]}`);
      return;
    }
    switch (a["meta-type"]) {
      case "builtin":
        if (a.name !== b.name) this.#found.unlike.push(`${path}: ${a.name}, ${b.name}`);
        break;
      case "enum":
        this.#sets(namesOf(a.members), namesOf((b as Of<"enum">).members), `${path}/^`);
        break;
      case "array":
        this.#follow(a["element-type"], (b as Of<"array">)["element-type"], path);
        break;
      case "alternate":
        this.#alternates(a, b as Of<"alternate">, path);
        break;
      case "object":
        this.#objects(a, b as Of<"object">, path);
        break;
      case "command":
        this.#follow(a["ret-type"], (b as Of<"command">)["ret-type"], `${path}/ret-type`);
        this.#follow(a["arg-type"], (b as Of<"command">)["arg-type"], `${path}/arg-type`);
        break;
      case "event":
        this.#follow(a["arg-type"], (b as Of<"event">)["arg-type"], `${path}/arg-type`);
    }
  }

  #follow(a: string, b: string, path: string): void {
    this.#compare(this.#ours.get(a), this.#theirs.get(b), path);
  }

  #objects(a: Of<"object">, b: Of<"object">, path: string): void {
    this.#sets(namesOf(a.members), namesOf(b.members), `${path}/`);
    for (const member of a.members) {
      const other = b.members.find(({ name }) => name === member.name);
      if (!other) continue;
      const inner = `${path}/${member.name}`;
      this.#optional(inner, "default" in member, "default" in other);
      this.#sets(member.features ?? [], featuresOf(other), `${inner}/$`);
      this.#follow(member.type, other.type, inner);
    }
    if (a.tag !== b.tag) this.#found.unlike.push(`${path}: tag ${a.tag}, ${b.tag}`);
    for (const { case: name, type } of a.variants ?? []) {
      const other = b.variants?.find((variant) => variant.case === name);
      if (other) this.#follow(type, other.type, `${path}/+${name}`);
    }
  }

  /** Whoever asks may be asked for less, and be told more, than he reckons with. */
  #optional(path: string, ours: boolean, theirs: boolean): void {
    const isAnswer = !path.includes("/arg-type") || /^[A-Z]/.test(path);
    if (ours === theirs || ours !== isAnswer) return;
    this.#found.unlike.push(`${path}: ${ours ? "optional" : "mandatory"} here`);
  }

  /** By what JSON has for them: at most one of each. */
  #alternates(a: Of<"alternate">, b: Of<"alternate">, path: string): void {
    const kinds = ({ members }: Of<"alternate">, graph: SchemaGraph) =>
      new Map(members.map(({ type }) => [graph.get(type)["meta-type"] + builtinOf(type), type]));
    const [mine, yours] = [kinds(a, this.#ours), kinds(b, this.#theirs)];
    this.#sets([...mine.keys()], [...yours.keys()], `${path}/|`);
    for (const [kind, type] of mine) {
      const other = yours.get(kind);
      if (other !== undefined) this.#follow(type, other, path);
    }
  }

  #sets(a: readonly string[], b: readonly string[], prefix: string): void {
    this.#found.onlyOurs.push(...a.filter((one) => !b.includes(one)).map((one) => prefix + one));
    this.#found.onlyTheirs.push(...b.filter((one) => !a.includes(one)).map((one) => prefix + one));
  }
}

function builtinOf(type: string): string {
  return /^[a-z]/.test(type) ? ` ${type}` : "";
}

function namesOf(members: readonly { readonly name: string }[]): string[] {
  return members.map(({ name }) => name);
}

function featuresOf(member: object): string[] {
  return (member as { features?: string[] }).features ?? [];
}
