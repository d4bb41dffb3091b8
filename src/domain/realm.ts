/** What a tab offers that has the disks: the engine, and the domains beside it. */

import { Client } from "../engine/client.ts";
import type { Engine } from "../engine/engine.ts";
import { localPorts } from "../engine/local-port.ts";
import { engineRealm, type Opening, type Realm, type Service } from "../engine/tabs/realm.ts";
import { clientFiles } from "./image-files.ts";
import { SealableStore } from "./sealable-store.ts";
import { DomainService } from "./service.ts";
import type { DomainStore } from "./store.ts";

/** The engine goes on, and is suspended, with its journal. @param engine recovered */
export async function domainRealm(
  engine: Engine,
  opening: Opening,
  domainStore: DomainStore,
): Promise<Realm> {
  const store = new SealableStore(domainStore);
  const qmp = await clientOf(engine);
  const domains = new DomainService({
    qmp,
    asking: await clientOf(engine),
    store,
    clock: engine.clock,
    files: clientFiles(qmp),
    // In libvirt a job that meets an error has failed. A server that goes away is nothing unusual for a
    // page, and there is somebody to look after the job.
    onPullError: "stop",
    onBug: (bug) => engine.stop(bug),
  });
  const realm = engineRealm(engine, opening);
  const services = new Map<string, Service>([
    ...realm.services,
    ["domains", (port) => domains.serve(port!)],
  ]);
  return {
    ...realm,
    services,
    remembers: true,
    // An engine without its domains would go on, and nobody would deal with the ends of their jobs.
    stopped: Promise.race([realm.stopped, domains.failed]),
    async close() {
      // What the driver hears from now on is of an engine that has been stopped, and not true of the next.
      store.seal();
      await domains.close();
      await engine.suspend();
    },
  };
}

async function clientOf(engine: Engine): Promise<Client> {
  const [qmpHere, qmp] = localPorts();
  const [dataHere, data] = localPorts();
  engine.connect({ qmp, data });
  const client = new Client({ qmp: qmpHere, data: dataHere, ownsWorker: false });
  await client.negotiate();
  return client;
}
