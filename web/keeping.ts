/**
 * Whether the browser has promised to keep what is stored here. Until it has, it may clear all of it away when space
 * gets short, whatever the page says of a disk that is whole. In a private window it does not promise by itself.
 */

import { signal } from "@preact/signals";

/** null: this browser cannot be asked, and clears away as it likes. */
export type Promised = boolean | null;

export class Keeping {
  /** undefined: not known yet. */
  readonly promised = signal<Promised | undefined>(undefined);
  /** The browser has been asked for it here, and has said no. */
  readonly isRefused = signal(false);

  /** Keeps looking: another tab may have been promised it. */
  async watch(): Promise<void> {
    document.addEventListener("visibilitychange", () => {
      if (document.visibilityState === "visible") void this.#look();
    });
    await this.#look();
  }

  /** Some browsers ask the user, others decide by how much the page is used. */
  async ask(): Promise<void> {
    this.promised.value = await navigator.storage.persist();
    this.isRefused.value = !this.promised.value;
  }

  async #look(): Promise<void> {
    // Not there by http from another machine, and in old browsers.
    this.promised.value =
      "persisted" in (navigator.storage ?? {}) ? await navigator.storage.persisted() : null;
  }
}
