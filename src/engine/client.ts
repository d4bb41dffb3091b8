/**
 * The engine as a page sees it: typed QMP commands, events, and the bytes of disks.
 *
 *     const client = await connect();
 *     await client.execute("blockdev-add", { driver: "memory", "node-name": "m", size: 1048576 });
 *     await client.execute("block-export-add", { type: "message-port", id: "d", "node-name": "m" });
 *     const device = await client.openDevice("d");
 *     for await (const event of client.events()) …
 *
 * The engine runs in a dedicated worker, since only there browsers have sync access to files. Needs
 * no cross-origin isolation. Everything throws QmpError; when the worker crashes or the engine stops
 * after an internal error, all that is outstanding and all that comes after fails with why.
 */

import { type JobStatus, mayApply } from "../job/status.ts";
import type { ArgumentsOf, CommandName, ReturnOf } from "../qmp/commands/index.ts";
import type { EventName, QmpEvent } from "../qmp/events.ts";
import { DataCalls } from "./data-calls.ts";
import { DataClient } from "./data-client.ts";
import { Device } from "./device.ts";
import type { EventQueue } from "./event-queue.ts";
import type { ConnectMessage, MonitorOptions, Port, StoredFile } from "./protocol.ts";
import {
  type ArgumentList,
  type EventOf,
  type ExecuteOptions,
  type LogEntry,
  QmpClient,
} from "./qmp-client.ts";
import { clientError, QmpError } from "./qmp-error.ts";
import { portTransport } from "./transport.ts";
import type { JobOutcome } from "./wait-for-job.ts";

export type { ArgumentsOf, CommandName, ReturnOf } from "../qmp/commands/index.ts";
/** What opens a node, a case for each driver; and what makes an image. */
export type BlockdevOptions = ArgumentsOf<"blockdev-add">;
export type CreateOptions = ArgumentsOf<"blockdev-create">["options"];
export type { BlockDeviceInfo, ImageInfo } from "../qmp/types.ts";
export type {
  EventName,
  ExecuteOptions,
  JobOutcome,
  LogEntry,
  MonitorOptions,
  QmpEvent,
  StoredFile,
};
export { Device, mayApply, QmpClient, QmpError };

export interface ConnectOptions {
  /** Another client's worker, to be one more client of its engine. Without it: an own worker. */
  readonly worker?: Worker;
  /** Sees all QMP traffic from the greeting on. Must not throw. */
  readonly log?: (entry: LogEntry) => void;
  /** Raised to give up waiting for an engine that does not come up. */
  readonly signal?: AbortSignal;
}

/** @throws QmpError if the worker cannot be loaded or the engine does not run in this browser */
export async function connect(options: ConnectOptions = {}): Promise<Client> {
  const worker =
    options.worker ??
    new Worker(new URL("./worker.ts", import.meta.url), { type: "module", name: "blocktab" });
  const qmp = new MessageChannel();
  const data = new MessageChannel();
  const client = new Client({
    qmp: qmp.port1,
    data: data.port1,
    worker,
    ownsWorker: options.worker === undefined,
    log: options.log,
  });
  const message: ConnectMessage = { type: "connect", qmp: qmp.port2, data: data.port2 };
  worker.postMessage(message, [qmp.port2, data.port2]);
  try {
    await client.negotiate(options.signal);
  } catch (error) {
    if (options.worker === undefined) worker.terminate();
    throw error;
  }
  return client;
}

/**
 * The same commands and events over a monitor's port (Client.openMonitor(), without `text`): for
 * another worker or window. The port is this client's from now on.
 *
 * @throws QmpError if the engine is gone, ECANCELED if the signal is raised
 */
export async function connectMonitor(
  port: MessagePort,
  { log, signal }: Pick<ConnectOptions, "log" | "signal"> = {},
): Promise<QmpClient> {
  const client = new QmpClient(portTransport(port), log);
  await client.negotiate(signal);
  return client;
}

