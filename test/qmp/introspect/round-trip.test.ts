/** What the schema tells is what the check of arguments takes: they are made of one thing. */

import { expect, it } from "vitest";
import { check } from "../../../src/base/check.ts";
import { BlockError } from "../../../src/base/errors.ts";
import { seededRandom } from "../../../src/base/random.ts";
import { createNodeEngine } from "../../../src/engine/node.ts";
import { argumentSchema } from "../../../src/qmp/schema.ts";
import { kernelBytes } from "../../kernel/load.ts";
import { Dice } from "../../model/dice.ts";
import { introspection } from "./engine.ts";
import { Generator } from "./generate.ts";

const SEED = 4;
const ROUNDS = 60;

const engine = await createNodeEngine({ kernelBytes: kernelBytes() });
const { graph, commands, types } = await introspection(engine);
const dice = new Dice(seededRandom(SEED));
const generator = new Generator(graph, dice);

it.each(commands.map((command) => [command.name, command] as const))(
  `arguments of %s made by the schema are taken, broken ones are not (seed ${SEED})`,
  (name, command) => {
    const info = graph.get(name);
    if (info["meta-type"] !== "command") throw new Error(`'${name}' is no command`);
    const schema = argumentSchema(command, types);
    for (let round = 0; round < ROUNDS; round++) {
      const args = generator.value(info["arg-type"]) as Record<string, unknown>;
      const error = errorOf(() => check(schema, args));
      // A value may be out of range; its kind is right.
      expect([args, error]).toEqual([
        args,
        expect.not.stringMatching(/unexpected|missing|Invalid parameter type/),
      ]);
      const broken = generator.broken(info["arg-type"], args);
      if (broken) expect([broken, errorOf(() => check(schema, broken))]).not.toEqual([broken, ""]);
    }
  },
);

/** The error's sentence, or "". */
function errorOf(run: () => unknown): string {
  try {
    run();
    return "";
  } catch (error) {
    if (error instanceof BlockError) return error.message;
    throw error;
  }
}
