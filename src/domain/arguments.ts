/** What a call is given is checked once, whoever makes it: a program in this thread or a page behind a port. */

import * as v from "valibot";
import { type ArgumentsOf, CALLS, type CallName } from "./calls.ts";
import { checked } from "./definition.ts";

const ARGUMENTS = new Map(
  (Object.keys(CALLS) as CallName[]).map((name) => [name, v.strictTuple([...CALLS[name]])]),
);

/** @throws DomainError INVALID_ARG, which names what is wrong */
export function checkArguments<Name extends CallName>(
  name: Name,
  args: readonly unknown[],
): ArgumentsOf<Name> {
  return checked(ARGUMENTS.get(name)!, args, "INVALID_ARG") as unknown as ArgumentsOf<Name>;
}
