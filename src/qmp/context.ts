/** What commands are handed: the engine they work on, and the monitor that the request came from. */

import type { Mutex } from "../base/mutex.ts";
import type { BlockJobServices } from "../blockjob/block-job.ts";
import type { ExportList } from "../export/list.ts";
import type { HostTypes } from "./host-types.ts";
import type { Command } from "./schema.ts";

/** One of these per engine. */
export interface QmpServices extends BlockJobServices {
  readonly exports: ExportList;
  readonly commands: ReadonlyMap<string, Command>;
  /** What the arguments are that depend on this engine's drivers. */
  readonly types: HostTypes;
  /** Of commands that run alone (see Command). */
  readonly turns: Mutex;
  /** Reads a file with a secret in it, where there are files. @throws BlockError */
  readonly readSecretFile?: ((filename: string) => Promise<Uint8Array>) | undefined;
  /** Raised when the engine closes down: nothing that is still waited for will be wanted. */
  readonly signal: AbortSignal;
}

/** One of these per monitor. */
export interface Session {
  /** qmp_capabilities has been through: commands are served, events are sent. */
  negotiated: boolean;
  /** The client may send `exec-oob`. */
  oob: boolean;
}

export interface QmpContext extends QmpServices {
  readonly session: Session;
}
