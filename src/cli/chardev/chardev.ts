/**
 * A character device: where a monitor's clients come from. Each backend is one file next to this one
 * and is listed in index.ts.
 */

import type { Readable, Writable } from "node:stream";
import { BlockError } from "../../base/errors.ts";
import type { Opts } from "../../base/opts.ts";

/** Somebody at the other end. */
export interface ChardevClient {
  readonly input: Readable;
  readonly output: Writable;
  /** Lets go of it now, whatever is under way. */
  destroy(): void;
}

/** Talks to a client; resolves when that is over. The next client comes after that. */
export type Frontend = (client: ChardevClient) => Promise<void>;

export interface Chardev {
  /** As query-chardev shows it. */
  readonly filename: string;
  /** Hands every client to the frontend from now on, one at a time. Called once at most. */
  serve(frontend: Frontend): void;
  /** No client comes any more, and names in the file system go away. */
  close(): Promise<void>;
}

export interface ChardevContext {
  readonly id: string;
  /** Its own members of the option list. */
  readonly opts: Opts;
  readonly host: ChardevHost;
}

/** What backends need of the process. */
export interface ChardevHost {
  /** There is no terminal: the process goes to the background. */
  readonly daemonized: boolean;
  /** One line for people. */
  note(text: string): void;
  /** Waits; rejects with ECANCELED when the process is to end. */
  readonly signal: AbortSignal;
  sleep(ms: number): Promise<void>;
}

export interface ChardevBackend {
  readonly name: string;
  /** @throws BlockError if it cannot be had */
  open(context: ChardevContext): Promise<Chardev>;
}

/** Another program's or the system's no, with what was tried. */
export function systemError(error: unknown, attempted: string): BlockError {
  const { code, message } = error as NodeJS.ErrnoException;
  if (code === undefined) throw error;
  return new BlockError("EIO", `${attempted} failed: ${message}`, { cause: error });
}
