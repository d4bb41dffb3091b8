/**
 * What a QMP client needs of a connection: messages out, messages in, and word of its end. Here over
 * a port; over a socket of Node in node-socket.ts.
 */

import type { Port } from "./protocol.ts";
import { clientError, type QmpError } from "./qmp-error.ts";

/** Where a connection tells what happens to it. */
export interface Receiver {
  /** Whatever came, in order. */
  receive(message: unknown): void;
  /** The other side is gone: nothing comes any more, and nothing arrives there. */
  lost(why: QmpError): void;
}

export interface Transport {
  /** Called once: what has come so far is told, too. */
  start(receiver: Receiver): void;
  /** After the end it does nothing. */
  send(message: object): void;
  /** Nothing is told any more. */
  close(): void;
}

/** QMP over a port, a message an object. */
export function portTransport(port: Port): Transport {
  return {
    start(receiver) {
      const lost = () => receiver.lost(clientError("EIO", "The engine has closed the connection"));
      port.addEventListener("close", lost);
      port.onmessage = ({ data }) => receiver.receive(data);
    },
    send: (message) => port.postMessage(message, []),
    close() {
      port.onmessage = null;
      port.close();
    },
  };
}
