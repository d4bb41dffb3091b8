/**
 * How a page comes to share disks with other tabs, and what it does when it is hidden, left, frozen
 * or woken.
 *
 *   hidden      what is kept is flushed
 *   pagehide    the worker begins to leave; a browser that ends the page gives it a moment at best
 *   freeze      the worker is terminated: a frozen one would keep its locks and files (docs/tabs.md)
 *   resume      a new worker, and the owner that there is
 */

import type { Clock } from "../../base/clock.ts";
import type { Port } from "../protocol.ts";
import type { LogEntry } from "../qmp-client.ts";
import { clientError } from "../qmp-error.ts";
import { browserHost } from "./browser.ts";
import { newId } from "./host.ts";
import type { TabWorker } from "./owner-line.ts";
import type { CandidateLeft, ToCandidate } from "./run-candidate.ts";
import { SharedClient } from "./shared-client.ts";
import type { SharedState } from "./watch.ts";

export { canShare } from "./browser.ts";
export type { SharedApi, SharedClient } from "./shared-client.ts";
export type { SharedState } from "./watch.ts";

/** An end in good order may take so long; then the worker is terminated, and the next one recovers. */
const LEAVE_MS = 5000;

export interface ConnectSharedOptions {
  /** Makes a worker that runs a candidate (run-candidate.ts), under this name. */
  readonly worker?: (name: string) => Worker;
  readonly log?: (entry: LogEntry) => void;
  /** Told from the first moment on who has the disks, and what is waited for. */
  readonly onState?: (state: SharedState) => void;
  /** Raised to give up waiting for an owner. */
  readonly signal?: AbortSignal;
}

/** @throws QmpError ECANCELED if the signal is raised before any tab serves */
export async function connectShared(options: ConnectSharedOptions = {}): Promise<SharedClient> {
  const host = browserHost();
  const spawn = () => {
    const id = newId(host.random);
    return new BrowserTabWorker(id, (options.worker ?? plainWorker)(id), host.clock);
  };
  const client = new SharedClient({ host, spawn, log: options.log });
  if (options.onState) client.onState = options.onState;
  follow(client);
  await client.start(options.signal);
  return client;
}

function plainWorker(name: string): Worker {
  return new Worker(new URL("./worker.ts", import.meta.url), { type: "module", name });
}

/** Each event of the page's life. */
function follow(client: SharedClient): void {
  const looked = () => client.setHidden(document.visibilityState === "hidden");
  document.addEventListener("visibilitychange", looked);
  looked();
  const willFreeze = "onfreeze" in document;
  window.addEventListener("pagehide", ({ persisted }) => {
    if (persisted && !willFreeze) client.suspend();
    else client.hurry();
  });
  document.addEventListener("freeze", () => client.suspend());
  document.addEventListener("resume", () => void client.resume());
  window.addEventListener("pageshow", ({ persisted }) => {
    if (persisted) void client.resume();
  });
}

class BrowserTabWorker implements TabWorker {
  readonly id: string;
  onlost: () => void = () => {};
  readonly #worker: Worker;
  readonly #clock: Clock;
  #left: Promise<void> | null = null;

  constructor(id: string, worker: Worker, clock: Clock) {
    this.id = id;
    this.#worker = worker;
    this.#clock = clock;
    worker.addEventListener("error", () => this.#lost());
  }

  dial(epoch: number, client: string, service: string, count: number): readonly Port[] {
    const channels = Array.from({ length: count }, () => new MessageChannel());
    const ports = channels.map(({ port2 }) => port2);
    this.#post({ type: "tab-dial", epoch, client, service, ports }, ports);
    return channels.map(({ port1 }) => port1);
  }

  setHidden(isHidden: boolean): void {
    this.#post({ type: "tab-hidden", isHidden });
  }

  leave(): Promise<void> {
    this.#left ??= new Promise((resolve, reject) => {
      const timer = this.#clock.setTimer(LEAVE_MS, resolve);
      this.#worker.addEventListener("message", ({ data }: MessageEvent<CandidateLeft>) => {
        if (data?.type !== "tab-left") return;
        timer.cancel();
        if (data.error === null) resolve();
        else reject(clientError("EIO", data.error));
      });
      this.#post({ type: "tab-leave" });
    });
    return this.#left;
  }

  terminate(): void {
    this.#worker.terminate();
  }

  #lost(): void {
    this.#worker.terminate();
    this.onlost();
  }

  #post(message: ToCandidate, transfer: Transferable[] = []): void {
    this.#worker.postMessage(message, transfer);
  }
}
