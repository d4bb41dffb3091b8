/**
 * A driver behind a port, for a page: what answers calls for Connection and Domain (domain.ts).
 *
 *     const connection = new Connection(new DomainClient(port));
 *
 * After the owner of the engine has changed, the end of a block job or backup may be told again by the new one:
 * each has a number, and what has been told of it is not told twice.
 */

import { cancelable } from "../base/cancelable.ts";
import type { Port } from "../engine/protocol.ts";
import type { ArgumentsOf, CallName, CallOptions, ResultOf } from "./calls.ts";
import type { Caller } from "./domain.ts";
import type { FromDomainPort, ToDomainPort } from "./domain-protocol.ts";
import { BLOCK_JOB_STATUS } from "./enums.ts";
import { DomainError } from "./errors.ts";
import { type DomainEvent, type DomainListener, Listeners } from "./events.ts";

/** How many ends are remembered. */
const TOLD_MAX = 1000;

interface Waiting {
  readonly resolve: (value: unknown) => void;
  readonly reject: (why: DomainError) => void;
}

export class DomainClient implements Caller {
  readonly #port: Port;
  readonly #waiting = new Map<number, Waiting>();
  readonly #listeners = new Listeners();
  readonly #told: Set<string>;
  #count = 0;
  #failure: DomainError | null = null;

  /** @param told what a client of an earlier driver has told; more is added */
  constructor(port: Port, told = new Set<string>()) {
    this.#port = port;
    this.#told = told;
    port.onmessage = ({ data }) => this.#receive(data as FromDomainPort);
    port.addEventListener("close", () => this.fail("The driver of domains is gone"));
    port.addEventListener("messageerror", () => this.fail("What the driver says cannot be read"));
  }

  call<Name extends CallName>(
    name: Name,
    args: ArgumentsOf<Name>,
    { signal }: CallOptions = {},
  ): Promise<ResultOf<Name>> {
    if (this.#failure) return Promise.reject(this.#failure);
    if (signal?.aborted) return Promise.reject(aborted(name));
    const id = ++this.#count;
    const stop = () => {
      this.#post({ cancel: id });
      this.#settle(id)?.reject(aborted(name));
    };
    return cancelable(signal, stop, (resolve, reject) => {
      this.#waiting.set(id, { resolve: resolve as Waiting["resolve"], reject });
      this.#post({ id, call: name, args });
    });
  }

  subscribe(listener: DomainListener): () => void {
    return this.#listeners.add(listener);
  }

  /** Hangs up. What the driver does for this client it goes on doing, but for waits. */
  close(): void {
    this.fail("The client has been closed");
  }

  /** Rejects all that waits and all that comes. */
  fail(text: string): void {
    if (this.#failure) return;
    this.#failure = new DomainError("OPERATION_FAILED", text);
    this.#port.onmessage = null;
    this.#port.close();
    for (const { reject } of this.#waiting.values()) reject(this.#failure);
    this.#waiting.clear();
  }

  #post(message: ToDomainPort): void {
    this.#port.postMessage(message, []);
  }

  #receive(message: FromDomainPort): void {
    if ("event" in message) return this.#hear(message.event);
    const waiting = this.#settle(message.id);
    if ("error" in message) {
      waiting?.reject(new DomainError(message.error.code, message.error.message));
    } else waiting?.resolve(message.result);
  }

  #settle(id: number): Waiting | undefined {
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    return waiting;
  }

  #hear(event: DomainEvent): void {
    if ("serial" in event) {
      const { event: name, domain, serial } = event;
      const status = "status" in event ? event.status : null;
      const told = JSON.stringify([name, domain, serial, status]);
      // READY may be told again: a job that was recovered is ready once more.
      if (status !== BLOCK_JOB_STATUS.READY && this.#told.has(told)) return;
      this.#told.add(told);
      if (this.#told.size > TOLD_MAX) this.#told.delete(this.#told.values().next().value!);
    }
    this.#listeners.tell(event);
  }
}

function aborted(name: CallName): DomainError {
  return new DomainError("OPERATION_ABORTED", `${name} was called off`);
}
