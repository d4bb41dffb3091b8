/** One run of a simulation: an engine, its guests and clients, and what happens in a step. */

import { BlockError } from "../../src/base/errors.ts";
import { seededRandom } from "../../src/base/random.ts";
import { VirtualClock } from "../../src/base/virtual-clock.ts";
import type { Engine } from "../../src/engine/engine.ts";
import { Changes } from "./changes.ts";
import { Dice } from "./dice.ts";
import { Guest } from "./guest.ts";
import { CLUSTER, Images, THROTTLE_GROUP } from "./images.ts";
import { Jobs } from "./jobs.ts";
import { makeEngine } from "./make-engine.ts";
import { Meter } from "./meter.ts";
import { Pasts } from "./pasts.ts";
import { Series } from "./series.ts";
import { type Scene, Starters } from "./starters.ts";
import { Talk } from "./talk.ts";
import { Verbs } from "./verbs.ts";
import { Weather } from "./weather.ts";

/** Steps of one run; a longer simulation is several runs, each with an engine of its own. */
export const STEPS_PER_RUN = 400;
/** One run in so many does not come to rest: the engine closes in the midst of it. */
const CUT_SHORT_ONE_IN = 8;

/** What may happen in a step, and how often. */
type Action = readonly [weight: number, act: () => unknown];

export class Run implements Scene {
  readonly engine: Engine;
  readonly dice: Dice;
  readonly images: Images;
  readonly jobs: Jobs;
  readonly guests: Guest[] = [];
  /** The engine closes now, in the midst of everything. */
  isCutShort = false;
  readonly seed: number;
  readonly clock: VirtualClock;
  readonly weather: Weather;
  readonly #note: (line: string) => void;
  /** No storm in all of its time: then nothing may fail by itself. */
  readonly isCalm: boolean;
  readonly talks: Talk[] = [];
  readonly series: Series[] = [];
  readonly #starters: Starters;
  readonly verbs: Verbs;
  readonly changes: Changes;
  readonly pasts: Pasts;
  readonly #actions: readonly Action[];
  readonly #totalWeight: number;
  #names = 0;

  static async make(seed: number, note: (line: string) => void): Promise<Run> {
    const clock = new VirtualClock();
    const dice = new Dice(seededRandom(seed));
    const weather = new Weather(clock, dice);
    const engine = await makeEngine(clock, dice, weather);
    const run = new Run(seed, engine, clock, dice, weather, note);
    await run.#set();
    return run;
  }

