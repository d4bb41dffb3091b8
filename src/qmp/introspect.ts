/**
 * What query-qmp-schema tells, made from the schemas that check what comes in (QEMU:
 * qapi/introspect.json): a flat list in which commands and events have their names, and all other
 * types have numbers instead, since their names are no promise.
 *
 *      command ──arg-type──▶ object ──members──▶ enum, builtin, array, alternate, object …
 *                              └─ tag, variants ─▶ object
 *
 * One that is used in many places is listed once. A type may lead back to itself.
 */

import * as v from "valibot";
import { assert } from "../base/errors.ts";
import type { HostTypes } from "./host-types.ts";
import { argumentSchema, type Command } from "./schema.ts";
import type { SchemaInfo, SchemaInfoObject } from "./types.ts";
import { type Union, unionOf } from "./union.ts";

/** A valibot schema of whatever kind, as far as it is looked into here. */
interface Schema extends v.GenericSchema {
  readonly wrapped?: Schema;
  readonly item?: Schema;
  readonly entries?: Readonly<Record<string, Schema>>;
  readonly options?: readonly unknown[];
  readonly literal?: unknown;
  readonly key?: string;
  readonly getter?: (input: unknown) => Schema;
}

const BUILTINS = {
  string: { name: "str", "json-type": "string" },
  number: { name: "int", "json-type": "int" },
  boolean: { name: "bool", "json-type": "boolean" },
  null: { name: "null", "json-type": "null" },
  unknown: { name: "any", "json-type": "value" },
} as const;

const UNSTABLE = /^x-/;

export function introspect(
  commands: Iterable<Command>,
  events: Readonly<Record<string, v.GenericSchema>>,
  types: HostTypes,
): SchemaInfo[] {
  return new Introspection().run(commands, events, types);
}

class Introspection {
  readonly #entities: SchemaInfo[] = [];
  readonly #types: SchemaInfo[] = [];
  /** Of schemas, and of the entries of objects: what is made of the same parts is the same type. */
  readonly #names = new Map<object, string>();
  /** Of enums and arrays, by their contents. */
  readonly #namesByText = new Map<string, string>();
  readonly #empty: object = {};
  #count = 0;

