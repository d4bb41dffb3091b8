/** The end of IndexedDB's room. Needs a database that nobody has had open for a while. */

import { expect, it } from "vitest";
import { commands } from "vitest/browser";
import { MiB } from "../../../src/base/bytes.ts";
import { BlockError } from "../../../src/base/errors.ts";
import { indexeddbDriver, removeIndexeddb } from "../../../src/drivers/protocol/indexeddb.ts";
import { expectBytes, failure, noise, readAll, storeWorld } from "../../conformance/protocol.ts";

const PLACES = 32;

it("fails with ENOSPC at the quota, keeps what it has, and goes on when there is room", async () => {
  const { usage = 0 } = await navigator.storage.estimate();
  await commands.overrideQuota(usage + 8 * MiB);

  const world = storeWorld();
  const driver = indexeddbDriver();
  const options = { name: "quota", size: 0 };
  await driver.create!({ world, options });
  const open = () => driver.open({ world, options, nodeName: "n", readOnly: false, children: {} });
  const state = await open();

  // Place -> seed of the bytes that were taken.
  const taken = new Map<number, number>();
  let seed = 0;
  const writeNext = async () => {
    await state.pwrite!(noise(MiB, seed), (seed % PLACES) * MiB, {});
    taken.set(seed % PLACES, seed);
    seed += 1;
  };
  try {
    const full = (async () => {
      while (seed < PLACES + 45) {
        await writeNext();
        // Chromium believes for up to half a minute in the room that there was.
        if (seed > PLACES) await new Promise((resolve) => setTimeout(resolve, 1000));
      }
    })();
    await failure(full, "ENOSPC");
    await failure(state.flush!(), "ENOSPC");
    for (const [place, itsSeed] of taken) {
      if (place === seed % PLACES) continue;
      expectBytes(await readAll(state, place * MiB, MiB), noise(MiB, itsSeed), `at ${place}:`);
    }
  } finally {
    await commands.overrideQuota(null);
  }

  // Chromium also believes for a while that there still is none.
  for (let tries = 0; ; tries++) {
    try {
      await writeNext();
      await state.flush!();
      break;
    } catch (error) {
      if (!(error instanceof BlockError) || error.errno !== "ENOSPC" || tries === 45) throw error;
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
  }
  await state.close?.();
  const again = await open();
  for (const [place, itsSeed] of taken) {
    expectBytes(await readAll(again, place * MiB, MiB), noise(MiB, itsSeed), `at ${place}:`);
  }
  expect(taken.size).toBeGreaterThan(1);
  await again.close?.();
  await removeIndexeddb("quota");
}, 150_000);
