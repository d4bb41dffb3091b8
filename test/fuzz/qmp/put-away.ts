/** Puts away all that there is, by commands alone, and says what would not go. */

import type { Engine } from "../../../src/engine/engine.ts";
import { OBJECTS } from "./names.ts";
import type { Talker } from "./talker.ts";

/** Each may free something for the next one. */
const ROUNDS = 40;

/** @throws Error with what is left */
export async function putAway(engine: Engine, talker: Talker): Promise<void> {
  for (let round = 0; round < ROUNDS; round++) {
    if (isEmpty(engine)) break;
    for (const { id, status } of (await list(talker, "query-jobs")) as {
      id: string;
      status: string;
    }[]) {
      if (status === "pending") await talker.ask("job-finalize", { id });
      else if (status !== "concluded") await talker.ask("job-cancel", { id });
      await talker.ask("job-dismiss", { id });
    }
    for (const { id } of (await list(talker, "query-block-exports")) as { id: string }[]) {
      await talker.ask("block-export-del", { id, mode: "hard" });
    }
    for (const name of engine.graph.nodes.map((node) => node.name).reverse()) {
      await talker.ask("blockdev-del", { "node-name": name });
    }
  }
  for (const id of OBJECTS) await talker.ask("object-del", { id });
  if (isEmpty(engine)) return;
  const jobs = engine.jobs.all().map(({ id, status }) => `job ${id} ${status}`);
  const nodes: string[] = [];
  for (const { name, driver, parents, children } of engine.graph.nodes) {
    const below = [...children].map(([role, edge]) => `${role} ${edge.node.name}`);
    const { error } = await talker.ask("blockdev-del", { "node-name": name });
    const why = (error as { desc: string } | undefined)?.desc;
    nodes.push(`${driver.name} ${name} [${below}] of ${parents.size} users: ${why}`);
  }
  const exports = engine.exports.all.map(({ id }) => `export ${id}`);
  throw new Error(`Left after ${ROUNDS} rounds: ${[...jobs, ...exports, ...nodes].join(", ")}`);
}

function isEmpty(engine: Engine): boolean {
  return (
    engine.jobs.all().length === 0 &&
    engine.exports.all.length === 0 &&
    engine.graph.nodes.length === 0
  );
}

async function list(talker: Talker, name: string): Promise<unknown[]> {
  return (await talker.ask(name))["return"] as unknown[];
}
