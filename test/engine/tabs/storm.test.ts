/**
 * Tabs come and go, crash, sleep and are closed at random, while their guests write to one disk and
 * commands run: whoever lives gets every request answered once, and every read is one that a disk
 * could give to which all this has been done in some order.
 *
 * TABS_ROUNDS and TABS_SEED make it more, and other ones.
 */

import { expect, it } from "vitest";
import { seededRandom } from "../../../src/base/random.ts";
import { VirtualClock } from "../../../src/base/virtual-clock.ts";
import { Guest, SECTORS } from "./guest.ts";
import { History } from "./history.ts";
import { Origin } from "./origin.ts";
import { makeDisk, Tab } from "./tab.ts";

const ROUNDS = Number(process.env["TABS_ROUNDS"] ?? 6);
const SEED = Number(process.env["TABS_SEED"] ?? 1);
const STEPS = 150;
const TABS_MAX = 5;

it.each(Array.from({ length: ROUNDS }, (_, i) => SEED + i))("seed %i", async (seed) => {
  const clock = new VirtualClock();
  const random = seededRandom(seed);
  const origin = new Origin(clock, seed);
  const history = new History();
  await clock.runUntil(makeDisk(origin));
  const guests: Guest[] = [];
  const failures: unknown[] = [];
  /** Whoever is gone need not be answered. */
  const failed = (guest: Guest) => (error: unknown) => {
    if (!guest.isDead) failures.push(error);
  };
  const asleep = new Set<Guest>();
  const open = () => {
    const guest = new Guest(new Tab(origin), history, random);
    guest.tab.client.start().catch(failed(guest));
    guests.push(guest);
  };
  const leave = (guest: Guest) => {
    guest.isDead = true;
    guests.splice(guests.indexOf(guest), 1);
  };
  open();
  for (let step = 0; step < STEPS; step++) {
    const guest = guests[random.below(guests.length)];
    const dice = random.below(100);
    if (dice < 6 && guests.length < TABS_MAX) open();
    else if (guest && dice < 9) {
      guest.tab.crash();
      asleep.delete(guest);
      leave(guest);
    } else if (guest && dice < 11 && !asleep.has(guest)) {
      leave(guest);
      guest.tab.client.close().catch((error: unknown) => failures.push(error));
    } else if (guest && dice < 13 && !asleep.has(guest)) {
      // As Chromium tells it beforehand.
      guest.tab.client.suspend();
      guest.tab.freeze();
      history.lost(guest);
      asleep.add(guest);
    } else if (dice < 16) {
      for (const sleeper of asleep) {
        sleeper.tab.thaw();
        void sleeper.tab.client.resume();
      }
      asleep.clear();
    } else if (guest && !asleep.has(guest) && guest.underWay.size < 6) {
      guest.act();
      for (const done of guest.underWay) done.catch(failed(guest));
    }
    await clock.advance(random.below(8));
    if (random.below(40) === 0) await clock.advance(3000);
  }
  for (const sleeper of asleep) {
    sleeper.tab.thaw();
    void sleeper.tab.client.resume();
  }
  if (guests.length === 0) open();
  const answered = Promise.allSettled(guests.flatMap((guest) => [...guest.underWay]));
  await clock.runUntil(answered);
  expect(failures, `seed ${seed}`).toEqual([]);
  const [last] = guests;
  const disk = await clock.runUntil(last!.tab.client.openDevice("d"));
  for (let sector = 0; sector < SECTORS; sector++) {
    await clock.runUntil(last!.readSector(disk, sector));
  }
  // Nobody else is held up by whoever is left.
  await clock.runUntil(Promise.allSettled(guests.map((guest) => guest.tab.client.close())));
});
