/**
 * The whole engine under random use: guests that read and write, jobs of all types, every verb at
 * every moment, snapshots, transactions, bitmaps, drains, clients that leave, stores that are slow and
 * fail, and time that goes on. All of it follows from a seed, so a failure can be run again.
 *
 *   step ──▶ one action, picked by the seed ──▶ what the tables allow, and nothing else, has happened
 *   end  ──▶ all jobs end, or the engine closes in the midst of them ──▶ every disk and every copy
 *            equals its model; nothing is left behind; a new engine finds the same in the stores
 */

import { BlockError } from "../../src/base/errors.ts";
import { seededRandom } from "../../src/base/random.ts";
import { VirtualClock } from "../../src/base/virtual-clock.ts";
import type { BlockDriver } from "../../src/block/driver.ts";
import { browserDrivers } from "../../src/drivers/index.ts";
import { createEngine, type Engine } from "../../src/engine/engine.ts";
import { tinyFormat } from "../block/tiny-format.ts";
import { compiledKernel } from "../kernel/load.ts";
import { Changes } from "./changes.ts";
import { Dice } from "./dice.ts";
import { Guest } from "./guest.ts";
import { CLUSTER, Images, THROTTLE_GROUP } from "./images.ts";
import { Jobs } from "./jobs.ts";
import { checkNothingIsLeft, checkReadOnly } from "./leftovers.ts";
import { Meter } from "./meter.ts";
import { Pasts } from "./pasts.ts";
import { checkReopened, judge, type LeftDisk, leftDisk } from "./reopened.ts";
import { Series } from "./series.ts";
import { type Scene, Starters } from "./starters.ts";
import { Talk } from "./talk.ts";
import { Verbs } from "./verbs.ts";
import { Weather, weatherDriver } from "./weather.ts";

/** Steps of one run; a longer simulation is several runs, each with an engine of its own. */
export const STEPS_PER_RUN = 400;
/** Virtual time in which all jobs must come to an end when nothing hinders them. */
const END_MS = 30 * 60 * 1000;
/** One run in so many has its images checked by the real qemu-img. */
const JUDGED_ONE_IN = 25;

export interface SimulationOptions {
  readonly seed: number;
  readonly steps?: number;
  /** Sees every action and every message. */
  readonly trace?: (line: string) => void;
}

/** What a run was like: for people, and for the check that it did something. */
export interface SimulationReport {
  /** Jobs started, by type and end: "mirror completed". */
  readonly ends: ReadonlyMap<string, number>;
  readonly guestRequests: number;
}

/** What a simulation has found. */
export class SimulationError extends Error {
  override readonly name = "SimulationError";
  readonly seed: number;
  /** Where it was: "step 12", or "the end". */
  readonly where: string;
  /** What happened last. */
  readonly lines: readonly string[];

  constructor(seed: number, where: string, lines: readonly string[], cause: unknown) {
    const text = cause instanceof Error ? cause.message : String(cause);
    super(`seed ${seed}, ${where}: ${text}`, { cause });
    this.seed = seed;
    this.where = where;
    this.lines = lines;
  }
}

const LINES_MAX = 60;

/** @throws SimulationError */
export async function simulate(options: SimulationOptions): Promise<SimulationReport> {
  const { seed, steps = STEPS_PER_RUN } = options;
  const lines: string[] = [];
  const note = (line: string) => {
    lines.push(line);
    if (lines.length > LINES_MAX) lines.shift();
    options.trace?.(line);
  };
  const run = await Run.make(seed, note);
  let step = 0;
  try {
    for (; step < steps && !run.isOver; step++) await run.step(step);
    await run.end();
  } catch (error) {
    const where = step < steps && !run.isOver ? `step ${step}` : "the end";
    throw new SimulationError(seed, where, lines, error);
  }
  return { ends: run.jobs.ends, guestRequests: run.guests.reduce((sum, g) => sum + g.requests, 0) };
}

/** What may happen in a step, and how often. */
type Action = readonly [weight: number, act: () => unknown];

