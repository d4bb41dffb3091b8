/**
 * The whole engine under random use: guests that read and write, jobs of all types, every verb at
 * every moment, stores that are slow and fail, and time that goes on. All of it follows from a seed,
 * so a failure can be run again.
 *
 *   step ──▶ one action, picked by the seed ──▶ what the tables allow, and nothing else, has happened
 *   end  ──▶ all jobs end ──▶ every disk, every copy equals its model; nothing is left behind
 */

import { BlockError } from "../../src/base/errors.ts";
import { type Random, seededRandom } from "../../src/base/random.ts";
import { VirtualClock } from "../../src/base/virtual-clock.ts";
import type { BlockDriver } from "../../src/block/driver.ts";
import { browserDrivers } from "../../src/drivers/index.ts";
import { createEngine, type Engine } from "../../src/engine/engine.ts";
import { tinyFormat } from "../block/tiny-format.ts";
import { kernelBytes } from "../kernel/load.ts";
import { Guest } from "./guest.ts";
import { Jobs } from "./jobs.ts";
import { checkNothingIsLeft } from "./leftovers.ts";
import { Talk } from "./talk.ts";
import { Weather, weatherDriver } from "./weather.ts";

const KiB = 1024;
/** Steps of one run; a longer simulation is several runs, each with an engine of its own. */
export const STEPS_PER_RUN = 400;
/** Virtual time in which all jobs must come to an end when nothing hinders them. */
const END_MS = 30 * 60 * 1000;

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

/** @throws Error that begins with the seed and the step */
export async function simulate(options: SimulationOptions): Promise<SimulationReport> {
  const { seed, steps = STEPS_PER_RUN } = options;
  const lines: string[] = [];
  const note = (line: string) => {
    lines.push(line);
    if (lines.length > 60) lines.shift();
    options.trace?.(line);
  };
  const run = await Run.make(seededRandom(seed), note);
  let step = 0;
  try {
    for (; step < steps; step++) await run.step(step);
    await run.end();
  } catch (error) {
    const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
    const where = step < steps ? `step ${step}` : "the end";
    throw new Error(`seed ${seed}, ${where}: ${text}\nlast lines:\n${lines.join("\n")}`, {
      cause: error,
    });
  }
  return { ends: run.jobs.ends, guestRequests: run.guests.reduce((sum, g) => sum + g.requests, 0) };
}

/** What may happen in a step, and how often. */
type Action = readonly [weight: number, act: () => unknown];

class Run {
  readonly jobs: Jobs;
  readonly guests: Guest[] = [];
  readonly #random: Random;
  readonly #clock: VirtualClock;
  readonly #engine: Engine;
  readonly #weather: Weather;
  readonly #talks: Talk[];
  readonly #actions: readonly Action[];
  readonly #note: (line: string) => void;

  static async make(random: Random, note: (line: string) => void): Promise<Run> {
    const clock = new VirtualClock();
    const weather = new Weather(clock, random);
    const drivers = [
      ...browserDrivers(new Map()),
      tinyFormat as BlockDriver,
      weatherDriver(weather),
    ];
    const engine = await createEngine({ clock, random, kernelBytes: kernelBytes(), drivers });
    const run = new Run(random, clock, engine, weather, note);
    await run.#set();
    return run;
  }

