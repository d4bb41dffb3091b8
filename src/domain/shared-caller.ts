/**
 * Domains of whichever tab has the disks: a DomainClient for each owner, one after the other.
 *
 * A call waits for an owner. If the owner is lost over it, a question is asked again of the next; of anything
 * else nobody can tell whether it was done, and the error says where to look.
 */

import { Bell } from "../base/bell.ts";
import type { SharedClient } from "../engine/tabs/shared-client.ts";
import {
  type ArgumentsOf,
  type CallName,
  type CallOptions,
  QUESTIONS,
  type ResultOf,
} from "./calls.ts";
import type { Caller } from "./domain.ts";
import { DomainClient } from "./domain-client.ts";
import { DomainError } from "./errors.ts";
import { type DomainListener, Listeners } from "./events.ts";

interface Line {
  readonly client: DomainClient;
  isOver: boolean;
}

export class SharedCaller implements Caller {
  readonly #listeners = new Listeners();
  readonly #told = new Set<string>();
  /** Rung when there is another owner, and when there will be none. */
  readonly #bell = new Bell();
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
    this.#bell.ring();
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
    this.#bell.ring();
  }

  #hangUp(): void {
    if (!this.#line) return;
    this.#line.isOver = true;
    this.#line.client.close();
    this.#line = null;
  }

  /** @throws DomainError OPERATION_ABORTED, OPERATION_FAILED */
  async #serving(name: CallName, signal: AbortSignal | undefined): Promise<Line> {
    for (;;) {
      if (this.#closed) throw this.#closed;
      if (this.#line && !this.#line.isOver) return this.#line;
      await this.#bell.rung(signal).catch((cause: unknown) => {
        throw new DomainError("OPERATION_ABORTED", `${name} was called off`, cause);
      });
    }
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
