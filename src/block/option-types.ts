/**
 * The options of drivers as TypeScript types, made from the same declarations that check them
 * (options.ts): a union with one case for each driver, told apart by `driver`.
 *
 *     { driver: "qcow2", file: "f", backing: { driver: "http", url } }     is one of them
 *     { driver: "qcow2", file: "f", url }                                  does not compile
 */

import type * as v from "valibot";
import type { BlockDriver, ChildRole, OptionEntries } from "./driver.ts";
import type { COMMON_OPTIONS } from "./options.ts";

/** What a driver declares of itself, in types as narrow as it can: the literals, not `string`. */
export interface DeclaredDriver {
  readonly name: string;
  readonly kind: "protocol" | "format" | "filter";
  readonly roles: Readonly<Partial<Record<ChildRole, boolean>>>;
  readonly roleMembers?: Readonly<Partial<Record<ChildRole, string>>>;
  readonly openOptions: OptionEntries;
  readonly createOptions?: OptionEntries;
  readonly amendOptions?: OptionEntries;
}

/** A driver that says in its type what it declares. */
export type TypedDriver<
  Types extends DeclaredDriver,
  OpenOptions = never,
  CreateOptions = never,
> = Omit<BlockDriver<OpenOptions, CreateOptions>, keyof Types> & Types;

/** blockdev-add: each driver's own members, its roles, and what every node has. */
export type BlockdevOptions<Drivers extends DeclaredDriver> = {
  [D in Drivers as D["name"]]: Simplified<
    { readonly driver: D["name"] } & Input<typeof COMMON_OPTIONS> &
      Input<D["openOptions"]> &
      RoleMembers<D, Drivers>
  >;
}[Drivers["name"]];

/** blockdev-create: of those that make images; formats make theirs in a node, there already or not. */
export type CreateOptions<
  Drivers extends DeclaredDriver,
  All extends DeclaredDriver = Drivers,
> = Drivers extends {
  readonly createOptions: infer Own extends OptionEntries;
}
  ? Simplified<
      { readonly driver: Drivers["name"] } & Input<Own> &
        (Drivers["kind"] extends "format"
          ? { readonly file: string | BlockdevOptions<All> }
          : unknown)
    >
  : never;

/** x-blockdev-amend: of those whose images can be changed. */
export type AmendOptions<Drivers extends DeclaredDriver> = Drivers extends {
  readonly amendOptions: infer Own extends OptionEntries;
}
  ? Simplified<{ readonly driver: Drivers["name"] } & Input<Own>>
  : never;

/** As a client writes it: what has a default may be left out. */
type Input<Entries extends OptionEntries> = v.InferInput<v.StrictObjectSchema<Entries, undefined>>;

/** The children, by what blockdev-add calls them; a role that is `true` must be given. */
type RoleMembers<D extends DeclaredDriver, Drivers extends DeclaredDriver> = {
  readonly [R in keyof D["roles"] as D["roles"][R] extends true ? Member<D, R> : never]:
    | string
    | BlockdevOptions<Drivers>;
} & {
  readonly [R in keyof D["roles"] as D["roles"][R] extends true ? never : Member<D, R>]?:
    | string
    | BlockdevOptions<Drivers>
    | (R extends "backing" ? null : never)
    | undefined;
};

type Member<D extends DeclaredDriver, Role> = D extends {
  readonly roleMembers: { readonly [R in Role & ChildRole]: infer Name extends string };
}
  ? Name
  : Role & string;

/** One object type instead of an intersection: for error messages, and for hints in an editor. */
type Simplified<T> = { [Member in keyof T]: T[Member] };
