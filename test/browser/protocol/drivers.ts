/** The worker of worker.ts, started from a test file. */

import { RemoteDrivers } from "../remote-state.ts";

export function startWorker(): RemoteDrivers {
  return new RemoteDrivers(new Worker(new URL("./worker.ts", import.meta.url), { type: "module" }));
}