  private constructor(
    seed: number,
    engine: Engine,
    clock: VirtualClock,
    dice: Dice,
    weather: Weather,
    note: (line: string) => void,
  ) {
    this.seed = seed;
    this.engine = engine;
    this.dice = dice;
    this.clock = clock;
    this.weather = weather;
    this.#note = note;
    this.isCalm = dice.oneIn(4);
    this.images = new Images(engine, weather, dice);
    this.jobs = new Jobs(engine);
    this.#starters = new Starters(this);
    this.verbs = new Verbs(this);
    this.changes = new Changes(this, this.#starters);
    this.pasts = new Pasts(this, this.#starters);
    const isMixed = (id: string) => {
      const life = this.jobs.find(id);
      return !life || life.isChanged || (life.init.isActive ?? false);
    };
    new Meter(engine, isMixed, (id) => {
      const life = this.jobs.find(id);
      return !life || life.isCompleteAsked || life.group.isCancelAsked;
    });
    this.#actions = [
      [42, () => this.#guestsAct()],
      [30, () => this.#pass()],
      [8, () => this.#try(this.#starters.start(this.#talk(), dice.pick(this.guests)))],
      [18, () => this.verbs.any(this.#talk())],
      [3, () => this.verbs.query(this.#talk())],
      [4, () => this.#changeWeather()],
      // Or most disks would be held by a job that waits for somebody.
      [4, () => this.verbs.urge(this.#talk())],
      [6, () => this.#try(this.changes.any(this.lastingTalk(), dice.pick(this.guests)))],
      [5, () => this.#try(dice.pick(this.series).act(this.lastingTalk()))],
      [3, () => this.#try(this.pasts.act(this.lastingTalk(), dice.pick(this.guests)))],
      [2, () => dice.pick(this.series).disturb(this.#talk())],
      [1, () => this.#changeTalk()],
    ];
    this.#totalWeight = this.#actions.reduce((sum, [weight]) => sum + weight, 0);
  }

  readonly name = (prefix: string): string => {
    this.#names++;
    return `${prefix}${this.#names}`;
  };

  /** Two disks on chains of their own. */
  async #set(): Promise<void> {
    const { dice, engine, images } = this;
    for (let n = 0; n < 3; n++) this.talks.push(new Talk(engine, `m${n}`, this.#note));
    this.talks[0]!.onEvent = (event) => this.jobs.hear(event);
    engine.graph.throttleGroups.add(THROTTLE_GROUP, { "iops-total": 2000 });
    for (const name of ["a", "b"]) {
      const guest = new Guest({
        name,
        engine,
        images,
        dice,
        // Backups go in steps of 64 KiB.
        size: CLUSTER * (8 + dice.below(dice.oneIn(3) ? 72 : 24)),
        format: dice.oneIn(3) ? "qcow2" : "tiny",
        isCalm: this.isCalm,
        note: this.#note,
      });
      await this.clock.runUntil(guest.makeChain(1 + dice.below(4)));
      this.guests.push(guest);
      this.series.push(new Series(guest, this, this.#starters));
    }
    await this.clock.advance(0);
  }

  async step(step: number): Promise<void> {
    let at = this.dice.below(this.#totalWeight);
    for (const [weight, act] of this.#actions) {
      if (at < weight) {
        this.#note(`${step} at ${this.clock.now()} ms`);
        await act();
        break;
      }
      at -= weight;
    }
    // Sometimes the next one comes before this one has had any effect.
    if (!this.dice.oneIn(3)) await this.clock.advance(0);
    this.check();
    if (this.dice.oneIn(STEPS_PER_RUN * CUT_SHORT_ONE_IN)) this.isCutShort = true;
  }

  check(): void {
    for (const talk of this.talks) talk.check();
    if (this.engine.stopped) throw this.engine.stopped.cause ?? this.engine.stopped;
    for (const guest of this.guests) guest.check();
    this.pasts.check();
    this.jobs.check();
  }

  /** The storm may hit while something is made for the action. */
  async #try(action: Promise<void>): Promise<void> {
    try {
      await this.clock.runUntil(action);
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
    }
  }

  #guestsAct(): void {
    const guest = this.dice.pick(this.guests);
    for (let n = this.dice.below(3); n >= 0; n--) guest.act();
  }

  async #pass(): Promise<void> {
    const ms = this.dice.pick([0, 1, 2, 5, 10, 20, 50, 100, 1000]) * (1 + this.dice.below(3));
    await this.clock.advance(ms);
  }

  #changeWeather(): void {
    const { dice } = this;
    const weather = this.weather;
    weather.latencyMs = dice.pick([0, 0, 3, 40]);
    weather.storm =
      this.isCalm || weather.storm !== null || dice.oneIn(2)
        ? null
        : {
            op: dice.pick(["read", "read", "write", "write", "write", "flush", "status"]),
            errno: dice.pick(["EIO", "EIO", "ENOSPC"]),
            oneIn: 1 + dice.below(6),
          };
    this.#note(`weather: ${weather.latencyMs} ms, ${JSON.stringify(weather.storm)}`);
  }

  /** A client goes, and another one comes. */
  #changeTalk(): void {
    const leaver = this.talks.pop()!;
    leaver.check();
    leaver.leave();
    this.talks.push(new Talk(this.engine, this.name("m"), this.#note));
  }

  #talk(): Talk {
    return this.dice.pick(this.talks);
  }

  /** Whose answers are needed. */
  lastingTalk(): Talk {
    return this.talks[this.dice.below(2)]!;
  }
}
