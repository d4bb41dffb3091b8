/**
 * What a script is: a name, and what is said to a daemon.
 *
 *     script("a stream that is cancelled keeps what it had copied", async (t) => {
 *       await t.image("base.qcow2", { writes: ["-P 1 0 4M"] });
 *       await t.image("top.qcow2", { backing: "base.qcow2" });
 *       await t.open("base", "base.qcow2", { "read-only": true });
 *       await t.open("top", "top.qcow2", { backing: "base" });
 *       await t.qmp("block-stream", { device: "top", "job-id": "s", speed: 65536 });
 *       await t.qmp("job-cancel", { id: "s" });
 *       await t.job("s", "null");
 *     }),
 *
 * It runs once on each daemon, each time in a folder of its own, with the same images. Afterwards
 * the harness itself asks what jobs, exports and nodes are left, says quit, waits for the end, and
 * looks at the images. What it must see to: that nothing depends on how fast anybody is.
 *
 *  - Wait for all that a command sets off (`t.job`, `t.event`) before the next command.
 *  - Hold a job that must be caught at work with a `speed` that is next to nothing, with
 *    `auto-finalize: false`, a pause, or an error that stops it.
 *  - Where two events may come in any order in QEMU, put the wait into `t.anyOrder`.
 *
 * test/differential/talk.ts has all that `t` can do. `npm run differential -- --only NAME
 * --repeat 10` shows whether a script says the same each time.
 */

import type { Rule } from "./rules.ts";
import type { Talk } from "./talk.ts";

export interface Script {
  /** A sentence; within an area no other script has it. */
  readonly name: string;
  readonly run: (t: Talk) => Promise<void>;
  readonly options: ScriptOptions;
}

export interface ScriptOptions {
  /** More options on the daemon's command line. */
  readonly args?: readonly string[];
  /** Leaves the negotiation to the script. */
  readonly raw?: true;
  /**
   * Differences on purpose beyond those of the tables (differences.ts has some to choose from). One
   * that does not show is an error.
   */
  readonly differences?: readonly Rule[];
  /** What is not right yet in ours, and not on purpose: why the two differ, and must. */
  readonly open?: string;
  /**
   * What the script is about came with this version of QEMU, or changed with it: older ones differ,
   * and must.
   */
  readonly since?: { readonly version: string; readonly what: string };
}

/** Scripts about one thing; `title` is the first part of their names. */
export interface Area {
  readonly title: string;
  readonly scripts: readonly Script[];
}

export function script(
  name: string,
  run: (t: Talk) => Promise<void>,
  options: ScriptOptions = {},
): Script {
  return { name, run, options };
}

export function area(title: string, scripts: readonly Script[]): Area {
  return { title, scripts };
}
