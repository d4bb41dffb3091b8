/** All scripts, by area. */

import type { Area, Script } from "../script.ts";
import { backup } from "./backup.ts";
import { bitmaps } from "./bitmaps.ts";
import { commit } from "./commit.ts";
import { control } from "./control.ts";
import { createArea } from "./create.ts";
import { exportsArea } from "./exports.ts";
import { filters } from "./filters.ts";
import { lifeCycle } from "./life-cycle.ts";
import { mirror } from "./mirror.ts";
import { nodes } from "./nodes.ts";
import { queries } from "./queries.ts";
import { reopenArea } from "./reopen.ts";
import { resize } from "./resize.ts";
import { snapshots } from "./snapshots.ts";
import { stream } from "./stream.ts";
import { transaction } from "./transaction.ts";

export const AREAS: readonly Area[] = [
  control,
  nodes,
  createArea,
  queries,
  filters,
  exportsArea,
  reopenArea,
  resize,
  lifeCycle,
  stream,
  snapshots,
  bitmaps,
  transaction,
  backup,
  mirror,
  commit,
];

/** With their full names: "stream: a whole chain". */
export const SCRIPTS: readonly { readonly title: string; readonly script: Script }[] =
  AREAS.flatMap(({ title, scripts }) =>
    scripts.map((script) => ({ title: `${title}: ${script.name}`, script })),
  );
