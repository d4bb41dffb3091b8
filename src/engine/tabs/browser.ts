/** What a browser has for tabs: Web Locks, BroadcastChannel, and a record in IndexedDB. */

import { update } from "idb-keyval";
import { SystemClock } from "../../base/clock.ts";
import { BlockError } from "../../base/errors.ts";
import { systemRandom } from "../../base/random.ts";
import { storeError } from "../../drivers/protocol/errors.ts";
import type { Channel, Epochs, Locks, TabHost } from "./host.ts";
import { asReign, ended, NO_REIGN, overtaking, type Reign, raised, serving } from "./reign.ts";

const EPOCH_KEY = "blocktab:epoch";

/** Whether this browser lets tabs share; private windows of some do not. */
export function canShare(): boolean {
  return (
    typeof navigator.locks !== "undefined" &&
    typeof BroadcastChannel !== "undefined" &&
    hasDatabase()
  );
}

export function hasDatabase(): boolean {
  return typeof indexedDB !== "undefined";
}

export function browserHost(): TabHost {
  return { clock: new SystemClock(), random: systemRandom(), locks, epochs, openChannel };
}

const locks: Locks = {
  async hold<T>(name: string, work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    let isGranted = false;
    try {
      return (await navigator.locks.request(name, { ...(signal && { signal }) }, () => {
        isGranted = true;
        return work();
      })) as T;
    } catch (error) {
      if (isGranted) throw error;
      if (signal?.aborted) throw new BlockError("ECANCELED", "Operation canceled");
      throw storeError(error, `Asking for the lock '${name}'`);
    }
  },

  async held(): Promise<readonly string[]> {
    const { held = [] } = await navigator.locks.query();
    return held.flatMap(({ name }) => (name === undefined ? [] : [name]));
  },
};

const epochs: Epochs = {
  async raise(): Promise<Reign> {
    let own = NO_REIGN;
    await change((reign) => {
      own = raised(reign);
      return own;
    });
    return own;
  },

  serve: (epoch) => changeOwn(epoch, serving),

  overtake: (epoch) => changeOwn(epoch, overtaking),

  async close(epoch: number): Promise<void> {
    await change((reign) => ended(reign, epoch));
  },
};

/** @throws BlockError ESTALE if there is a later owner */
async function changeOwn(
  epoch: number,
  make: (reign: Reign, epoch: number) => Reign,
): Promise<void> {
  let isOwn = false;
  await change((reign) => {
    isOwn = reign.epoch === epoch;
    return make(reign, epoch);
  });
  if (!isOwn) throw new BlockError("ESTALE", "Another tab has taken the disks over");
}

/** One transaction; durable as far as a crash of the browser goes. */
async function change(make: (reign: Reign) => Reign): Promise<void> {
  try {
    await update<Reign>(EPOCH_KEY, (reign) => make(asReign(reign)));
  } catch (error) {
    throw storeError(error, "Recording who has the disks");
  }
}

function openChannel(name: string): Channel {
  const line = new BroadcastChannel(name);
  const channel: Channel = {
    onmessage: null,
    post: (message) => line.postMessage(message),
    close: () => line.close(),
  };
  line.onmessage = ({ data }) => channel.onmessage?.(data);
  return channel;
}