export interface ClientInit {
  readonly qmp: Port;
  readonly data: Port;
  /** What the engine runs in; undefined if in this thread. */
  readonly worker?: Worker;
  /** close() ends the engine, too. */
  readonly ownsWorker: boolean;
  readonly log?: ((entry: LogEntry) => void) | undefined;
}

export class Client extends DataCalls {
  /** For other clients of the same engine. */
  readonly worker: Worker | undefined;
  readonly #init: ClientInit;
  readonly #qmp: QmpClient;
  protected readonly data: DataClient;
  readonly #onCrash: (event: Event) => void;
  #closed: Promise<void> | null = null;
  #isBroken = false;

  /** Use connect(). */
  constructor(init: ClientInit) {
    super();
    this.#init = init;
    this.worker = init.worker;
    this.#qmp = new QmpClient(portTransport(init.qmp), init.log);
    this.data = new DataClient(init.data, (error) => this.#break(new QmpError(error)));
    this.#onCrash = (event) => {
      const { message } = event as Partial<ErrorEvent>;
      const why = message || "it could not be loaded, or ran out of memory";
      this.#break(clientError("EIO", `The engine's worker has crashed: ${why}`));
    };
    init.worker?.addEventListener("error", this.#onCrash);
    init.worker?.addEventListener("messageerror", this.#onCrash);
  }

  /** Sees all QMP traffic, if set. Must not throw. */
  get log(): ((entry: LogEntry) => void) | null {
    return this.#qmp.log;
  }

  set log(log: ((entry: LogEntry) => void) | null) {
    this.#qmp.log = log;
  }

  /** For connect(). */
  negotiate(signal?: AbortSignal): Promise<void> {
    return this.#qmp.negotiate(signal);
  }

  /**
   * Runs a QMP command. Commands of one client run in order, those of several side by side, but for
   * those that must be alone (src/qmp/schema.ts).
   *
   * @throws QmpError what the engine answered; that it is gone; ECANCELED if the signal is raised
   */
  execute<Name extends CommandName>(
    name: Name,
    ...args: ArgumentList<Name>
  ): Promise<ReturnOf<Name>> {
    return this.#qmp.execute(name, ...args);
  }

  /**
   * QMP events from now on, all or those of the names, to be read with `for await`; see EventQueue for
   * how many it keeps.
   */
  events<Name extends EventName = EventName>(...names: readonly Name[]): EventQueue<EventOf<Name>> {
    return this.#qmp.events(...names);
  }

  /**
   * One more QMP monitor of the engine, with a negotiation of its own: for whoever gets the port,
   * which may be transferred to another worker or window. See docs/client.md for what goes over it.
   */
  async openMonitor({ text = false }: MonitorOptions = {}): Promise<MessagePort> {
    const { port1, port2 } = new MessageChannel();
    await this.data.request({ op: "open-monitor", port: port2, text }, [port2]);
    return port1;
  }

  /** See wait-for-job.ts. */
  waitForJob(id: string, status: JobStatus, signal?: AbortSignal): Promise<JobOutcome> {
    return this.#qmp.waitForJob(id, status, signal);
  }

  /**
   * Says good-bye. If this client made the worker, the engine ends first in good order: jobs are
   * cancelled, nodes flushed and closed.
   *
   * @throws QmpError if something could not be written
   */
  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    const { worker, ownsWorker } = this.#init;
    try {
      if (ownsWorker && !this.#isBroken) await this.data.request({ op: "shutdown" });
    } finally {
      this.data.disconnect();
      this.#break(clientError("ENOMEDIUM", "The client has been closed"));
      if (ownsWorker) worker?.terminate();
    }
  }

  #break(why: QmpError): void {
    this.#isBroken = true;
    this.#init.worker?.removeEventListener("error", this.#onCrash);
    this.#init.worker?.removeEventListener("messageerror", this.#onCrash);
    this.#qmp.fail(why);
    this.data.fail(why);
    this.#init.data.close();
  }
}
