/**
 * Domains of whichever tab has the disks: a DomainClient for each owner, one after the other.
 *
 * A call waits for an owner. If the owner is lost over it, a question is asked again of the next; of anything
 * else nobody can tell whether it was done, and the error says where to look.
 */

import type { SharedClient } from "../engine/tabs/shared-client.ts";
import type { ArgumentsOf, CallName, CallOptions, ResultOf } from "./calls.ts";
import type { Caller } from "./domain.ts";
import { DomainClient } from "./domain-client.ts";
import { DomainError } from "./errors.ts";
import { type DomainListener, Listeners } from "./events.ts";

/** They change nothing. */
const QUESTIONS: ReadonlySet<CallName> = new Set<CallName>([
  "listAllDomains",
  "lookupByName",
  "getDesc",
  "getBlockJobInfo",
  "listBlockJobs",
  "backupGetDesc",
  "checkpointGetDesc",
  "listAllCheckpoints",
]);

interface Line {
  readonly client: DomainClient;
  isOver: boolean;
}

interface Waiting {
  readonly resolve: (line: Line) => void;
  readonly reject: (why: DomainError) => void;
}

export class SharedCaller implements Caller {
  readonly #listeners = new Listeners();
  readonly #told = new Set<string>();
  readonly #waiting = new Set<Waiting>();
  readonly #dial: Pick<SharedClient, "dial">["dial"];
  readonly #forget: () => void;
  #line: Line | null = null;
  #closed: DomainError | null = null;

  constructor(client: Pick<SharedClient, "dial" | "onHandOver">) {
    this.#dial = (service) => client.dial(service);
    this.#forget = client.onHandOver(() => this.#connect());
    this.#connect();
  }

  async call<Name extends CallName>(
    name: Name,
    args: ArgumentsOf<Name>,
    options: CallOptions = {},
  ): Promise<ResultOf<Name>> {
    for (;;) {
      const line = await this.#serving(name, options.signal);
      try {
        return await line.client.call(name, args, options);
      } catch (error) {
        if (!line.isOver || options.signal?.aborted || this.#closed) throw error;
        if (!QUESTIONS.has(name)) throw lost(name, error);
      }
    }
  }

  subscribe(listener: DomainListener): () => void {
    return this.#listeners.add(listener);
  }

  close(): void {
    this.#closed = new DomainError("OPERATION_FAILED", "The client has been closed");
    this.#forget();
    this.#hangUp();
    for (const { reject } of [...this.#waiting]) reject(this.#closed);
  }

  #connect(): void {
    const port = this.#dial("domains");
    if (!port) return;
    this.#hangUp();
    const client = new DomainClient(port, this.#told);
    const line = { client, isOver: false };
    port.addEventListener("close", () => {
      line.isOver = true;
    });
    client.subscribe((event) => this.#listeners.tell(event));
    this.#line = line;
    for (const { resolve } of [...this.#waiting]) resolve(line);
  }

  #hangUp(): void {
    if (!this.#line) return;
    this.#line.isOver = true;
    this.#line.client.close();
    this.#line = null;
  }

  /** @throws DomainError OPERATION_ABORTED, OPERATION_FAILED */
  #serving(name: CallName, signal: AbortSignal | undefined): Promise<Line> {
    if (this.#closed) return Promise.reject(this.#closed);
    if (this.#line && !this.#line.isOver) return Promise.resolve(this.#line);
    return new Promise((resolve, reject) => {
      const settled = () => {
        this.#waiting.delete(waiting);
        signal?.removeEventListener("abort", stop);
      };
      const waiting: Waiting = {
        resolve: (line) => {
          settled();
          resolve(line);
        },
        reject: (why) => {
          settled();
          reject(why);
        },
      };
      const stop = () =>
        waiting.reject(new DomainError("OPERATION_ABORTED", `${name} was called off`));
      this.#waiting.add(waiting);
      if (signal?.aborted) stop();
      else signal?.addEventListener("abort", stop, { once: true });
    });
  }
}

function lost(name: CallName, cause: unknown): DomainError {
  return new DomainError(
    "OPERATION_FAILED",
    `The tab that had the disks was lost while ${name} was under way: look at listBlockJobs and info ` +
      "for whether it has been done",
    cause,
  );
}
