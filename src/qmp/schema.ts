/**
 * A command as data: its name, what it takes, what it answers, what it does. From this one object
 * come the argument check, the TypeScript types of the page's client, query-commands, and what
 * query-qmp-schema needs to know.
 */

import * as v from "valibot";
import { check } from "../base/check.ts";
import { BlockError } from "../base/errors.ts";
import type { QmpContext } from "./context.ts";
import type { HostTypes } from "./host-types.ts";

type Entries = v.ObjectEntries;
type OutputOf<Args extends Entries> = v.InferOutput<v.StrictObjectSchema<Args, undefined>>;
type InputOf<Args extends Entries> = v.InferInput<v.StrictObjectSchema<Args, undefined>>;

export interface Command<
  Name extends string = string,
  Args extends Entries = Entries,
  Returns extends v.GenericSchema = v.GenericSchema,
  Open extends boolean = boolean,
> {
  /** As on the wire. */
  readonly name: Name;
  /** One sentence for people. */
  readonly doc: string;
  /** valibot schema of each argument; those that may be left out are v.optional(). */
  readonly args: Args;
  /** There are further arguments, by a tag among these: exactArgs tells which. */
  readonly open?: Open;
  /** Where `args` cannot tell it all, since it depends on what the engine is made of: that. */
  exactArgs?(types: HostTypes): v.GenericSchema;
  /** What `run` answers. */
  readonly returns: Returns;
  /**
   * It changes nodes, bitmaps, or what jobs work on: of all monitors' commands of this kind one runs
   * at a time, so that what it has looked at is still true when it is done.
   */
  readonly alone?: boolean;
  /**
   * Done twice it does harm, or fails the second time: where a journal is kept, that it was begun is on
   * record before it is.
   */
  readonly isOnce?: boolean;
  /** QEMU advises against the command (true), or against these arguments. */
  readonly deprecated?: true | readonly string[];
  /**
   * @param args checked
   * @throws BlockError whose class and text become the reply's `error`
   */
  run(
    context: QmpContext,
    args: OutputOf<Args>,
  ): v.InferOutput<Returns> | Promise<v.InferOutput<Returns>>;
}

/** Only there so that TypeScript infers the types of one command from its own parts. */
export function command<
  const Name extends string,
  const Args extends Entries,
  Returns extends v.GenericSchema,
  const Open extends boolean = false,
>(it: Command<Name, Args, Returns, Open>): Command<Name, Args, Returns, Open> {
  return it;
}

/** The answer of commands that have none: an empty object. */
export const nothing = v.strictObject({});

/** A whole number of 64 bits in QAPI; here exact ones only. */
export const int = v.pipe(v.number(), v.safeInteger());

/** The commands of a list, by name: { name: { args, returns } }. */
export type CommandTypes<List extends readonly Command[]> = {
  [C in List[number] as C["name"]]: {
    readonly args: C extends Command<string, Entries, v.GenericSchema, true>
      ? Loose<C>
      : InputOf<C["args"]>;
    readonly returns: v.InferOutput<C["returns"]>;
  };
};
type Loose<C extends Command> = InputOf<C["args"]> & { readonly [member: string]: unknown };

/** What `arguments` must be. */
export function argumentSchema(command: Command, types: HostTypes): v.GenericSchema {
  return command.exactArgs?.(types) ?? v.strictObject(command.args);
}

/**
 * Checks the arguments and runs the command.
 *
 * @param args `arguments` of the request, or {} if it had none
 * @throws BlockError EINVAL that names the first argument in the wrong; what the command throws
 */
export async function invoke(
  command: Command,
  context: QmpContext,
  args: object,
): Promise<unknown> {
  const checked = check(argumentSchema(command, context.types), args) as never;
  if (!command.alone) return command.run(context, checked);
  return context.turns.run(async () => command.run(context, checked), context.signal);
}

/** @throws BlockError EINVAL (CommandNotFound) */
export function findCommand(commands: ReadonlyMap<string, Command>, name: string): Command {
  const command = commands.get(name);
  if (command) return command;
  throw new BlockError("EINVAL", `The command '${name}' has not been found`, {
    class: "CommandNotFound",
  });
}
