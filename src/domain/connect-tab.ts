/**
 * A page's way to disks that all tabs of its site share: the engine's client, and domains, whichever tab has
 * the disks at the moment.
 *
 *     const { client, domains } = await connectTab();
 *     await client.execute("query-jobs");
 *     await domains.domain("demo").blockPull("vda");
 *
 * Where a browser has nothing that tabs could share by, the tab has an engine of its own, which lasts as long as
 * the page, and the record of domains to itself (solo.ts).
 */

import type { LogEntry } from "../engine/client.ts";
import {
  canShare,
  connectShared,
  type SharedApi,
  type SharedState,
} from "../engine/tabs/connect.ts";
import { Connection } from "./domain.ts";
import { SharedCaller } from "./shared-caller.ts";

export interface ConnectTabOptions {
  /** Sees all QMP traffic. Must not throw. */
  readonly log?: (entry: LogEntry) => void;
  /** Told from the first moment on who has the disks, and what is waited for. */
  readonly onState?: (state: SharedState) => void;
  /** Raised to give up waiting for an owner. */
  readonly signal?: AbortSignal;
}

export interface Tab {
  readonly client: SharedApi;
  readonly domains: Connection;
  /** Other tabs see the same, and jobs outlive the page. */
  readonly isShared: boolean;
  /**
   * Told when another tab has taken the disks over: what was missed meanwhile has to be looked up.
   *
   * @returns stops telling
   */
  onHandOver(listener: () => void): () => void;
  close(): Promise<void>;
}

/** @throws QmpError ECANCELED if the signal is raised; why no engine runs in this browser */
export async function connectTab(options: ConnectTabOptions = {}): Promise<Tab> {
  if (!canShare()) {
    const { connectSolo } = await import("./solo.ts");
    return connectSolo(options);
  }
  const client = await connectShared({ ...options, worker: domainWorker });
  const caller = new SharedCaller(client);
  return {
    client,
    domains: new Connection(caller),
    isShared: true,
    onHandOver: (listener) => client.onHandOver(listener),
    async close() {
      caller.close();
      await client.close();
    },
  };
}

function domainWorker(name: string): Worker {
  return new Worker(new URL("./worker.ts", import.meta.url), { type: "module", name });
}
