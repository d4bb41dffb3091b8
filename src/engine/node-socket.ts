/**
 * The typed client on a socket of Node: for `blocktab daemon`, and for QEMU's own programs, since both
 * speak the same QMP.
 *
 *     const qmp = await connectSocket("/run/qmp.sock");
 *     await qmp.execute("query-named-block-nodes");
 */

import { connect, type NetConnectOpts } from "node:net";
import { MiB } from "../base/bytes.ts";
import { type LogEntry, QmpClient } from "./qmp-client.ts";
import { clientError, type QmpError } from "./qmp-error.ts";
import type { Receiver, Transport } from "./transport.ts";

/** Far more than any answer takes; who sends more does not speak QMP. */
const MESSAGE_CHARACTERS_MAX = 64 * MiB;

export interface SocketOptions {
  /** Sees all QMP traffic from the greeting on. Must not throw. */
  readonly log?: (entry: LogEntry) => void;
  /** Raised to give up waiting for a greeting. */
  readonly signal?: AbortSignal;
}

/**
 * @param address path of a unix socket, or { host, port }
 * @throws QmpError EIO if nobody listens there or it does not speak QMP, ECANCELED
 */
export async function connectSocket(
  address: string | { readonly host: string; readonly port: number },
  { log, signal }: SocketOptions = {},
): Promise<QmpClient> {
  const options = typeof address === "string" ? { path: address } : address;
  const client = new QmpClient(socketTransport(options), log);
  await client.negotiate(signal);
  return client;
}

function socketTransport(options: NetConnectOpts): Transport {
  const socket = connect(options);
  socket.setEncoding("utf8");
  return {
    start(receiver) {
      const lines = new Lines(receiver);
      let why = "it was closed by the other side";
      socket.on("data", (piece: string) => lines.push(piece));
      socket.on("error", (error) => {
        why = error.message;
      });
      socket.on("close", () => receiver.lost(connectionError(why)));
    },
    send: (message) => void socket.write(`${JSON.stringify(message)}\n`),
    close: () => void socket.destroy(),
  };
}

/**
 * Cuts what an engine sends into messages: each ends with a line whose last bracket is not indented,
 * in the compact form as in the pretty one.
 */
class Lines {
  readonly #receiver: Receiver;
  /** Of the current message. */
  #lines: string[] = [];
  /** The last line, as far as it is there. */
  #line: string[] = [];
  #length = 0;

  constructor(receiver: Receiver) {
    this.#receiver = receiver;
  }

  push(piece: string): void {
    const [first, ...more] = piece.split("\n") as [string, ...string[]];
    this.#line.push(first);
    for (const next of more) {
      this.#endLine(this.#line.join("").trimEnd());
      this.#line = [next];
    }
    this.#length += piece.length;
    if (this.#length > MESSAGE_CHARACTERS_MAX) this.#fail("a message has no end");
  }

  #endLine(line: string): void {
    this.#lines.push(line);
    if (line.startsWith(" ") || !line.endsWith("}")) return;
    const text = this.#lines.join("\n");
    this.#lines = [];
    this.#length = 0;
    let message: unknown;
    try {
      message = JSON.parse(text);
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error;
      return this.#fail(`what comes is no JSON: ${text.slice(0, 60)}`);
    }
    this.#receiver.receive(message);
  }

  #fail(why: string): void {
    this.#receiver.lost(connectionError(why));
  }
}

function connectionError(why: string): QmpError {
  return clientError("EIO", `The connection to the engine is lost: ${why}`);
}
