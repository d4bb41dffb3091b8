/**
 * A QMP client on a port: sends commands, matches the replies by their ids, hands events round.
 *
 * Names, arguments and answers are typed from the engine's own table of commands. Only types come
 * from there: a page that uses this loads none of the engine.
 */

import type { ArgumentsOf, CommandName, ReturnOf } from "../qmp/commands/index.ts";
import type { QmpEvent } from "../qmp/events.ts";
import { EventQueue } from "./event-queue.ts";
import type { ErrorData, Port } from "./protocol.ts";
import { QmpError } from "./qmp-error.ts";

/** Of the arguments of execute(): none need be given where none must. */
export type ArgumentList<Name extends CommandName> =
  Record<never, never> extends ArgumentsOf<Name>
    ? [args?: ArgumentsOf<Name>]
    : [args: ArgumentsOf<Name>];

/** One message of the QMP traffic, as it is on the wire. */
export interface LogEntry {
  readonly direction: "sent" | "received";
  readonly message: object;
}

interface Waiting {
  readonly resolve: (value: unknown) => void;
  readonly reject: (reason: QmpError) => void;
}

interface Reply {
  readonly QMP?: object;
  readonly event?: string;
  readonly return?: unknown;
  readonly error?: ErrorData;
  readonly id?: number;
}

export class QmpClient {
  readonly #port: Port;
  readonly #log: (entry: LogEntry) => void;
  readonly #waiting = new Map<number, Waiting>();
  readonly #queues = new Set<EventQueue>();
  readonly #greeted: Promise<void>;
  #tellGreeted!: Waiting;
  #sentCount = 0;
  #failure: QmpError | null = null;

  constructor(port: Port, log: (entry: LogEntry) => void) {
    this.#port = port;
    this.#log = log;
    this.#greeted = new Promise((resolve, reject) => {
      this.#tellGreeted = { resolve: () => resolve(), reject };
    });
    // Whoever waits is told; nobody may be waiting.
    this.#greeted.catch(() => {});
    port.onmessage = ({ data }) => this.#receive(data as Reply);
  }

  /** Waits for the greeting and negotiates. */
  async negotiate(): Promise<void> {
    await this.#greeted;
    await this.execute("qmp_capabilities");
  }

  /** @throws QmpError what the engine answered; or that it is gone */
  execute<Name extends CommandName>(
    name: Name,
    ...[args]: ArgumentList<Name>
  ): Promise<ReturnOf<Name>> {
    return new Promise((resolve, reject) => {
      if (this.#failure) return reject(this.#failure);
      const id = ++this.#sentCount;
      const message = { execute: name, ...(args && { arguments: args }), id };
      this.#waiting.set(id, { resolve: resolve as (value: unknown) => void, reject });
      this.#log({ direction: "sent", message });
      this.#port.postMessage(message, []);
    });
  }

  /** Events from now on. Read it, or leave its loop: see EventQueue. */
  events(): EventQueue {
    const queue = new EventQueue((ended) => this.#queues.delete(ended));
    if (this.#failure) queue.fail(this.#failure);
    else this.#queues.add(queue);
    return queue;
  }

  /** Rejects all that waits, and all that comes. The first failure counts. */
  fail(failure: QmpError): void {
    if (this.#failure) return;
    this.#failure = failure;
    this.#tellGreeted.reject(failure);
    for (const { reject } of this.#waiting.values()) reject(failure);
    this.#waiting.clear();
    for (const queue of this.#queues) queue.fail(failure);
  }

  #receive(reply: Reply): void {
    if (this.#failure) return;
    this.#log({ direction: "received", message: reply });
    if (reply.QMP) this.#tellGreeted.resolve(undefined);
    if (reply.event !== undefined) {
      for (const queue of this.#queues) queue.push(reply as QmpEvent);
    }
    if (reply.id === undefined) return;
    const waiting = this.#waiting.get(reply.id);
    this.#waiting.delete(reply.id);
    if (reply.error) waiting?.reject(new QmpError(reply.error));
    else waiting?.resolve(reply.return);
  }
}
