/**
 * What every tab's worker does: waits for its turn to own the disks, owns them, gives them back.
 *
 *   waiting for the lock ──▶ epoch raised ──▶ Owner.rule() ──▶ the lock is free, whatever happened
 *         ▲                                        │
 *         └────────── a while later, if it failed ─┘
 *
 * The epoch is raised before anything is opened, so whatever an earlier owner may still want to
 * record is refused.
 */

import { sleep } from "../../base/clock.ts";
import { BlockError } from "../../base/errors.ts";
import type { Port } from "../protocol.ts";
import type { Channel, TabHost } from "./host.ts";
import { LOBBY, type LobbyMessage, OWNER_LOCK } from "./lobby.ts";
import { Owner } from "./owner.ts";
import type { OpenRealm } from "./realm.ts";
import type { Reign } from "./reign.ts";

/** After a failure; it doubles up to the second. */
const RETRY_MS = 500;
const RETRY_MS_MAX = 30_000;
/** For how long those stand back who are not meant. */
const STAND_BACK_MS = 500;

export class Candidate {
  readonly worker: string;
  readonly #host: TabHost;
  readonly #open: OpenRealm;
  readonly #lobby: Channel;
  readonly #leave = new AbortController();
  /** Raised to go to the end of the queue. */
  #standBack = new AbortController();
  #owner: Owner | null = null;
  #isHidden = false;
  readonly #done: Promise<void>;

  /** @param worker an id that nobody else has */
  constructor(host: TabHost, worker: string, open: OpenRealm) {
    this.#host = host;
    this.worker = worker;
    this.#open = open;
    this.#lobby = host.openChannel(LOBBY);
    this.#lobby.onmessage = (message) => this.#hear(message as LobbyMessage);
    this.#done = this.#run();
  }

  /** Ends the reign in good order, if there is one, and the waiting. @throws what closing throws */
  async leave(): Promise<void> {
    this.#leave.abort();
    await this.#done;
  }

  setHidden(isHidden: boolean): void {
    this.#isHidden = isHidden;
    this.#owner?.setHidden(isHidden);
  }

  /** Ports of a page of this tab; closed if it is not the owner that is meant. */
  accept(epoch: number, client: string, service: string, ports: readonly Port[]): void {
    if (this.#owner?.notice.epoch === epoch) this.#owner.accept(client, service, ports);
    else for (const port of ports) port.close();
  }

  async #run(): Promise<void> {
    const leave = this.#leave.signal;
    let failures = 0;
    try {
      while (!leave.aborted) {
        try {
          await this.#stand();
          failures = 0;
        } catch (error) {
          if (!(error instanceof BlockError)) throw error;
          if (leave.aborted && error.errno !== "ECANCELED") throw error;
          if (error.errno !== "ECANCELED") failures++;
          const wait = Math.min(RETRY_MS * 2 ** failures, RETRY_MS_MAX);
          await sleep(this.#host.clock, failures === 0 ? STAND_BACK_MS : wait, leave).catch(
            () => {},
          );
        }
      }
    } finally {
      this.#lobby.close();
    }
  }

  async #stand(): Promise<void> {
    const { locks, epochs } = this.#host;
    this.#standBack = new AbortController();
    const stop = () => this.#standBack.abort();
    const leave = this.#leave.signal;
    leave.addEventListener("abort", stop, { once: true });
    try {
      if (leave.aborted) return;
      await locks.hold(
        OWNER_LOCK,
        async () => {
          const reign = await epochs.raise();
          await this.#rule(reign);
        },
        this.#standBack.signal,
      );
    } finally {
      leave.removeEventListener("abort", stop);
    }
  }

  async #rule(reign: Reign): Promise<void> {
    const owner = new Owner({
      host: this.#host,
      worker: this.worker,
      reign,
      lobby: this.#lobby,
      open: this.#open,
      leave: this.#leave.signal,
    });
    this.#owner = owner;
    owner.setHidden(this.#isHidden);
    try {
      await owner.rule();
    } finally {
      this.#owner = null;
    }
    // It has been asked for them: whoever asked comes first.
    if (owner.next !== undefined) throw new BlockError("ECANCELED", "The disks were asked for");
  }

  #hear(message: LobbyMessage): void {
    if (this.#owner) this.#owner.hear(message);
    else if (message.type === "owner" && message.to !== undefined && message.to !== this.worker) {
      this.#standBack.abort();
    }
  }
}
