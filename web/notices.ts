/** The service worker's life, as far as the page tells of it. */

import { signal } from "@preact/signals";

export class Notices {
  /** The page itself is in the cache: a reload needs no server. */
  readonly isOfflineReady = signal(false);
  /** Another version waits until no tab uses this one. */
  readonly hasNewVersion = signal(false);

  /** Registers web/sw.js; where there are no service workers the page simply needs its server. */
  async watch(): Promise<void> {
    if (!("serviceWorker" in navigator)) return;
    const registration = await navigator.serviceWorker.register("./sw.js");
    const look = () => {
      this.isOfflineReady.value = registration.active !== null;
      this.hasNewVersion.value = registration.active !== null && registration.waiting !== null;
    };
    look();
    registration.addEventListener("updatefound", () => {
      registration.installing?.addEventListener("statechange", look);
    });
    await navigator.serviceWorker.ready;
    look();
  }
}
