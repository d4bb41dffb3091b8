/** The real qemu-img, as a process. */

import { type Ended, run } from "./spawn.ts";

/** What it says now and then on a machine with much to do, when it measures for LUKS how fast it is. */
const UNMEASURED = "Unable to get accurate CPU usage";
const TRIES = 10;

export function spawnQemuImg(args: readonly string[], cwd?: string): Ended {
  for (let tries = 1; ; tries++) {
    const ended = run("qemu-img", args, { cwd });
    if (!ended.stderr.includes(UNMEASURED) || tries === TRIES) return ended;
  }
}
