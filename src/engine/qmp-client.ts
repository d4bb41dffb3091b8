/**
 * A QMP client: sends commands, matches the replies by their ids, hands events round. It is the same
 * over a port and over a socket (transport.ts), and speaks to every engine that speaks QMP.
 *
 * Names, arguments and answers are typed from the engine's own table of commands. Only types come
 * from there: a page that uses this loads none of the engine.
 */

import { cancelable } from "../base/cancelable.ts";
import type { JobStatus } from "../job/status.ts";
import type { ArgumentsOf, CommandName, ReturnOf } from "../qmp/commands/index.ts";
import type { EventName, QmpEvent } from "../qmp/events.ts";
import { EventQueue } from "./event-queue.ts";
import type { ErrorData } from "./protocol.ts";
import { clientError, QmpError } from "./qmp-error.ts";
import type { Transport } from "./transport.ts";
import { type JobOutcome, waitForJob } from "./wait-for-job.ts";

export interface ExecuteOptions {
  /**
   * Raised when nobody waits for the answer any more. The command is not taken back: QMP has no way
   * to; it is done all the same, unless it had not been sent.
   */
  readonly signal?: AbortSignal;
}

/** Of execute(): no arguments need be given where none must. */
export type ArgumentList<Name extends CommandName> =
  Record<never, never> extends ArgumentsOf<Name>
    ? [args?: ArgumentsOf<Name>, options?: ExecuteOptions]
    : [args: ArgumentsOf<Name>, options?: ExecuteOptions];

/** The events of these names. */
export type EventOf<Name extends EventName> = Extract<QmpEvent, { readonly event: Name }>;

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
  readonly event?: EventName;
  readonly return?: unknown;
  readonly error?: ErrorData;
  readonly id?: unknown;
}

export class QmpClient {
  /** Sees all QMP traffic, if set. Must not throw. */
  log: ((entry: LogEntry) => void) | null;
  readonly #transport: Transport;
  readonly #waiting = new Map<unknown, Waiting>();
  readonly #queues = new Set<Pick<EventQueue, "push" | "fail">>();
  readonly #greeted: Promise<void>;
  #tellGreeted!: Waiting;
  #sentCount = 0;
  #failure: QmpError | null = null;

  /** Use connect(), connectMonitor() or connectSocket(). */
  constructor(transport: Transport, log: ((entry: LogEntry) => void) | null = null) {
    this.#transport = transport;
    this.log = log;
    this.#greeted = new Promise((resolve, reject) => {
      this.#tellGreeted = { resolve: () => resolve(), reject };
    });
    // Whoever waits is told; nobody may be waiting.
    this.#greeted.catch(() => {});
    transport.start({
      receive: (message) => this.#receive(message),
      lost: (why) => this.fail(why),
    });
  }

  /** Waits for the greeting and negotiates. If that fails, or the signal is raised, it is closed. */
  async negotiate(signal?: AbortSignal): Promise<void> {
    const stop = () => this.fail(canceled("The negotiation"));
    if (signal?.aborted) stop();
    signal?.addEventListener("abort", stop, { once: true });
    try {
      await this.#greeted;
      await this.execute("qmp_capabilities");
    } catch (error) {
      this.close();
      throw error;
    } finally {
      signal?.removeEventListener("abort", stop);
    }
  }

  /**
   * @throws QmpError what the engine answered; that it is gone (EIO, ENOMEDIUM); ECANCELED if the
   *   signal is raised
   */
  execute<Name extends CommandName>(
    name: Name,
    ...[args, { signal } = {}]: ArgumentList<Name>
  ): Promise<ReturnOf<Name>> {
    if (this.#failure) return Promise.reject(this.#failure);
    if (signal?.aborted) return Promise.reject(canceled(`'${name}'`));
    const id = ++this.#sentCount;
    const giveUp = () => this.#settle(id)?.reject(canceled(`The wait for the answer to '${name}'`));
    return cancelable(signal, giveUp, (resolve, reject) => {
      this.#waiting.set(id, { resolve: resolve as Waiting["resolve"], reject });
      const message = { execute: name, ...(args && { arguments: args }), id };
      this.log?.({ direction: "sent", message });
      this.#transport.send(message);
    });
  }

  /**
   * Events from now on, all or those of the names. Read them with `for await`, or leave the loop: see
   * EventQueue for how many it keeps.
   */
  events<Name extends EventName = EventName>(...names: readonly Name[]): EventQueue<EventOf<Name>> {
    const queue = new EventQueue<EventOf<Name>>(names, () => this.#queues.delete(queue));
    if (this.#failure) queue.fail(this.#failure);
    else this.#queues.add(queue);
    return queue;
  }

  /** See wait-for-job.ts. */
  waitForJob(id: string, status: JobStatus, signal?: AbortSignal): Promise<JobOutcome> {
    return waitForJob(this, id, status, signal);
  }

  /** Hangs up: the monitor is gone with it, the engine goes on. */
  close(): void {
    this.fail(clientError("ENOMEDIUM", "The client has been closed"));
  }

  /** Hangs up, and rejects all that waits and all that comes. The first failure counts. */
  fail(failure: QmpError): void {
    if (this.#failure) return;
    this.#failure = failure;
    this.#transport.close();
    this.#tellGreeted.reject(failure);
    for (const { reject } of this.#waiting.values()) reject(failure);
    this.#waiting.clear();
    for (const queue of this.#queues) queue.fail(failure);
  }

  #receive(message: unknown): void {
    if (this.#failure) return;
    if (typeof message !== "object" || message === null) return this.#failOn(message);
    this.log?.({ direction: "received", message });
    const reply: Reply = message;
    if (reply.QMP) return this.#tellGreeted.resolve(undefined);
    if (reply.event !== undefined) {
      for (const queue of this.#queues) queue.push(reply as QmpEvent);
      return;
    }
    // Without an id somebody would wait for ever: every request had one.
    if (reply.id === undefined) return this.#failOn(message);
    // There is none if the wait has been given up.
    const waiting = this.#settle(reply.id);
    if (reply.error) waiting?.reject(new QmpError(reply.error));
    else waiting?.resolve(reply.return);
  }

  #settle(id: unknown): Waiting | undefined {
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    return waiting;
  }

  #failOn(message: unknown): void {
    const desc = (message as Reply | null)?.error?.desc ?? String(message);
    this.fail(clientError("EIO", `The engine has sent what answers no request: ${desc}`));
  }
}

function canceled(what: string): QmpError {
  return clientError("ECANCELED", `${what} was canceled`);
}
