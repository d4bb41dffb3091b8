/** The real qemu-img, as a process. */

import { type SpawnSyncReturns, spawnSync } from "node:child_process";

/** What it says now and then on a machine with much to do, when it measures for LUKS how fast it is. */
const UNMEASURED = "Unable to get accurate CPU usage";
const TRIES = 10;

export function spawnQemuImg(args: readonly string[], cwd?: string): SpawnSyncReturns<string> {
  for (let tries = 1; ; tries++) {
    const ended = spawnSync("qemu-img", args, { cwd, encoding: "utf8", maxBuffer: 1 << 28 });
    if (ended.error) throw ended.error;
    if (!ended.stderr.includes(UNMEASURED) || tries === TRIES) return ended;
  }
}
