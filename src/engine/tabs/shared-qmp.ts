/**
 * The connection of a QMP client, whoever owns the disks. To the client it is one long conversation:
 * each owner's greeting and negotiation stay in here, and requests that an owner has not answered are
 * put to the next one.
 *
 *   what only asks                    is asked again
 *   the rest, under an id {client, n} is sent again if owners remember ids: the engine looks it up
 *                                     otherwise the client is told that nobody knows
 */

import { isQuestion } from "../../qmp/question.ts";
import type { Port } from "../protocol.ts";
import type { Receiver, Transport } from "../transport.ts";

interface Request {
  readonly execute: string;
  readonly id: number;
}

interface Unanswered {
  readonly message: Request;
  isSent: boolean;
}

const NEGOTIATION = "negotiation";

export class SharedTransport implements Transport {
  readonly #client: string;
  readonly #unanswered = new Map<number, Unanswered>();
  #receiver: Receiver | null = null;
  #greeting: object | null = null;
  #port: Port | null = null;
  #isNegotiated = false;

  constructor(client: string) {
    this.#client = client;
  }

  /** Something waits for an owner's answer. */
  get isWaiting(): boolean {
    return this.#unanswered.size > 0;
  }

  start(receiver: Receiver): void {
    this.#receiver = receiver;
    if (this.#greeting) receiver.receive(this.#greeting);
  }

  send(message: object): void {
    const request = message as Request;
    // Of this client alone: with each owner it has been negotiated already.
    if (request.execute === "qmp_capabilities") {
      queueMicrotask(() => this.#receiver?.receive({ return: {}, id: request.id }));
      return;
    }
    const unanswered = { message: request, isSent: false };
    this.#unanswered.set(request.id, unanswered);
    if (this.#isNegotiated) this.#post(unanswered);
  }

  close(): void {
    this.#receiver = null;
    this.#unanswered.clear();
    this.#port?.postMessage(null, []);
    this.disconnect();
  }

  /** @param remembers owners know the ids of commands that earlier owners have had */
  connect(port: Port, remembers: boolean): void {
    this.#port = port;
    port.onmessage = ({ data }) => this.#receive(data, remembers);
  }

  disconnect(): void {
    if (this.#port) this.#port.onmessage = null;
    this.#port = null;
    this.#isNegotiated = false;
  }

  #receive(message: unknown, remembers: boolean): void {
    // The end: the lobby tells what comes next.
    if (typeof message !== "object" || message === null) return;
    const { QMP, id } = message as { QMP?: object; id?: unknown };
    if (QMP) {
      this.#port?.postMessage({ execute: "qmp_capabilities", id: NEGOTIATION }, []);
      if (this.#greeting === null) this.#receiver?.receive(message);
      this.#greeting = message;
    } else if (id === NEGOTIATION) {
      this.#isNegotiated = true;
      this.#sendAgain(remembers);
    } else if (typeof id === "object" && id !== null && "n" in id) {
      const n = id.n as number;
      if (this.#unanswered.delete(n)) this.#receiver?.receive({ ...message, id: n });
    } else {
      this.#receiver?.receive(message);
    }
  }

  #sendAgain(remembers: boolean): void {
    for (const unanswered of [...this.#unanswered.values()]) {
      const { execute, id } = unanswered.message;
      if (!unanswered.isSent || remembers || isQuestion(execute)) {
        this.#post(unanswered);
        continue;
      }
      this.#unanswered.delete(id);
      const desc = `The tab that had the disks was lost while '${execute}' was under way: look at query-jobs and query-named-block-nodes for whether it has been done`;
      this.#receiver?.receive({ error: { class: "GenericError", desc }, id });
    }
  }

  #post(unanswered: Unanswered): void {
    const { message } = unanswered;
    unanswered.isSent = true;
    this.#port?.postMessage({ ...message, id: { client: this.#client, n: message.id } }, []);
  }
}
