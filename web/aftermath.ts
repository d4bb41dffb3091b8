/** What has become of things while nobody looked: recovery, and jobs that have ended. */

import { signal } from "@preact/signals";
import type { Tab } from "../src/domain/client.ts";
import type { Actions } from "./actions.ts";
import { dismissHistory, type EndedJob, isSameRun, queryHistory } from "./history.ts";
import { dismiss, isSame, queryRecovery, type Recovered } from "./recovery.ts";

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

  /** A job has ended, or other tabs may have dismissed what is shown here: no event tells of that. */
  async lookAgain(): Promise<void> {
    await this.refreshHistory();
    await this.refreshRecovery();
  }

  /** @param job undefined: all */
  dismissHistory(job?: EndedJob): Promise<boolean> {
    return this.#actions.act("jobs", async () => {
      await this.refreshHistory();
      const isThere = job === undefined || this.history.value.some((one) => isSameRun(one, job));
      if (isThere) await dismissHistory(this.#tab.client, job);
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
      // What was shown and still is so: nobody gives up what he has not seen.
      const shown = this.recovered.value;
      await this.refreshRecovery();
      const told = this.recovered.value.filter((one) => shown.some((was) => isSame(was, one)));
      await dismiss(this.#tab.client, told);
      await this.refreshRecovery();
      await this.onRecovered();
    });
  }
}
