/**
 * A QMP monitor for whoever has the other end of a port. It trusts nothing that comes.
 *
 * Where a socket has its end of file, a port has the message `null`, in either direction; a port that
 * just goes away is noticed, too, sooner or later (held-port.ts).
 */

import { messageText } from "../qmp/json/writer.ts";
import type { Monitor } from "../qmp/monitor.ts";
import { HeldPort } from "./held-port.ts";
import type { MonitorOptions, Port } from "./protocol.ts";

export interface MonitorPortInit {
  readonly port: Port;
  readonly options: MonitorOptions;
  /** Makes the monitor, which greets at once. */
  readonly open: (send: (message: object) => void) => Monitor;
  /** The other end has hung up. */
  readonly onClose: () => void;
}

export class MonitorPort {
  readonly monitor: Monitor;
  readonly #port: HeldPort;
  readonly #text: boolean;

  constructor({ port, options, open, onClose }: MonitorPortInit) {
    this.#text = options.text ?? false;
    this.#port = new HeldPort(port, (data) => this.#receive(data, onClose), onClose);
    this.monitor = open((message) => this.#send(message));
  }

  /** There will be nothing more: the engine goes. */
  hangUp(): void {
    this.#port.post(null);
    this.close();
  }

  /** Nothing is sent or received any more. */
  close(): void {
    this.#port.close();
  }

  #receive(data: unknown, onClose: () => void): void {
    if (data === null) {
      this.close();
      onClose();
    } else if (!this.#text) this.monitor.receive(data);
    else if (typeof data === "string") this.monitor.receiveText(data);
    // In the wrong kind of message there is no request.
    else this.monitor.receive(undefined);
  }

  #send(message: object): void {
    this.#port.post(this.#text ? messageText(message) : message);
  }
}
