/** Arguments by the schema, and arguments that break it in one place. All chance is the dice's. */

import type { Dice } from "../../model/dice.ts";
import type { Of, SchemaGraph } from "./types.ts";

type Members = Record<string, unknown>;

/** Deeper than this only what must be there. */
const DEPTH_MAX = 4;
const TEXTS = ["", "a", "node0", "é", "x".repeat(40), "file:///", "__proto__"];
const INTEGERS = [0, 1, 512, 65536, 2 ** 31, 2 ** 32, 2 ** 53 - 1];

/** Values of members, where the type leaves them open. */
export interface Leaves {
  text(member: string): string;
  integer(member: string): number;
}

export class Generator {
  readonly #graph: SchemaGraph;
  readonly #dice: Dice;
  readonly #leaves: Leaves;

  /** @param leaves default: a few texts and numbers, whatever the member */
  constructor(graph: SchemaGraph, dice: Dice, leaves?: Leaves) {
    this.#graph = graph;
    this.#dice = dice;
    this.#leaves = leaves ?? {
      text: () => dice.pick(TEXTS),
      integer: () => dice.pick(INTEGERS),
    };
  }

  /** @param member that the value is of, for what the type leaves open */
  value(type: string, depth = 0, member = ""): unknown {
    const info = this.#graph.get(type);
    switch (info["meta-type"]) {
      case "builtin":
        return this.#builtin(info.name, member);
      case "enum":
        return this.#dice.pick(info.values);
      case "array":
        return Array.from({ length: this.#dice.below(depth > DEPTH_MAX ? 1 : 3) }, () =>
          this.value(info["element-type"], depth + 1, member),
        );
      case "alternate": {
        const shallow = info.members.filter(
          (one) => this.#graph.get(one.type)["meta-type"] === "builtin",
        );
        const choice = depth > DEPTH_MAX && shallow.length > 0 ? shallow : info.members;
        return this.value(this.#dice.pick(choice).type, depth + 1, member);
      }
      case "object":
        return this.object(info, depth);
      default:
        throw new Error(`'${type}' is no type`);
    }
  }

  object(info: Of<"object">, depth: number): Members {
    const made = this.#members(info, depth);
    const variant = info.variants?.find((one) => one.case === made[info.tag!]);
    if (!variant) return made;
    return { ...made, ...this.object(this.#graph.get(variant.type) as Of<"object">, depth) };
  }

  /** The same arguments with one thing wrong; null if there is nothing to be done wrong. */
  broken(type: string, args: Members): Members | null {
    const info = this.#graph.get(type) as Of<"object">;
    const variant = info.variants?.find((one) => one.case === args[info.tag!]);
    const own = variant ? (this.#graph.get(variant.type) as Of<"object">).members : [];
    const members = [...info.members, ...own];
    const there = members.filter(({ name }) => Object.hasOwn(args, name));
    const must = there.filter((member) => !("default" in member));
    switch (this.#dice.below(3)) {
      case 0:
        return { ...args, "no-such-member": 1 };
      case 1: {
        if (must.length === 0) return null;
        const { [this.#dice.pick(must).name]: _, ...rest } = args;
        return rest;
      }
      default: {
        if (there.length === 0) return null;
        const { name, type: inner } = this.#dice.pick(there);
        const wrong = this.#wrong(inner);
        return wrong === undefined ? null : { ...args, [name]: wrong };
      }
    }
  }

  #members({ members }: Of<"object">, depth: number): Members {
    const made: Members = {};
    for (const member of members) {
      const isLeftOut = "default" in member && (depth > DEPTH_MAX || this.#dice.oneIn(2));
      if (!isLeftOut) made[member.name] = this.value(member.type, depth + 1, member.name);
    }
    return made;
  }

  #builtin(name: string, member: string): unknown {
    switch (name) {
      case "str":
        return this.#leaves.text(member);
      case "int":
        return this.#leaves.integer(member);
      case "bool":
        return this.#dice.oneIn(2);
      default:
        return null;
    }
  }

  /** What the type does not take; undefined if it takes anything. */
  #wrong(type: string): unknown {
    const info = this.#graph.get(type);
    switch (info["meta-type"]) {
      case "builtin":
        if (info.name === "any") return undefined;
        return info.name === "str" ? 1 : "wrong";
      case "enum":
        return this.#dice.pick(["no-such-value", 1, null]);
      default:
        return 1.5;
    }
  }
}
