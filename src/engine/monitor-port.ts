/**
 * A QMP monitor for whoever has the other end of a port. It trusts nothing that comes, and lives for
 * as long as the other end does: when that is closed, or goes away with its page, the monitor goes.
 */

import type { Monitor } from "../qmp/monitor.ts";
import type { MonitorOptions, Port } from "./protocol.ts";

const UNREPEATABLE = {
  error: {
    class: "GenericError",
    desc: "The 'id' of a request cannot be repeated: it holds what is not data",
  },
};

/**
 * @param open makes the monitor, which greets at once
 * @param close told once, when the other end is gone
 */
export function serveMonitor(
  port: Port,
  { text = false }: MonitorOptions,
  open: (send: (message: object) => void) => Monitor,
  close: (monitor: Monitor) => void,
): void {
  const send = (message: object) => {
    port.postMessage(text ? `${JSON.stringify(message)}\r\n` : message, []);
  };
  const monitor = open((message) => {
    try {
      send(message);
    } catch (error) {
      // What came by transfer, such as a port, cannot be copied back.
      if (!(error instanceof DOMException && error.name === "DataCloneError")) throw error;
      send(UNREPEATABLE);
    }
  });
  // In the wrong kind of message there is no request.
  const nothing = () => monitor.receive(undefined);
  port.addEventListener("messageerror", nothing);
  port.addEventListener("close", () => {
    port.onmessage = null;
    close(monitor);
  });
  port.onmessage = ({ data }) => {
    if (!text) monitor.receive(data);
    else if (typeof data === "string") monitor.receiveText(data);
    else nothing();
  };
}
