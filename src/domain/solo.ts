/**
 * The same for a tab that cannot share: a worker of its own, and the driver of domains in the page. Nothing is
 * kept of either; images are.
 */

import { SystemClock } from "../base/clock.ts";
import { connect } from "../engine/client.ts";
import type { ConnectTabOptions, Tab } from "./connect-tab.ts";
import { Connection } from "./domain.ts";
import { DomainDriver } from "./driver.ts";
import { clientFiles } from "./image-files.ts";
import { MemoryDomainStore } from "./store.ts";

export async function connectSolo({ log, signal }: ConnectTabOptions): Promise<Tab> {
  const client = await connect({ ...(log && { log }), ...(signal && { signal }) });
  const driver = await DomainDriver.start({
    qmp: client,
    store: new MemoryDomainStore(),
    clock: new SystemClock(),
    files: clientFiles(client),
    onPullError: "stop",
  });
  return {
    client,
    domains: new Connection(driver),
    isShared: false,
    onHandOver: () => () => {},
    async close() {
      await driver.close();
      await client.close();
    },
  };
}
