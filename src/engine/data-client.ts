/**
 * The page's end of the data port: numbers the requests, matches the answers, and keeps the number
 * of requests under way below what the engine allows.
 */

import { cancelable } from "../base/cancelable.ts";
import type { DataMessage, DataRequest } from "./data-request.ts";
import type { ErrorData, FromDataPort, Port, ResultOf } from "./protocol.ts";
import { clientError, QmpError } from "./qmp-error.ts";

/** Well below REQUESTS_MAX, and deep enough to keep the engine busy. */
const REQUESTS_IN_FLIGHT = 16;

interface Waiting {
  readonly resolve: (value: unknown) => void;
  readonly reject: (reason: QmpError) => void;
}

/** Who takes requests to the engine: a DataClient, or what stands for one (tabs/shared-data.ts). */
export type DataRequester = Pick<DataClient, "request">;

export class DataClient {
  readonly #port: Port;
  readonly #waiting = new Map<number, Waiting>();
  /** Requests that wait for their turn. */
  readonly #queue: (() => void)[] = [];
  #sentCount = 0;
  #failure: QmpError | null = null;

  /** @param onStopped the engine has stopped after an internal error */
  constructor(port: Port, onStopped: (error: ErrorData) => void) {
    this.#port = port;
    port.onmessage = ({ data }) => {
      const message = data as FromDataPort;
      if (message.type === "engine-stopped") return onStopped(message.error);
      const waiting = this.#waiting.get(message.id);
      this.#waiting.delete(message.id);
      this.#queue.shift()?.();
      if (message.type === "done") waiting?.resolve(message.result);
      else waiting?.reject(new QmpError(message.error));
    };
  }

  /**
   * @param transfer buffers of the request, which move to the engine when the request is sent
   * @throws QmpError what the engine answered, ECANCELED if the signal is raised
   */
  request<Request extends DataRequest>(
    request: Request,
    transfer: Transferable[] = [],
    signal?: AbortSignal,
  ): Promise<ResultOf<Request["op"]>> {
    let id: number | null = null;
    const cancel = () => {
      // One that waits for its turn has nothing to give up; it sees the signal when its turn comes.
      if (id !== null) this.#post({ id: 0, request: { op: "cancel", request: id } });
    };
    return cancelable(signal, cancel, (resolve, reject) => {
      const send = () => {
        if (this.#failure) return reject(this.#failure);
        if (signal?.aborted) {
          reject(clientError("ECANCELED", "Operation canceled"));
          this.#queue.shift()?.();
          return;
        }
        id = ++this.#sentCount;
        this.#waiting.set(id, { resolve: resolve as Waiting["resolve"], reject });
        this.#post({ id, request }, transfer);
      };
      if (this.#failure || this.#waiting.size < REQUESTS_IN_FLIGHT) send();
      else this.#queue.push(send);
    });
  }

  /** Tells the engine that this client goes away. */
  disconnect(): void {
    if (!this.#failure) this.#post({ id: 0, request: { op: "disconnect" } });
  }

  /** Rejects all that waits, and all that comes. The first failure counts. */
  fail(failure: QmpError): void {
    if (this.#failure) return;
    this.#failure = failure;
    for (const { reject } of this.#waiting.values()) reject(failure);
    this.#waiting.clear();
    for (const send of this.#queue.splice(0)) send();
  }

  #post(message: DataMessage, transfer: Transferable[] = []): void {
    this.#port.postMessage(message, transfer);
  }
}
