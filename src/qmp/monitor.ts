/**
 * A QMP connection: greets, negotiates, runs one command after the other, sends events in between.
 *
 *   receive() ──▶ queue ──▶ check ──▶ run ──▶ reply ──▶ send()
 *                                      └─ events ─────▶ send()   at any time once negotiated
 *
 * Promises to the client:
 *  1. Every request gets exactly one reply, in the order of the requests.
 *  2. A command's effects that it need not wait for come before its reply: the events that a new
 *     job is created and running precede the `return` of the command that made it.
 *  3. Until qmp_capabilities has been through there are no events, and all else is CommandNotFound.
 *  4. When the engine stops, whatever is unanswered and all that comes after is answered with why.
 *
 * Commands of several monitors run side by side, but for those that change what others work on (see
 * Command.alone): of these one at a time. In QEMU that is true of all. (QEMU: monitor/qmp.c.)
 */

import { BlockError } from "../base/errors.ts";
import type { QmpServices, Session } from "./context.ts";
import { JsonStream } from "./json-stream.ts";
import { idOf, parseRequest } from "./request.ts";
import { findCommand, invoke } from "./schema.ts";
import { VERSION } from "./version.ts";

/** Requests that may wait; a client that sends more without reading replies is refused. */
export const QUEUE_REQUESTS_MAX = 1000;

export interface MonitorInit {
  readonly services: QmpServices;
  /** Takes one greeting, reply or event: a plain JSON object, not to be changed. */
  readonly send: (message: object) => void;
  /** Something that is no BlockError came out of a command: the engine must stop. */
  readonly onBug: (bug: unknown) => void;
}

/** Waits for its reply; `error` is told instead of running anything. */
interface Incoming {
  readonly message: unknown;
  readonly error: BlockError | null;
}

export class Monitor {
  readonly #init: MonitorInit;
  readonly #session: Session = { negotiated: false };
  readonly #text = new JsonStream();
  readonly #queue: Incoming[] = [];
  /** The one whose command runs. */
  #current: Incoming | null = null;
  #isWorking = false;
  /** Settles when no request is left. */
  #work: Promise<void> = Promise.resolve();
  #stopped: BlockError | null = null;
  #isClosed = false;

  /** Sends the greeting. */
  constructor(init: MonitorInit) {
    this.#init = init;
    this.#send({ QMP: { version: VERSION, capabilities: [] } });
  }

  /** A request as an object: anything may be in it. */
  receive(message: unknown): void {
    this.#enqueue({ message, error: null });
  }

  /** Requests as text, in pieces of any size. */
  receiveText(piece: string): void {
    for (const item of this.#text.push(piece)) {
      if ("error" in item) this.#enqueue({ message: null, error: item.error });
      else this.receive(item.value);
    }
  }

  /** @param event { event, data, timestamp } */
  sendEvent(event: object): void {
    if (this.#session.negotiated) this.#send(event);
  }

  /** Resolves when no command is under way. */
  idle(): Promise<void> {
    return this.#work;
  }

  /** Answers everything with `why`, from now on. A command that runs comes to its end. */
  stop(why: BlockError): void {
    this.#stopped = why;
    const unanswered = this.#current ? [this.#current, ...this.#queue] : [...this.#queue];
    this.#current = null;
    this.#queue.length = 0;
    for (const { message } of unanswered) this.#send(errorReply(why, message));
  }

  /** The client is gone: nothing is sent any more; a command that runs comes to its end. */
  close(): void {
    this.#isClosed = true;
    this.#queue.length = 0;
  }

  #enqueue(incoming: Incoming): void {
    if (this.#isClosed) return;
    const refusal = this.#stopped ?? this.#overflow();
    if (refusal) {
      this.#send(errorReply(refusal, incoming.message));
      return;
    }
    this.#queue.push(incoming);
    // A flag of its own: a command's events may bring in a request before #work is set.
    if (this.#isWorking) return;
    this.#isWorking = true;
    this.#work = this.#answerAll().catch(this.#init.onBug);
  }

  #overflow(): BlockError | null {
    if (this.#queue.length < QUEUE_REQUESTS_MAX) return null;
    const why = `More than ${QUEUE_REQUESTS_MAX} requests are waiting for their replies`;
    return new BlockError("EBUSY", why);
  }

  async #answerAll(): Promise<void> {
    for (let next = this.#queue.shift(); next; next = this.#queue.shift()) {
      this.#current = next;
      const reply = await this.#answer(next);
      // stop() may have answered it meanwhile.
      if (this.#current === next) this.#send(reply);
      this.#current = null;
    }
    this.#isWorking = false;
  }

  async #answer({ message, error }: Incoming): Promise<object> {
    try {
      if (error) throw error;
      const { name, args } = parseRequest(message);
      const { services } = this.#init;
      if (!this.#session.negotiated && name !== "qmp_capabilities") throw notNegotiated();
      const context = { ...services, session: this.#session };
      return {
        return: await invoke(findCommand(services.commands, name), context, args),
        ...idOf(message),
      };
    } catch (reason) {
      if (reason instanceof BlockError) return errorReply(reason, message);
      this.#init.onBug(reason);
      // onBug() stops this monitor too, which answers the request.
      const text = reason instanceof Error ? reason.message : String(reason);
      return errorReply(new BlockError("EIO", `Internal error: ${text}`), message);
    }
  }

  #send(message: object): void {
    if (!this.#isClosed) this.#init.send(message);
  }
}

function errorReply(error: BlockError, message: unknown): object {
  return { error: error.toQmp(), ...idOf(message) };
}

function notNegotiated(): BlockError {
  return new BlockError("EPERM", "Expecting capabilities negotiation with 'qmp_capabilities'", {
    class: "CommandNotFound",
  });
}
