/**
 * A file with the process' number, for scripts that want to signal it. QEMU holds a lock on it, which
 * Node has no way to do: here a file counts as held while the process that it names is there.
 */

import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { resolve } from "node:path";
import { BlockError } from "../base/errors.ts";
import { systemError } from "./chardev/chardev.ts";

export class Pidfile {
  readonly #path: string;

  /**
   * Writes it.
   *
   * @throws BlockError EBUSY if another process has it; what the file system says
   */
  static write(path: string): Pidfile {
    const attempted = `Writing the pidfile '${path}'`;
    try {
      if (!create(path)) {
        const holder = holderOf(path);
        if (holder !== null && isAlive(holder)) {
          throw new BlockError("EBUSY", `${attempted} failed: process ${holder} has it`);
        }
        rmSync(path, { force: true });
        if (!create(path)) throw new BlockError("EBUSY", `${attempted} failed: another has it now`);
      }
    } catch (error) {
      if (error instanceof BlockError) throw error;
      throw systemError(error, attempted);
    }
    return new Pidfile(resolve(path));
  }

  private constructor(path: string) {
    this.#path = path;
  }

  /** Unless it has come to be another process'. */
  remove(): void {
    try {
      if (holderOf(this.#path) === process.pid) rmSync(this.#path);
    } catch (error) {
      // It is somebody else's folder by now; nothing is lost.
      systemError(error, "Removing the pidfile");
    }
  }
}

/** Of several that try at once, one makes it. @returns whether this one has */
function create(path: string): boolean {
  try {
    writeFileSync(path, `${process.pid}\n`, { mode: 0o644, flag: "wx" });
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw error;
  }
}

/** Null if it is not there, or names no process. */
function holderOf(path: string): number | null {
  try {
    const pid = Number(readFileSync(path, "utf8").slice(0, 32));
    return Number.isInteger(pid) && pid > 0 ? pid : null;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return null;
    throw error;
  }
}

function isAlive(pid: number): boolean {
  if (pid === process.pid) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}