class Run implements Scene {
  readonly engine: Engine;
  readonly dice: Dice;
  readonly images: Images;
  readonly jobs: Jobs;
  readonly guests: Guest[] = [];
  /** The engine has been closed in the midst of everything. */
  isOver = false;
  readonly #seed: number;
  readonly #clock: VirtualClock;
  readonly #weather: Weather;
  readonly #note: (line: string) => void;
  /** No storm in all of its time: then nothing may fail by itself. */
  readonly #isCalm: boolean;
  readonly #talks: Talk[] = [];
  readonly #series: Series[] = [];
  readonly #starters: Starters;
  readonly #verbs: Verbs;
  readonly #changes: Changes;
  readonly #pasts: Pasts;
  readonly #actions: readonly Action[];
  readonly #totalWeight: number;
  /** What the new engine must find. */
  readonly #left: LeftDisk[] = [];
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
    this.#seed = seed;
    this.engine = engine;
    this.dice = dice;
    this.#clock = clock;
    this.#weather = weather;
    this.#note = note;
    this.#isCalm = dice.oneIn(4);
    this.images = new Images(engine, weather, dice);
    this.jobs = new Jobs(engine);
    this.#starters = new Starters(this);
    this.#verbs = new Verbs(this);
    this.#changes = new Changes(this, this.#starters);
    this.#pasts = new Pasts(this, this.#starters);
    new Meter(engine, (id) => {
      const life = this.jobs.find(id);
      return !life || life.isChanged || (life.init.isActive ?? false);
    });
    this.#actions = [
      [36, () => dice.pick(this.guests).act()],
      [26, () => this.#pass()],
      [8, () => this.#try(this.#starters.start(this.#talk(), dice.pick(this.guests)))],
      [18, () => this.#verbs.any(this.#talk())],
      [3, () => this.#verbs.query(this.#talk())],
      [4, () => this.#changeWeather()],
      // Or most disks would be held by a job that waits for somebody.
      [4, () => this.#verbs.urge(this.#talk())],
      [6, () => this.#try(this.#changes.any(this.#lastingTalk(), dice.pick(this.guests)))],
      [4, () => this.#try(dice.pick(this.#series).act(this.#lastingTalk()))],
      [3, () => this.#try(this.#pasts.act(this.#lastingTalk(), dice.pick(this.guests)))],
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
    for (let n = 0; n < 3; n++) this.#talks.push(new Talk(engine, `m${n}`, this.#note));
    this.#talks[0]!.onEvent = (event) => this.jobs.hear(event);
    engine.graph.throttleGroups.add(THROTTLE_GROUP, { "iops-total": 2000 });
    for (const name of ["a", "b"]) {
      const guest = new Guest({
        name,
        engine,
        images,
        dice,
        size: CLUSTER * (8 + dice.below(24)),
        format: dice.oneIn(3) ? "qcow2" : "tiny",
        isCalm: this.#isCalm,
        note: this.#note,
      });
      await this.#clock.runUntil(guest.makeChain(1 + dice.below(4)));
      this.guests.push(guest);
      this.#series.push(new Series(guest, this, this.#starters));
    }
    await this.#clock.advance(0);
  }

  async step(step: number): Promise<void> {
    let at = this.dice.below(this.#totalWeight);
    for (const [weight, act] of this.#actions) {
      if (at < weight) {
        this.#note(`${step} at ${this.#clock.now()} ms`);
        await act();
        break;
      }
      at -= weight;
    }
    // Sometimes the next one comes before this one has had any effect.
    if (!this.dice.oneIn(3)) await this.#clock.advance(0);
    this.#check();
    // One run in eight ends like this on average.
    if (this.dice.oneIn(STEPS_PER_RUN * 8)) this.isOver = true;
  }

  async end(): Promise<void> {
    this.#note(this.isOver ? "the engine closes" : "the end begins");
    if (this.isOver) await this.#closeInTheMidst();
    else await this.#comeToRest();
    for (const talk of this.#talks) talk.checkAllAnswered();
    await this.#reopen();
  }

  /** Everybody gets what they wait for; then nothing is left, and all is as the models have it. */
  async #comeToRest(): Promise<void> {
    this.#weather.clear();
    const endMs = this.#clock.now() + END_MS;
    await this.#clock.runUntil(this.#pasts.end());
    const isAtWork = () =>
      this.engine.jobs.all().length > 0 ||
      this.#talks.some((talk) => talk.isWaiting) ||
      this.guests.some((guest) => guest.isBusy || guest.holds > 0);
    while (isAtWork()) {
      if (this.#clock.now() > endMs) throw this.#stuck();
      this.#verbs.urge(this.#lastingTalk());
      await this.#clock.advance(250);
      this.#check();
    }
    await this.#clock.runUntil(this.#changes.end());
    await this.#clock.runUntil(this.#pasts.end());
    await this.#clock.advance(1000);
    for (const guest of this.guests) await this.#clock.runUntil(guest.checkAll());
    await this.#clock.runUntil(this.jobs.checkCopies());
    for (const series of this.#series) await this.#clock.runUntil(series.check());
    await this.#clock.advance(1000);
    checkNothingIsLeft(this.engine, this.#clock);
    if (this.#isCalm) checkReadOnly(this.engine, this.guests);
    for (const guest of this.guests) this.#sayGoodbye(guest);
    try {
      await this.#clock.runUntil(this.engine.close());
    } catch (error) {
      // What an image has lost in a storm is told once more when it is closed.
      const isTold = this.#left.some(({ doubtful }) => doubtful.size > 0);
      if (!(error instanceof BlockError) || !isTold) throw error;
    }
  }

  /** An orderly end, whatever goes on. */
  async #closeInTheMidst(): Promise<void> {
    if (this.dice.oneIn(2)) this.#weather.storm = null;
    const isFair =
      this.#weather.storm === null && this.guests.every((guest) => !leftDisk(guest)?.doubtful.size);
    this.jobs.isClosing = true;
    for (const guest of this.guests) guest.isLeaving = true;
    for (const guest of this.guests) {
      const { graph } = this.engine;
      const close = graph.closeBackend.bind(graph);
      graph.closeBackend = (backend) => {
        if (backend.name === guest.device) this.#sayGoodbye(guest);
        return close(backend);
      };
    }
    // These are no clients of the engine: they let go by themselves.
    let isDone = false;
    const closed = Promise.all([this.#changes.end(), this.#pasts.end(), this.engine.close()]).then(
      () => null,
      (error: unknown) => error,
    );
    closed.then(() => {
      isDone = true;
    });
    const endMs = this.#clock.now() + END_MS;
    while (!isDone) {
      if (this.#clock.now() > endMs) throw this.#stuck();
      await this.#clock.advance(50);
      this.#check();
    }
    const error = await closed;
    if (error !== null && (isFair || !(error instanceof BlockError))) throw error;
    await this.#clock.advance(5000);
    this.#check();
    if (this.engine.jobs.all().length > 0) throw this.#stuck();
    if (isFair && this.engine.graph.nodes.length > 0) {
      const names = this.engine.graph.nodes.map(({ name }) => name);
      throw new Error(`Closed, but open: ${names.join(", ")}`);
    }
    // What could not be written is not there.
    if (!isFair) this.#left.length = 0;
  }

  /** Right before its disk goes. */
  #sayGoodbye(guest: Guest): void {
    const left = leftDisk(guest);
    if (left) this.#left.push(left);
    guest.sayGoodbye();
  }

  /** What has been left in the stores is what the guests know. */
  async #reopen(): Promise<void> {
    this.#weather.clear();
    const engine = await makeEngine(this.#clock, this.dice, this.#weather);
    const seen = new Set<string>();
    for (const left of this.#left) {
      await this.#clock.runUntil(checkReopened(engine, left, this.#isWrongLabel));
      for (const name of left.images) if (!left.doubtful.has(name)) seen.add(name);
    }
    await this.#clock.runUntil(engine.close());
    if (this.#seed % JUDGED_ONE_IN === 0) await judge(this.#weather.stores, seen);
  }

  /** What a header says is below an image. A storm may keep a job from writing it. */
  readonly #isWrongLabel = (label: string | undefined, backing: string | null): boolean => {
    if (!this.#isCalm || (label && this.images.stale.has(label))) return false;
    return (label ?? null) !== backing && label !== `weather:${backing}`;
  };

  #stuck(): Error {
    const jobs = this.engine.jobs.all().map(({ id, status }) => `${id} is ${status}`);
    const guests = this.guests.filter((guest) => guest.isBusy).map(({ name }) => `${name} waits`);
    return new Error(`Not at an end after ${END_MS} ms: ${[...jobs, ...guests].join(", ")}`);
  }

  #check(): void {
    if (this.engine.stopped) throw this.engine.stopped.cause ?? this.engine.stopped;
    for (const guest of this.guests) guest.check();
    this.#pasts.check();
    this.jobs.check();
  }

  /** The storm may hit while something is made for the action. */
  async #try(action: Promise<void>): Promise<void> {
    try {
      await this.#clock.runUntil(action);
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
    }
  }

  async #pass(): Promise<void> {
    const ms = this.dice.pick([0, 1, 10, 100, 1000]) * (1 + this.dice.below(3));
    await this.#clock.advance(ms);
  }

  #changeWeather(): void {
    const { dice } = this;
    const weather = this.#weather;
    weather.latencyMs = dice.pick([0, 0, 3, 40]);
    weather.storm =
      this.#isCalm || weather.storm !== null || dice.oneIn(2)
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
    this.#talks.pop()!.leave();
    this.#talks.push(new Talk(this.engine, this.name("m"), this.#note));
  }

  #talk(): Talk {
    return this.dice.pick(this.#talks);
  }

  /** Whose answers are needed. */
  #lastingTalk(): Talk {
    return this.#talks[this.dice.below(2)]!;
  }
}

async function makeEngine(clock: VirtualClock, dice: Dice, weather: Weather): Promise<Engine> {
  const drivers = [...browserDrivers(new Map()), tinyFormat as BlockDriver, weatherDriver(weather)];
  const kernelBytes = await compiledKernel();
  return createEngine({ clock, random: dice.random, kernelBytes, drivers });
}
