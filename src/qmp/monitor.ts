/**
 * A QMP connection: greets, negotiates, runs one command after the other, sends events in between.
 *
 *   bytes ──▶ JsonReader ─┐
 *   receive() ────────────┴─▶ queue ──▶ check ──▶ run ──▶ reply ──▶ send()
 *                                                  └─ events ─────▶ send()   once negotiated
 *
 * Promises to the client:
 *  1. Every request gets exactly one reply, in the order of the requests, but for `exec-oob`.
 *  2. A command's effects that it need not wait for come before its reply: the events that a new
 *     job is created and running precede the `return` of the command that made it.
 *  3. Until qmp_capabilities has been through there are no events, and all else is CommandNotFound.
 *  4. When the engine stops, whatever is unanswered and all that comes after is answered with why.
 *
 * Requests that come as bytes are read as far as there is room for them, which is for one request,
 * or for eight once the client has enabled `oob`; whoever brings the bytes is told to hold back.
 * With `oob` a request with `exec-oob` is answered at once. No command may run that way, here as in
 * qemu-storage-daemon, so the answer is a refusal; but clients negotiate it as a matter of course.
 *
 * Commands of several monitors run side by side, but for those that change what others work on (see
 * Command.alone): of these one at a time. In QEMU that is true of all. (QEMU: monitor/qmp.c.)
 */

import { BlockError } from "../base/errors.ts";
import type { Trace } from "../base/trace.ts";
import type { QmpServices, Session } from "./context.ts";
import { plainJson } from "./json/plain.ts";
import { type JsonItem, JsonReader } from "./json/reader.ts";
import { messageText } from "./json/writer.ts";
import { idOf, isOutOfBand, parseRequest } from "./request.ts";
import { type Command, findCommand, invoke } from "./schema.ts";
import { withoutSecrets } from "./secret.ts";
import { CAPABILITIES, VERSION } from "./version.ts";

/** Requests that may wait where input cannot be held back; what comes after them is refused. */
export const QUEUE_REQUESTS_MAX = 1000;
/** Requests that may wait where it can (QEMU: QMP_REQ_QUEUE_LEN_MAX). */
const QUEUE_REQUESTS_OOB = 8;

/** Of requests that may come a second time: see src/engine/journal/requests.ts. */
export interface RequestLog {
  /** @returns the first one's reply, if there was one. @throws BlockError if it is not known what became of it */
  recall(id: unknown, command: Command): object | Promise<object> | undefined;
  /** It is about to be run. @returns when it may, or null: at once */
  accept(id: unknown, command: Command): Promise<void> | null;
  answered(id: unknown, command: Command, reply: object): void;
}

export interface MonitorInit {
  readonly services: QmpServices;
  /** Without it every request is a new one. */
  readonly requests?: RequestLog;
  /**
   * Takes one greeting, reply or event: a plain JSON object, not to be changed. An `id` may have
   * bigints in it, and if it came as text JsonFloats: see json/writer.ts.
   */
  readonly send: (message: object) => void;
  /** Something that is no BlockError came out of a command: the engine must stop. */
  readonly onBug: (bug: unknown) => void;
  /**
   * Input can be held back: called when there is room again after receiveBytes() has returned false.
   * Without it everything is read at once, and refused where too many requests wait.
   */
  readonly onReady?: () => void;
}

/** Waits for its reply; `error` is told instead of running anything. */
interface Incoming {
  readonly message: unknown;
  readonly error: BlockError | null;
}

