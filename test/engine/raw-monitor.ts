/** The far end of a monitor's port, with nothing in between: what is posted, and what comes back. */

export interface RawMessage {
  readonly QMP?: object;
  readonly event?: string;
  readonly return?: unknown;
  readonly error?: { readonly class: string; readonly desc: string };
  readonly id?: unknown;
}

export class RawMonitor {
  /** All that has come, text taken apart where there is some. */
  readonly received: RawMessage[] = [];
  /** As it came; null is the end. */
  readonly raw: unknown[] = [];
  readonly port: MessagePort;
  #onMessage: (() => void) | null = null;

  constructor(port: MessagePort) {
    this.port = port;
    port.onmessage = ({ data }) => {
      this.raw.push(data);
      if (data !== null) this.received.push(typeof data === "string" ? JSON.parse(data) : data);
      this.#onMessage?.();
    };
  }

  get events(): RawMessage[] {
    return this.received.filter(({ event }) => event !== undefined);
  }

  get replies(): RawMessage[] {
    return this.received.filter(({ event, QMP }) => event === undefined && QMP === undefined);
  }

  /** Posts it, and waits for one more reply. */
  async say(message: unknown, transfer: Transferable[] = []): Promise<RawMessage> {
    const count = this.replies.length + 1;
    this.port.postMessage(message, transfer);
    await this.until(() => this.replies.length >= count);
    return this.replies[count - 1]!;
  }

  execute(name: string, args?: object): Promise<RawMessage> {
    return this.say({ execute: name, ...(args && { arguments: args }) });
  }

  /** Waits until it is true, looking after each message. */
  async until(isTrue: () => boolean): Promise<void> {
    while (!isTrue()) {
      await new Promise<void>((resolve) => {
        this.#onMessage = resolve;
      });
    }
  }
}
