/**
 * The same for a tab that cannot share: a worker of its own, and the driver of domains in the page. Of the engine
 * nothing is kept; of domains all is, for without it nobody would know after a reload which image is on top.
 *
 * A second tab takes the record over: the driver of the first says so, and has its images until it is closed.
 */

import { SystemClock } from "../base/clock.ts";
import { connect, connectMonitor } from "../engine/client.ts";
import { IndexeddbJournal } from "../engine/idb-journal.ts";
import { hasDatabase } from "../engine/tabs/browser.ts";
import type { ConnectTabOptions, Tab } from "./connect-tab.ts";
import { Connection } from "./domain.ts";
import { DomainDriver } from "./driver.ts";
import { clientFiles } from "./image-files.ts";
import { DOMAINS, MemoryDomainStore } from "./store.ts";

export async function connectSolo({ log, signal }: ConnectTabOptions): Promise<Tab> {
  const client = await connect({ ...(log && { log }), ...(signal && { signal }) });
  const driver = await DomainDriver.start({
    qmp: client,
    asking: await connectMonitor(await client.openMonitor()),
    store: hasDatabase() ? new IndexeddbJournal(`blocktab:${DOMAINS}`) : new MemoryDomainStore(),
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
