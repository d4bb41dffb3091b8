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

/** QMP over a port, a message an object, and null for the end: see monitor-port.ts. */
export function portTransport(port: Port): Transport {
  return {
    start(receiver) {
      const lost = clientError("EIO", "The connection to the engine is lost");
      const closed = clientError("ENOMEDIUM", "The engine has been closed");
      port.addEventListener("close", () => receiver.lost(lost));
      port.onmessage = ({ data }) => {
        if (data === null) receiver.lost(closed);
        else receiver.receive(data);
      };
    },
    send: (message) => port.postMessage(message, []),
    close() {
      port.onmessage = null;
      port.postMessage(null, []);
      port.close();
    },
  };
}
