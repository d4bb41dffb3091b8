/** A dedicated worker with the drivers of browsers in it, for tests (../remote-state.ts). */

import type { BlockDriver } from "../../../src/block/driver.ts";
import { indexeddbDriver } from "../../../src/drivers/protocol/indexeddb.ts";
import { opfsDriver } from "../../../src/drivers/protocol/opfs.ts";
import { type DedicatedWorker, serveDrivers } from "../remote-state.ts";

const drivers = [opfsDriver(), indexeddbDriver()] as unknown as BlockDriver[];
serveDrivers(self as unknown as DedicatedWorker, drivers);
