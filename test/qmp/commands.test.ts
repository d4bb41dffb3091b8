/** docs/commands.md against the commands that there are: it cannot go stale. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { hostCommands } from "../../src/cli/commands.ts";
import { COMMANDS } from "../../src/qmp/commands/index.ts";
import { nbdCommands } from "../../src/qmp/commands/nbd.ts";

const text = readFileSync(join(import.meta.dirname, "../../docs/commands.md"), "utf8");
const [theirs, ours] = text
  .split("## Ours alone")
  .map((part) =>
    [...part.matchAll(/^\| `([^`]+)` \| (.*?) \|/gm)].map(([, name, here]) => ({ name, here })),
  );
const named = (here: string) => theirs!.filter((row) => row.here === here).map((row) => row.name);
// Only their names are asked for.
const nodeOnly = [
  ...hostCommands(null as never, async () => {}),
  ...nbdCommands(null as never, null as never),
];

it("lists each of QEMU's 76 commands once, with a reason where it is not here", () => {
  const names = theirs!.map(({ name }) => name);
  expect(names).toHaveLength(76);
  expect(names).toEqual([...new Set(names)].sort());
  expect(new Set(theirs!.map(({ here }) => here))).toEqual(new Set(["yes", "no", "on Node"]));
  for (const name of named("no")) {
    expect(text, name).toMatch(new RegExp(`\`${name}\` \\| no \\| [a-z]`));
  }
});

it("says yes to what every engine has, and names what QEMU's daemon does not list", () => {
  const all = [...named("yes"), ...ours!.map(({ name }) => name)];
  expect(all.sort()).toEqual([...COMMANDS.keys()].sort());
});

it("says 'on Node' of what the daemon has beside", () => {
  expect(named("on Node").sort()).toEqual(nodeOnly.map(({ name }) => name).sort());
});
