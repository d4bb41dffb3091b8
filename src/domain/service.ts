/**
 * Domains as a service of the tab that has the disks: one driver beside its engine, a DomainPort for each
 * client.
 *
 * The driver starts when the engine has brought back the images of its domains. While one of them is missing
 * (a server is away, a file has to be picked again) calls are refused: a driver that started then would take
 * its domains for crashed, and their jobs for lost. x-recovery-retry or x-recovery-dismiss ends that, and the
 * next call starts it.
 *
 *     port ──▶ gate ──driver is there──▶ DomainPort
 */

import { BlockError } from "../base/errors.ts";
import { type Client, QmpError } from "../engine/client.ts";
import type { Port } from "../engine/protocol.ts";
import { DomainPort } from "./domain-port.ts";
import type { FromDomainPort } from "./domain-protocol.ts";
import { DomainDriver, type DomainDriverOptions } from "./driver.ts";
import { DomainError } from "./errors.ts";
import type { DomainEvent } from "./events.ts";

/** Nodes of images of domains: see record.ts. */
const OWN_NODE = /^libvirt-\d+-/;

export interface DomainServiceInit
  extends Omit<DomainDriverOptions, "qmp" | "onEvent" | "onFailed"> {
  readonly qmp: Client;
  readonly onBug: (bug: unknown) => void;
}

export class DomainService {
  readonly #init: DomainServiceInit;
  #driver: DomainDriver | null = null;
  #starting: Promise<DomainDriver> | null = null;
  readonly #gates = new Set<Gate>();
  /** What has ended while there was no driver: for those who wait for it. */
  readonly #early: DomainEvent[] = [];
  /** Resolves when the driver is finished: the next owner's goes on. */
  readonly failed: Promise<BlockError>;
  #tellFailed: (why: BlockError) => void = () => {};
  #isClosed = false;

  constructor(init: DomainServiceInit) {
    this.#init = init;
    this.failed = new Promise((resolve) => {
      this.#tellFailed = resolve;
    });
  }

  serve(port: Port): void {
    const gate = new Gate(port, (waiting) => this.#knock(waiting));
    this.#gates.add(gate);
    this.#knock(gate);
  }

  /** Domains and their jobs stay as they are. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#driver?.close();
  }

  #knock(gate: Gate): void {
    this.#start().then(
      (driver) => {
        const early = this.#early.splice(0);
        for (const waiting of this.#gates) waiting.open(driver, early, this.#init.onBug);
        this.#gates.clear();
      },
      (error) => {
        if (!(error instanceof DomainError)) return this.#init.onBug(error);
        gate.refuse(error);
      },
    );
  }

  /** @throws DomainError */
  #start(): Promise<DomainDriver> {
    this.#starting ??= this.#startNow().finally(() => {
      if (!this.#driver) this.#starting = null;
    });
    return this.#starting;
  }

  async #startNow(): Promise<DomainDriver> {
    if (this.#isClosed) throw new DomainError("OPERATION_FAILED", "The disks change hands");
    const { onBug: _, ...options } = this.#init;
    try {
      await checkRecovered(options.qmp);
      const onEvent = (event: DomainEvent) => {
        if (!this.#driver) this.#early.push(event);
      };
      const onFailed = (why: DomainError) => {
        if (this.#driver) this.#tellFailed(new BlockError("EIO", why.message, { cause: why }));
      };
      this.#driver = await DomainDriver.start({ ...options, onEvent, onFailed });
    } catch (error) {
      if (error instanceof DomainError) throw error;
      if (!(error instanceof BlockError) && !(error instanceof QmpError)) throw error;
      throw new DomainError("OPERATION_FAILED", error.message, error);
    }
    return this.#driver;
  }
}

/** @throws DomainError OPERATION_INVALID */
async function checkRecovered(qmp: Client): Promise<void> {
  const recovery = await qmp.execute("x-query-recovery");
  const missing = recovery.find(
    ({ kind, name, outcome }) => kind === "node" && outcome === "kept" && OWN_NODE.test(name),
  );
  if (!missing) return;
  const text = `Not all disks have come back: ${missing.text}. Look at x-query-recovery, then x-recovery-retry`;
  throw new DomainError("OPERATION_INVALID", text);
}

/** A port before there is a driver. */
class Gate {
  readonly #port: Port;
  #waiting: MessageEvent[] = [];

  constructor(port: Port, knock: (gate: Gate) => void) {
    this.#port = port;
    port.onmessage = (event) => {
      this.#waiting.push(event);
      knock(this);
    };
  }

  open(driver: DomainDriver, early: readonly DomainEvent[], onBug: (bug: unknown) => void): void {
    for (const event of early) this.#port.postMessage({ event } satisfies FromDomainPort, []);
    new DomainPort({ port: this.#port, driver, onBug });
    for (const event of this.#waiting.splice(0)) this.#port.onmessage?.(event);
  }

  refuse({ code, message }: DomainError): void {
    for (const { data } of this.#waiting.splice(0)) {
      const { id } = data as { readonly id?: unknown };
      if (typeof id !== "number") continue;
      this.#port.postMessage({ id, error: { code, message } } satisfies FromDomainPort, []);
    }
  }
}
