/**
 * How a client reaches one owner: by ports of its own if the owner is this tab's worker, so that
 * buffers can be transferred, else by pipes.
 */

import type { Timer } from "../../base/clock.ts";
import type { Port } from "../protocol.ts";
import { type Channel, newId, type TabHost } from "./host.ts";
import { type ConnectRequest, PIPE } from "./lobby.ts";
import { Pipe } from "./pipe.ts";

/** An owner that has not picked up is told again. */
const REDIAL_MS = 250;

/** This tab's candidate, from outside. */
export interface TabWorker {
  readonly id: string;
  /** Hands it ports, and keeps the other ends. */
  dial(epoch: number, client: string, service: string, count: number): readonly Port[];
  setHidden(isHidden: boolean): void;
  /** Ends its reign in good order. @throws QmpError of what could not be written */
  leave(): Promise<void>;
  terminate(): void;
  /** It has crashed. */
  onlost: () => void;
}

export interface OwnerLineInit {
  readonly host: TabHost;
  readonly lobby: Channel;
  readonly client: string;
  readonly epoch: number;
  /** The worker, if it is the owner. */
  readonly own: TabWorker | null;
}

export class OwnerLine {
  readonly epoch: number;
  readonly #init: OwnerLineInit;
  readonly #ports = new Set<Port>();
  readonly #timers = new Set<Timer>();

  constructor(init: OwnerLineInit) {
    this.#init = init;
    this.epoch = init.epoch;
  }

  /** The owner is this tab's worker. */
  get isOwn(): boolean {
    return this.#init.own !== null;
  }

  dial(service: string, count: number): readonly Port[] {
    const { own, client } = this.#init;
    const ports = own ? own.dial(this.epoch, client, service, count) : this.#pipes(service, count);
    for (const port of ports) this.#ports.add(port);
    return ports;
  }

  hangUp(): void {
    for (const timer of this.#timers) timer.cancel();
    this.#timers.clear();
    for (const port of this.#ports) port.close();
    this.#ports.clear();
  }

  #pipes(service: string, count: number): readonly Port[] {
    const { host, lobby, client, epoch } = this.#init;
    const pipes = Array.from({ length: count }, () => newId(host.random));
    const ports = pipes.map((id) => new Pipe(host.openChannel(PIPE + id), false));
    let silent = ports.length;
    for (const port of ports) {
      port.onopen = () => {
        port.onopen = () => {};
        silent--;
      };
    }
    const request: ConnectRequest = { type: "connect", epoch, client, service, pipes };
    const ring = () => {
      if (silent === 0) return;
      lobby.post(request);
      const timer = host.clock.setTimer(REDIAL_MS, () => {
        this.#timers.delete(timer);
        ring();
      });
      this.#timers.add(timer);
    };
    ring();
    return ports;
  }
}
