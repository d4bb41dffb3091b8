/** What has become of things while nobody looked: recovery, and jobs that have ended. */

import { signal } from "@preact/signals";
import type { Tab } from "../src/domain/client.ts";
import type { Actions } from "./actions.ts";
import { dismissHistory, type EndedJob, queryHistory } from "./history.ts";
import { dismiss, queryRecovery, type Recovered } from "./recovery.ts";

export class Aftermath {
  /** What became of everything when the engine was lost the last time. */
  readonly recovered = signal<readonly Recovered[]>([]);
  /** Jobs that have ended, the newest first. */
  readonly history = signal<readonly EndedJob[]>([]);
  /** Something has come back, or has been given up. */
  onRecovered: () => Promise<void> = async () => {};
  readonly #tab: Tab;
  readonly #actions: Actions;

  constructor(tab: Tab, actions: Actions) {
    this.#tab = tab;
    this.#actions = actions;
  }

  async refreshRecovery(): Promise<void> {
    const { client, isShared } = this.#tab;
    this.recovered.value = await queryRecovery(client, isShared);
  }

  async refreshHistory(): Promise<void> {
    const { client, isShared } = this.#tab;
    this.history.value = await queryHistory(client, isShared);
  }

  /** It is in the history, and recovery tells no more that it goes on. */
  async jobEnded(): Promise<void> {
    await this.refreshHistory();
    await this.refreshRecovery();
  }

  /** @param id undefined: all */
  dismissHistory(id?: string): Promise<boolean> {
    return this.#actions.act("jobs", async () => {
      await dismissHistory(this.#tab.client, id);
      await this.refreshHistory();
    });
  }

  /** Tries again to bring back what is missing. */
  retryRecovery(): Promise<boolean> {
    return this.#actions.act("recovery", async () => {
      await this.#tab.client.execute("x-recovery-retry");
      await this.refreshRecovery();
      await this.onRecovered();
    });
  }

  /** The user knows; what is missing is given up. */
  dismissRecovery(): Promise<boolean> {
    return this.#actions.act("recovery", async () => {
      await dismiss(this.#tab.client, this.recovered.value);
      await this.refreshRecovery();
      await this.onRecovered();
    });
  }
}