  run(
    commands: Iterable<Command>,
    events: Readonly<Record<string, v.GenericSchema>>,
    types: HostTypes,
  ): SchemaInfo[] {
    for (const command of commands) this.#addCommand(command, types);
    for (const [name, schema] of Object.entries(events)) {
      this.#entities.push({ name, "meta-type": "event", "arg-type": this.#typeOf(schema) });
    }
    return [...this.#entities, ...this.#types];
  }

  #addCommand(command: Command, types: HostTypes): void {
    const { name, deprecated, returns } = command;
    const schema = argumentSchema(command, types);
    const old = Array.isArray(deprecated) ? deprecated : [];
    this.#entities.push({
      name,
      "meta-type": "command",
      "arg-type": this.#typeOf(schema, old),
      "ret-type": this.#typeOf(returns),
      ...featuresOf(name, deprecated === true),
    });
  }

  /** The name of its type; adds it if it is not there yet. */
  #typeOf(anySchema: v.GenericSchema, deprecated: readonly string[] = []): string {
    const schema = anySchema as Schema;
    const union = unionOf(schema);
    if (union) return this.#once(union, (name) => this.#addUnion(name, union));
    switch (schema.type) {
      case "string":
      case "number":
      case "boolean":
      case "null":
      case "unknown":
        return this.#builtin(BUILTINS[schema.type]);
      case "optional":
      case "exact_optional":
        return this.#typeOf(schema.wrapped!);
      case "nullable":
        return this.#once(schema, (name) => this.#addNullable(name, schema.wrapped!));
      case "lazy":
        return this.#typeOf(schema.getter!(undefined));
      case "array":
        return this.#array(schema.item!);
      case "picklist":
        // A choice of numbers is an int in QAPI, which checks it later.
        if (typeof schema.options![0] === "number") return this.#builtin(BUILTINS.number);
        return this.#enum(schema.options as readonly string[]);
      case "literal":
        return this.#enum([schema.literal as string]);
      case "union":
        return this.#once(schema, (name) => this.#addAlternate(name, schema.options as Schema[]));
      case "variant":
        return this.#once(schema, (name) => this.#addUnion(name, unionOfVariant(schema)));
      case "strict_object": {
        const entries = schema.entries!;
        const key = Object.keys(entries).length === 0 ? this.#empty : entries;
        return this.#once(key, (name) => {
          this.#addObject(name, { members: this.#members(entries, deprecated) });
        });
      }
    }
    assert(false, `query-qmp-schema knows the kind '${schema.type}' of schemas`);
  }

  #once(key: object, add: (name: string) => void): string {
    const known = this.#names.get(key);
    if (known !== undefined) return known;
    const name = String(this.#count++);
    // Before it is added: it may lead back to itself.
    this.#names.set(key, name);
    add(name);
    return name;
  }

  #onceByText(text: string, newName: () => string, add: (name: string) => void): string {
    const known = this.#namesByText.get(text);
    if (known !== undefined) return known;
    const name = newName();
    this.#namesByText.set(text, name);
    add(name);
    return name;
  }

  #builtin(builtin: (typeof BUILTINS)[keyof typeof BUILTINS]): string {
    const { name } = builtin;
    return this.#onceByText(
      name,
      () => name,
      () => this.#types.push({ ...builtin, "meta-type": "builtin" }),
    );
  }

  #array(item: Schema): string {
    const element = this.#typeOf(item);
    return this.#onceByText(
      `[${element}]`,
      () => `[${element}]`,
      (name) => this.#types.push({ name, "meta-type": "array", "element-type": element }),
    );
  }

  #enum(values: readonly string[]): string {
    return this.#onceByText(
      `enum ${values.join()}`,
      () => String(this.#count++),
      (name) =>
        this.#types.push({
          name,
          "meta-type": "enum",
          members: values.map((value) => ({ name: value, ...featuresOf(value) })),
          values: [...values],
        }),
    );
  }

  #addAlternate(name: string, options: readonly Schema[]): void {
    const members = options.map((option) => ({ type: this.#typeOf(option) }));
    this.#types.push({ name, "meta-type": "alternate", members });
  }

  /** null besides whatever the schema takes. */
  #addNullable(name: string, inner: Schema): void {
    const schema = inner.type === "lazy" ? inner.getter!(undefined) : inner;
    const options = schema.type === "union" ? (schema.options as Schema[]) : [schema];
    this.#addAlternate(name, [...options, v.null() as v.GenericSchema as Schema]);
  }

  #addUnion(name: string, { tag, base, cases }: Union): void {
    const members = this.#members(base, []);
    const variants = Object.entries(cases).map(([value, entries]) => ({
      case: value,
      type: this.#typeOf(v.strictObject(entries)),
    }));
    this.#addObject(name, { members, tag, variants });
  }

  #addObject(name: string, info: Omit<SchemaInfoObject, "name" | "meta-type">): void {
    this.#types.push({ name, "meta-type": "object", ...info });
  }

  #members(
    entries: v.ObjectEntries,
    deprecated: readonly string[],
  ): SchemaInfoObject["members"][number][] {
    return Object.entries(entries).map(([name, schema]) => ({
      name,
      type: this.#typeOf(schema as v.GenericSchema),
      ...(/optional$/.test(schema.type) && { default: null }),
      ...featuresOf(name, deprecated.includes(name)),
    }));
  }
}

function featuresOf(name: string, isDeprecated = false): { features?: string[] } {
  const features: string[] = [];
  if (isDeprecated) features.push("deprecated");
  if (UNSTABLE.test(name)) features.push("unstable");
  return features.length > 0 ? { features } : {};
}

/** valibot's own kind of union. */
function unionOfVariant({ key: tag, options }: Schema): Union {
  assert(tag, "a variant has a key");
  const cases: Record<string, v.ObjectEntries> = {};
  for (const { entries } of options as readonly Schema[]) {
    const { [tag]: value, ...members } = entries!;
    cases[value!.literal as string] = members as v.ObjectEntries;
  }
  return { tag, base: { [tag]: v.picklist(Object.keys(cases)) }, cases };
}
