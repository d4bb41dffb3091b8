/** A schema as query-qmp-schema tells it, as a graph that one can walk. */

import type { SchemaInfo } from "../../../src/qmp/types.ts";

export type Of<Meta extends SchemaInfo["meta-type"]> = Extract<SchemaInfo, { "meta-type": Meta }>;

export class SchemaGraph {
  readonly infos: readonly SchemaInfo[];
  readonly #byName: ReadonlyMap<string, SchemaInfo>;

  constructor(infos: readonly SchemaInfo[]) {
    this.infos = infos;
    this.#byName = new Map(infos.map((info) => [info.name, info]));
  }

  find(name: string): SchemaInfo | undefined {
    return this.#byName.get(name);
  }

  get(name: string): SchemaInfo {
    const info = this.find(name);
    if (!info) throw new Error(`The schema does not list the type '${name}'`);
    return info;
  }

  all<Meta extends SchemaInfo["meta-type"]>(meta: Meta): Of<Meta>[] {
    return this.infos.filter((info): info is Of<Meta> => info["meta-type"] === meta);
  }

  /**
   * Follows a path in the way of libvirt's probes: a command or event, then arg-type or ret-type,
   * then members, with + before a variant, ^ before a value of an enum, $ before a feature.
   * Arrays and alternates are looked through.
   */
  has(path: string): boolean {
    const [entity = "", ...steps] = path.split("/");
    const start = this.find(entity);
    return start !== undefined && this.#follow(start, steps);
  }

  #follow(info: SchemaInfo, [step, ...rest]: string[]): boolean {
    if (step === undefined) return true;
    if (step.startsWith("$")) return (info.features ?? []).includes(step.slice(1));
    switch (info["meta-type"]) {
      case "command":
      case "event": {
        const type = (info as unknown as Record<string, string>)[step];
        return type !== undefined && this.#follow(this.get(type), rest);
      }
      case "array":
        return this.#follow(this.get(info["element-type"]), [step, ...rest]);
      case "alternate":
        return info.members.some(({ type }) => this.#follow(this.get(type), [step, ...rest]));
      case "enum":
        return info.members.some(({ name }) => `^${name}` === step);
      case "object": {
        const variant = info.variants?.find((one) => `+${one.case}` === step);
        const member = info.members.find(({ name }) => name === step);
        if (member?.features?.some((feature) => `$${feature}` === rest[0])) return true;
        const type = variant?.type ?? member?.type;
        return type !== undefined && this.#follow(this.get(type), rest);
      }
      case "builtin":
        return false;
    }
  }
}