export class Monitor {
  readonly #init: MonitorInit;
  readonly #session: Session = { negotiated: false, oob: false };
  readonly #reader = new JsonReader();
  /** Bytes that the reader has not taken yet. */
  readonly #pieces: Uint8Array[] = [];
  /** The piece that the reader has taken. */
  #taken: Uint8Array | null = null;
  /** Half a character, of receiveText(). */
  #halfCharacter = "";
  /** Whoever brings bytes holds back. */
  #isHeldBack = false;
  #isReading = false;
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
    this.#send({ QMP: { version: VERSION, capabilities: CAPABILITIES } });
  }

  /** A request as an object: anything may be in it. */
  receive(message: unknown): void {
    try {
      this.#enqueue({ message: plainJson(message), error: null });
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
      this.#enqueue({ message: onlyId(message), error });
    }
  }

  /**
   * Requests as UTF-8, in pieces of any size.
   *
   * @param piece not to be changed any more
   * @returns false: bring no more until `onReady` is called
   */
  receiveBytes(piece: Uint8Array): boolean {
    if (this.#isClosed) return true;
    this.#pieces.push(piece);
    this.#read();
    this.#isHeldBack = this.#pieces.length > 0;
    return !this.#isHeldBack;
  }

  /** As receiveBytes(). A surrogate without its other half counts as U+FFFD. */
  receiveText(piece: string): boolean {
    const text = this.#halfCharacter + piece;
    const whole = /[\ud800-\udbff]$/.test(text) ? text.slice(0, -1) : text;
    this.#halfCharacter = text.slice(whole.length);
    return this.receiveBytes(new TextEncoder().encode(whole));
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
    this.#read();
  }

  /** The client is gone: nothing is sent any more; a command that runs comes to its end. */
  close(): void {
    this.#isClosed = true;
    this.#queue.length = 0;
    this.#pieces.length = 0;
  }

  /** As far as there is room. The first of the pieces is with the reader. */
  #read(): void {
    if (this.#isReading) return;
    this.#isReading = true;
    while (this.#pieces[0] && this.#hasRoom()) {
      const item = this.#nextItem(this.#pieces[0]);
      if (item) this.#takeItem(item);
    }
    this.#isReading = false;
    if (!this.#isHeldBack || this.#pieces.length > 0) return;
    this.#isHeldBack = false;
    if (!this.#isClosed) this.#init.onReady?.();
  }

  #nextItem(piece: Uint8Array): JsonItem | null {
    if (this.#taken !== piece) this.#reader.take(piece);
    this.#taken = piece;
    const item = this.#reader.next();
    if (!item) this.#pieces.shift();
    return item;
  }

  #takeItem(item: JsonItem): void {
    if ("error" in item) this.#enqueue({ message: null, error: item.error });
    else this.#enqueue({ message: item.value, error: null });
  }

  #hasRoom(): boolean {
    if (!this.#init.onReady || this.#stopped) return true;
    if (this.#session.oob) return this.#queue.length < QUEUE_REQUESTS_OOB;
    return !this.#current && this.#queue.length === 0;
  }

  #enqueue(incoming: Incoming): void {
    if (this.#isClosed) return;
    const { message, error } = incoming;
    this.#trace.handle_qmp_command?.(textOf(withoutSecrets(message)));
    const isAtOnce = isOutOfBand(message) && !error;
    const refusal =
      this.#stopped ?? (isAtOnce ? this.#refusalOutOfBand(message) : this.#overflow());
    if (refusal) {
      this.#send(errorReply(refusal, message));
      return;
    }
    this.#queue.push(incoming);
    // A flag of its own: a command's events may bring in a request before #work is set.
    if (this.#isWorking) return;
    this.#isWorking = true;
    this.#work = this.#answerAll().catch(this.#init.onBug);
  }

  /** No command runs out of band: tells why not. */
  #refusalOutOfBand(message: unknown): BlockError {
    try {
      const { name } = this.#parse(message);
      return new BlockError("EINVAL", `The command '${name}' cannot be executed out of band`);
    } catch (reason) {
      if (reason instanceof BlockError) return reason;
      throw reason;
    }
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
      this.#read();
    }
    this.#isWorking = false;
  }

  async #answer({ message, error }: Incoming): Promise<object> {
    try {
      if (error) throw error;
      const { command, args } = this.#parse(message);
      const { requests } = this.#init;
      if (requests) return await this.#runOnce(requests, command, args, message);
      const context = { ...this.#init.services, session: this.#session };
      return { return: await invoke(command, context, args), ...idOf(message) };
    } catch (reason) {
      if (reason instanceof BlockError) return errorReply(reason, message);
      this.#init.onBug(reason);
      // onBug() stops this monitor too, which answers the request.
      const text = reason instanceof Error ? reason.message : String(reason);
      return errorReply(new BlockError("EIO", `Internal error: ${text}`), message);
    }
  }

  /** Unless the reply is on record. @returns it, also one that tells what the command has thrown */
  async #runOnce(
    requests: RequestLog,
    command: Command,
    args: object,
    message: unknown,
  ): Promise<object> {
    const { id } = idOf(message);
    const known = requests.recall(id, command);
    if (known) return known;
    const accepted = requests.accept(id, command);
    if (accepted) await accepted;
    const context = { ...this.#init.services, session: this.#session };
    let reply: object;
    try {
      reply = { return: await invoke(command, context, args), ...idOf(message) };
    } catch (reason) {
      if (!(reason instanceof BlockError)) throw reason;
      reply = errorReply(reason, message);
    }
    requests.answered(id, command, reply);
    return reply;
  }

  /** @throws BlockError EINVAL, EPERM (CommandNotFound) */
  #parse(message: unknown): { name: string; command: Command; args: object } {
    const { name, args } = parseRequest(message, this.#session.oob);
    if (!this.#session.negotiated && name !== "qmp_capabilities") throw notNegotiated();
    return { name, command: findCommand(this.#init.services.commands, name), args };
  }

  get #trace(): Trace {
    return this.#init.services.graph.world.trace;
  }

  #send(message: object): void {
    if (!("event" in message)) this.#trace.monitor_qmp_respond?.(textOf(message));
    if (!this.#isClosed) this.#init.send(message);
  }
}

/** For people who watch; what is no JSON was no request. */
function textOf(message: unknown): string {
  return typeof message === "object" && message ? messageText(message).trimEnd() : String(message);
}

function errorReply(error: BlockError, message: unknown): object {
  return { error: error.toQmp(), ...idOf(message) };
}

/** Of a message that is not JSON: the id may be, and whoever sent it waits for it. */
function onlyId(message: unknown): object | null {
  try {
    const id = plainJson({ id: (message as { id?: unknown } | null | undefined)?.id });
    return id as object;
  } catch (error) {
    if (error instanceof BlockError) return null;
    throw error;
  }
}

function notNegotiated(): BlockError {
  return new BlockError("EPERM", "Expecting capabilities negotiation with 'qmp_capabilities'", {
    class: "CommandNotFound",
  });
}
