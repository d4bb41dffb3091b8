/** All scripts, by area. */

import type { Area, Script } from "../script.ts";
import { control } from "./control.ts";
import { lifeCycle } from "./life-cycle.ts";
import { stream } from "./stream.ts";

export const AREAS: readonly Area[] = [control, lifeCycle, stream];

/** With their full names: "stream: a whole chain". */
export const SCRIPTS: readonly { readonly title: string; readonly script: Script }[] =
  AREAS.flatMap(({ title, scripts }) =>
    scripts.map((script) => ({ title: `${title}: ${script.name}`, script })),
  );
