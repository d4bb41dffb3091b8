/** The schema of an engine, and what it was made of. */

import type { Engine } from "../../../src/engine/engine.ts";
import { connectLocally } from "../../../src/engine/node.ts";
import { type HostTypes, hostTypes } from "../../../src/qmp/host-types.ts";
import type { Command } from "../../../src/qmp/schema.ts";
import type { SchemaInfo } from "../../../src/qmp/types.ts";
import { SchemaGraph } from "./types.ts";

export async function introspection(
  engine: Engine,
): Promise<{ graph: SchemaGraph; commands: Command[]; types: HostTypes }> {
  const client = await connectLocally(engine);
  const infos = (await client.execute("query-qmp-schema")) as SchemaInfo[];
  const names = await client.execute("query-commands");
  return {
    graph: new SchemaGraph(infos),
    commands: names.map(({ name }) => engine.command(name)),
    types: hostTypes(engine.graph.drivers.values(), engine.exports),
  };
}