  private constructor(
    random: Random,
    clock: VirtualClock,
    engine: Engine,
    weather: Weather,
    note: (line: string) => void,
  ) {
    this.#random = random;
    this.#clock = clock;
    this.#engine = engine;
    this.#weather = weather;
    this.#note = note;
    this.jobs = new Jobs(random);
    this.#talks = [0, 1, 2].map((n) => new Talk(engine, `m${n}`, note));
    this.#talks[0]!.onEvent = (event) => this.jobs.hear(event);
    this.#actions = [
      [9, () => this.#pick(this.guests).act()],
      [7, () => this.#pass()],
      [2, () => this.#startJob()],
      [5, () => this.jobs.verb(this.#talk())],
      [1, () => this.jobs.query(this.#talk())],
      [1, () => this.#changeWeather()],
      // Or most disks would be held by a job that waits for somebody.
      [1, () => this.jobs.urge(this.#talk(), this.#engine.jobs.all())],
    ];
  }

  /** Two disks on chains of their own. */
  async #set(): Promise<void> {
    for (const talk of this.#talks) await talk.negotiate(this.#clock);
    for (const name of ["a", "b"]) {
      const layers = 1 + this.#random.below(4);
      const size = 4 * KiB * (8 + this.#random.below(24));
      const format = this.#random.below(3) === 0 ? "qcow2" : "tiny";
      const guest = new Guest({
        name,
        engine: this.#engine,
        clock: this.#clock,
        random: this.#random,
        size,
        note: this.#note,
      });
      await this.#clock.runUntil(guest.makeChain(layers, format));
      this.guests.push(guest);
    }
  }

  async step(step: number): Promise<void> {
    const total = this.#actions.reduce((sum, [weight]) => sum + weight, 0);
    let at = this.#random.below(total);
    for (const [weight, act] of this.#actions) {
      if (at < weight) {
        this.#note(`${step} at ${this.#clock.now()} ms`);
        await act();
        break;
      }
      at -= weight;
    }
    // Sometimes the next one comes before this one has had any effect.
    if (this.#random.below(3) > 0) await this.#clock.advance(0);
    this.#check();
  }

  async end(): Promise<void> {
    this.#note("the end begins");
    this.#weather.storm = null;
    this.#weather.latencyMs = 0;
    const endMs = this.#clock.now() + END_MS;
    while (this.#engine.jobs.all().length > 0 || this.guests.some(({ isBusy }) => isBusy)) {
      if (this.#clock.now() > endMs) {
        const stuck = this.#engine.jobs.all().map(({ id, status }) => `${id} is ${status}`);
        throw new Error(`Not at an end after ${END_MS} ms: ${stuck.join(", ") || "a guest waits"}`);
      }
      this.jobs.urge(this.#talk(), this.#engine.jobs.all());
      await this.#clock.advance(250);
      this.#check();
    }
    await this.#clock.advance(0);
    for (const talk of this.#talks) talk.checkAllAnswered();
    for (const guest of this.guests) await this.#clock.runUntil(guest.checkAll());
    await this.#clock.runUntil(this.jobs.checkCopies(this.#engine));
    checkNothingIsLeft(this.#engine, this.#clock);
    await this.#clock.runUntil(Promise.all(this.guests.map((guest) => guest.close())));
    await this.#clock.runUntil(this.#engine.close());
  }

  #check(): void {
    if (this.#engine.stopped) throw this.#engine.stopped.cause ?? this.#engine.stopped;
    for (const guest of this.guests) guest.check();
    this.jobs.check(this.#engine.jobs.all());
  }

  async #startJob(): Promise<void> {
    try {
      await this.#clock.runUntil(this.jobs.start(this.#talk(), this.#pick(this.guests)));
    } catch (error) {
      // The storm hit the making of the target.
      if (!(error instanceof BlockError)) throw error;
    }
  }

  async #pass(): Promise<void> {
    const ms = [0, 1, 10, 100, 1000][this.#random.below(5)]! * (1 + this.#random.below(3));
    await this.#clock.advance(ms);
  }

  #changeWeather(): void {
    const weather = this.#weather;
    weather.latencyMs = [0, 0, 3, 40][this.#random.below(4)]!;
    const isFair = weather.storm !== null || this.#random.below(2) === 0;
    weather.storm = isFair
      ? null
      : {
          op: this.#pick(["read", "write", "write", "flush"] as const),
          errno: this.#pick(["EIO", "EIO", "ENOSPC"] as const),
          oneIn: 1 + this.#random.below(6),
        };
    this.#note(`weather: ${weather.latencyMs} ms, ${JSON.stringify(weather.storm)}`);
  }

  #talk(): Talk {
    return this.#pick(this.#talks);
  }

  #pick<T>(list: readonly T[]): T {
    return list[this.#random.below(list.length)]!;
  }
}
