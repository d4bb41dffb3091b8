/** How a run ends: all comes to rest, or the engine closes; then a new engine looks at what is left. */

import { BlockError } from "../../src/base/errors.ts";
import type { Guest } from "./guest.ts";
import { checkNothingIsLeft, checkReadOnly } from "./leftovers.ts";
import { makeEngine } from "./make-engine.ts";
import { checkReopened, judge, type LeftDisk, leftDisk } from "./reopened.ts";
import type { Run } from "./run.ts";

/** Virtual time in which all jobs must come to an end when nothing hinders them. */
const END_MS = 30 * 60 * 1000;
/** One run in so many has its images checked by the real qemu-img. */
const JUDGED_ONE_IN = 25;

export class Ending {
  readonly #run: Run;
  /** What the new engine must find. */
  readonly #left: LeftDisk[] = [];

  constructor(run: Run) {
    this.#run = run;
  }

  async end(): Promise<void> {
    const { isCutShort, talks } = this.#run;
    if (isCutShort) await this.#closeInTheMidst();
    else await this.#comeToRest();
    this.#run.check();
    for (const talk of talks) talk.checkAllAnswered();
    await this.#reopen();
  }

  /** Everybody gets what they wait for; then nothing is left, and all is as the models have it. */
  async #comeToRest(): Promise<void> {
    this.#run.weather.clear();
    const endMs = this.#run.clock.now() + END_MS;
    await this.#run.clock.runUntil(this.#run.pasts.end());
    const isAtWork = () =>
      this.#run.engine.jobs.all().length > 0 ||
      this.#run.talks.some((talk) => talk.isWaiting) ||
      this.#run.guests.some((guest) => guest.isBusy || guest.holds > 0);
    while (isAtWork()) {
      if (this.#run.clock.now() > endMs) throw this.#stuck();
      const isLate = this.#run.clock.now() > endMs - END_MS / 2;
      this.#run.verbs.urge(this.#run.lastingTalk(), isLate);
      await this.#run.clock.advance(250);
      this.#run.check();
    }
    await this.#run.clock.runUntil(this.#run.changes.end());
    await this.#run.clock.runUntil(this.#run.pasts.end());
    await this.#run.clock.advance(1000);
    for (const guest of this.#run.guests) await this.#run.clock.runUntil(guest.checkAll());
    await this.#run.clock.runUntil(this.#run.jobs.checkCopies());
    for (const series of this.#run.series) await this.#run.clock.runUntil(series.check());
    await this.#run.clock.advance(1000);
    checkNothingIsLeft(this.#run.engine, this.#run.clock);
    if (this.#run.isCalm) checkReadOnly(this.#run.engine, this.#run.guests);
    for (const guest of this.#run.guests) this.#sayGoodbye(guest);
    try {
      await this.#run.clock.runUntil(this.#run.engine.close());
    } catch (error) {
      // What an image has lost in a storm is told once more when it is closed.
      const isTold = this.#left.some(({ doubtful }) => doubtful.size > 0);
      if (!(error instanceof BlockError) || !isTold) throw error;
    }
  }

  /** An orderly end, whatever goes on. */
  async #closeInTheMidst(): Promise<void> {
    if (this.#run.dice.oneIn(2)) this.#run.weather.storm = null;
    const isFair =
      this.#run.weather.storm === null &&
      this.#run.guests.every((guest) => !leftDisk(guest)?.doubtful.size);
    this.#run.jobs.isClosing = true;
    for (const guest of this.#run.guests) guest.isLeaving = true;
    for (const guest of this.#run.guests) {
      const { graph } = this.#run.engine;
      const close = graph.closeBackend.bind(graph);
      graph.closeBackend = (backend) => {
        if (backend.name === guest.device) this.#sayGoodbye(guest);
        return close(backend);
      };
    }
    let isDone = false;
    // These are no clients of the engine, which cannot make them let go: they do it by themselves, and first.
    const closed = Promise.all([this.#run.changes.end(), this.#run.pasts.end()])
      .then(() => this.#run.engine.close())
      .then(
        () => null,
        (error: unknown) => error,
      );
    closed.then(() => {
      isDone = true;
    });
    const endMs = this.#run.clock.now() + END_MS;
    while (!isDone) {
      if (this.#run.clock.now() > endMs) throw this.#stuck();
      await this.#run.clock.advance(50);
      this.#run.check();
    }
    const error = await closed;
    if (error !== null && (isFair || !(error instanceof BlockError))) throw error;
    await this.#run.clock.advance(5000);
    this.#run.check();
    if (this.#run.engine.jobs.all().length > 0) throw this.#stuck();
    if (isFair && this.#run.engine.graph.nodes.length > 0) {
      const names = this.#run.engine.graph.nodes.map(({ name }) => name);
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
    if (this.#left.length === 0) return;
    this.#run.weather.clear();
    const engine = await makeEngine(this.#run.clock, this.#run.dice, this.#run.weather);
    const seen = new Set<string>();
    for (const left of this.#left) {
      await this.#run.clock.runUntil(checkReopened(engine, left, this.#isWrongLabel));
      for (const name of left.images) if (!left.doubtful.has(name)) seen.add(name);
    }
    await this.#run.clock.runUntil(engine.close());
    if (this.#run.seed % JUDGED_ONE_IN === 0) await judge(this.#run.weather.stores, seen);
  }

  /** What a header says is below an image. A storm may keep a job from writing it. */
  readonly #isWrongLabel = (label: string | undefined, backing: string | null): boolean => {
    if (!this.#run.isCalm || (label && this.#run.images.stale.has(label))) return false;
    return (label ?? null) !== backing && label !== `weather:${backing}`;
  };

  #stuck(): Error {
    const jobs = this.#run.engine.jobs.all().map(({ id, status }) => `${id} is ${status}`);
    const guests = this.#run.guests
      .filter((guest) => guest.isBusy)
      .map(({ name }) => `${name} waits`);
    return new Error(`Not at an end after ${END_MS} ms: ${[...jobs, ...guests].join(", ")}`);
  }
}
