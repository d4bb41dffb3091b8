/**
 * Into the background. Node cannot fork, so the command starts itself once more, away from the
 * terminal and with its own stdio at /dev/null, and ends when that one says that all is set up, or
 * has failed. Until then the parent prints what the child has to say.
 *
 *   parent ── spawn ──▶ child: sets up ── "ready" ──▶ parent: exit status 0
 *     ◀─── texts ─────────┘       or ends ──────────▶ parent: its exit status
 */

import { spawn } from "node:child_process";

/** Tells the second one that it is. */
const MARK = "BLOCKTAB_IN_BACKGROUND";
const READY = "ready";

export function isInBackground(): boolean {
  return process.env[MARK] === "1" && process.send !== undefined;
}

/** @returns the exit status of the process in the foreground */
export function runInBackground(): Promise<number> {
  const [, script, ...words] = process.argv;
  const child = spawn(process.execPath, [...process.execArgv, script!, ...words], {
    detached: true,
    env: { ...process.env, [MARK]: "1" },
    stdio: ["ignore", "ignore", "ignore", "ipc"],
  });
  return new Promise((resolve) => {
    child.on("message", (message: { readonly text: string } | typeof READY) => {
      if (message === READY) resolve(0);
      else process.stderr.write(message.text);
    });
    child.once("error", (error) => {
      process.stderr.write(`blocktab daemon: ${error.message}\n`);
      resolve(1);
    });
    // One that has been killed has no status.
    child.once("close", (status) => resolve(status || 1));
  });
}

/** Prints on stderr: the parent's, as long as it is there. Resolves when that is done. */
export function say(text: string): Promise<void> {
  return new Promise((resolve) => {
    if (!isInBackground()) process.stderr.write(text, () => resolve());
    else if (process.connected) process.send!({ text }, () => resolve());
    else resolve();
  });
}

/** All is set up: the parent may go, and nobody listens any more. */
export function leaveParent(): Promise<void> {
  return new Promise((resolve) => {
    process.send!(READY, () => {
      if (process.connected) process.disconnect();
      resolve();
    });
  });
}
