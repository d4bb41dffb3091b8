/** A client that calls at random: what the API of domains does with locks, without the disks. */

import type { Ctx } from "../../../src/domain/locks/ctx.ts";
import type { AsyncKind } from "../../../src/domain/locks/job-classes.ts";
import { JobError } from "../../../src/domain/locks/job-error.ts";
import {
  type AsyncJob,
  type WithJobOptions,
  waitFor,
  withAsyncJob,
  withDomain,
  withDriver,
  withJob,
  withMonitor,
  withUnlocked,
} from "../../../src/domain/locks/with-job.ts";
import type { World } from "./explore.ts";
import { type Call, must, type Place } from "./watch.ts";

type Operation = (client: Client, ctx: Ctx, place: Place) => Promise<unknown>;

/** How often, under which name, and what it does. */
const OPERATIONS: readonly (readonly [number, string, Operation])[] = [
  [20, "info", (client, ctx, place) => client.use(ctx, place, { class: "query" })],
  [16, "attach", (client, ctx, place) => client.change(ctx, place)],
  [10, "speed", (client, ctx, place) => client.use(ctx, place, { class: "modify-migration-safe" })],
  [10, "blockPull", (client, ctx, place) => client.pull(ctx, place)],
  [8, "stats", (client, ctx, place) => client.use(ctx, place, { class: "query", nowait: true })],
  [6, "agent", (client, ctx, place) => client.agent(ctx, place)],
  [12, "list", (client, ctx) => client.list(ctx)],
  [5, "look", (client, ctx, place) => client.look(ctx, place)],
  [4, "suspend", (client, ctx, place) => client.use(ctx, place, { class: "suspend" })],
  [4, "backup", (client, ctx, place) => client.long(ctx, place, "backup")],
  [3, "abort", (client, ctx, place) => client.use(ctx, place, { class: "abort" })],
  [3, "save", (client, ctx, place) => client.long(ctx, place, "save")],
  [3, "snapshot", (client, ctx, place) => client.long(ctx, place, "snapshot")],
  [3, "destroy", (client, ctx, place) => client.destroy(ctx, place)],
  [3, "crash", (client, ctx, place) => client.crash(ctx, place)],
  [30, "start", (client, ctx, place) => client.start(ctx, place)],
  [3, "undefine", (client, ctx, place) => client.undefine(ctx, place)],
];

const WEIGHTS = OPERATIONS.reduce((sum, [weight]) => sum + weight, 0);

export class Client {
  readonly #world: World;

  constructor(world: World) {
    this.#world = world;
  }

  async run(): Promise<void> {
    const world = this.#world;
    while (world.budget-- > 0) {
      await world.sleep(world.random.below(30));
      const [api, work] = this.#pick();
      await this.#call(world.name(api), work);
    }
  }

  #pick(): readonly [string, Operation] {
    let left = this.#below(WEIGHTS);
    for (const [weight, api, work] of OPERATIONS) {
      if (left < weight) return [api, work];
      left -= weight;
    }
    throw new Error("The weights add up");
  }

  async #call(api: string, work: Operation): Promise<void> {
    const { random, clock, places, driver, watch } = this.#world;
    const place = places[random.below(places.length)]!;
    const stop = new AbortController();
    const abort = () => {
      for (const call of watch.calls) if (call.api === api) call.abortedMs ??= clock.now();
      stop.abort();
    };
    this.#world.aborts.set(api, abort);
    const timer = random.below(12) === 0 ? clock.setTimer(random.below(60), abort) : null;
    try {
      await driver.call(api, (ctx) => work(this, ctx, place), stop.signal);
    } catch (error) {
      // The list of domains, and waits without a job.
      if (!(error instanceof JobError)) throw error;
      this.#world.count(error.reason);
      const { reason, blocker } = error;
      must(reason !== "timeout" || (blocker && blocker.api !== api), `${api} waited for nobody`);
      must(reason !== "aborted" || stop.signal.aborted, `${api} was called off by nobody`);
    }
    timer?.cancel();
    this.#world.aborts.delete(api);
  }

  /** Some commands with the disks as they are. */
  use(ctx: Ctx, place: Place, options: WithJobOptions): Promise<void> {
    return this.job(ctx, place, options, async () => {
      const before = place.disks.get("vd0")!;
      await this.#command(ctx, place);
      if (this.#oneIn(3)) await this.#command(ctx, place);
      const disk = place.disks.get("vd0")!;
      must(!disk.replaced, `${ctx.api} uses a disk that is not there any more`);
      must(disk === before, `a disk of ${place.object.name} has changed under ${ctx.api}`);
    });
  }

  /** Replaces a disk. */
  change(ctx: Ctx, place: Place): Promise<void> {
    return this.job(ctx, place, { class: "modify", driver: this.#oneIn(3) }, async () => {
      await this.#command(ctx, place);
      const target = `vd${this.#below(2)}`;
      const disk = place.disks.get(target)!;
      must(!disk.replaced, `${ctx.api} changes a disk that is not there any more`);
      disk.replaced = true;
      place.disks.set(target, { replaced: false });
      place.object.changed();
      await withUnlocked(ctx, place.object, () => this.#sleep(10));
    });
  }

  /** A block job, and a call that waits for its end. */
  async pull(ctx: Ctx, place: Place): Promise<void> {
    const { object } = place;
    let id = 0;
    await this.job(ctx, place, { class: "modify" }, async () => {
      await this.#command(ctx, place);
      const started = this.#world.nextId();
      place.blockJobs.add(started);
      const { events } = place;
      const end = () => events.push({ kind: "block-job", id: started });
      this.#world.clock.setTimer(1 + this.#below(200), end);
      id = started;
    });
    if (id === 0) return;
    await waitFor(ctx, object, () => (place.blockJobs.has(id) ? undefined : true));
    this.#world.count("waited for a block job");
  }

  agent(ctx: Ctx, place: Place): Promise<void> {
    const options = { agent: this.#oneIn(2) ? "query" : "modify", nowait: this.#oneIn(8) } as const;
    return this.job(ctx, place, options, () =>
      withUnlocked(ctx, place.object, () => this.#sleep(20)),
    );
  }

  /** Looks at the list of domains, and at each of them. */
  async list(ctx: Ctx): Promise<void> {
    const { driver, places } = this.#world;
    await withDriver(ctx, driver, () =>
      this.#withList(ctx, async () => {
        for (const { object } of places) await withDomain(ctx, object, () => object.job.describe());
        await this.#sleep(10);
      }),
    );
  }

  async look(ctx: Ctx, { object }: Place): Promise<void> {
    await withDomain(ctx, object, () => object.isRunning);
  }

  /** An async job of some steps. A backup may go on after its call. */
  async long(ctx: Ctx, place: Place, kind: AsyncKind): Promise<void> {
    await this.async(ctx, place, { class: "async", kind }, async (job) => {
      const step = { class: "async-nested", kind } as const;
      for (let left = 1 + this.#below(3); left > 0; left--) {
        await this.job(ctx, place, step, () => this.#command(ctx, place));
        await this.#sleep(40);
      }
      if (kind !== "backup" || this.#oneIn(2)) return;
      job.keep();
      const { events } = place;
      const end = () => events.push({ kind: "backup", job });
      this.#world.clock.setTimer(1 + this.#below(400), end);
    });
  }

  /** First the domain stands still, and all commands end; then come the jobs. */
  async destroy(ctx: Ctx, place: Place): Promise<void> {
    const { object } = place;
    if (!object.isRunning) return;
    this.#stop(place);
    await this.job(ctx, place, { class: "destroy", offline: true }, async () => {
      if (object.isRunning || object.monitor === null) return;
      await this.#command(ctx, place);
      object.detachMonitor();
    });
  }

  /** The other end of the monitor is gone; nobody has asked for that. */
  async crash(_ctx: Ctx, place: Place): Promise<void> {
    if (!place.object.isRunning) return;
    this.#stop(place);
    place.object.detachMonitor();
  }

  async start(ctx: Ctx, place: Place): Promise<void> {
    const { object } = place;
    if (object.isRunning) return;
    await this.async(ctx, place, { class: "async", kind: "start", offline: true }, async () => {
      const step = { class: "async-nested", kind: "start", offline: true } as const;
      await this.job(ctx, place, step, async () => {
        if (object.isRunning) return;
        if (object.monitor === null) {
          const handle = { closed: false, user: null };
          object.attachMonitor(handle, () => {
            handle.closed = true;
          });
        }
        await this.#command(ctx, place);
        object.setRunning(true);
      });
    });
  }

  /** Takes the domain out of the list, and puts a new one into its place. */
  async undefine(ctx: Ctx, place: Place): Promise<void> {
    const { object } = place;
    const { driver } = this.#world;
    await this.job(ctx, place, { class: "modify", offline: true, driver: true }, async () => {
      if (object.isRunning || object.job.asyncKind !== null) return;
      must(driver.lock.isHeldBy(ctx), "the list changes under its lock");
      object.remove();
      place.blockJobs.clear();
      this.#world.renew(place);
      this.#world.count("undefined");
    });
  }

  /** withJob(), watched. Failures to get a turn are none of a client's. */
  async job(ctx: Ctx, place: Place, options: WithJobOptions, work: () => Promise<void>) {
    const { driver = false } = options;
    await this.#watched(ctx, place, options, (call) =>
      withJob(ctx, place.object, options, () => {
        const inside = () => this.#inside(call, work);
        return driver ? this.#withList(ctx, inside) : inside();
      }),
    );
  }

  async async(
    ctx: Ctx,
    place: Place,
    options: { class: "async"; kind: AsyncKind; offline?: boolean },
    work: (job: AsyncJob) => Promise<void>,
  ): Promise<void> {
    const { object } = place;
    let isKept = false;
    await this.#watched(ctx, place, options, (call) =>
      withAsyncJob(ctx, object, options, async (job) => {
        await this.#inside(call, () => work(job));
        isKept = job.isKept;
      }),
    );
    const { asyncs } = this.#world.watch;
    if (!isKept && asyncs.get(object)?.api === ctx.api) asyncs.delete(object);
  }

  async #watched(
    ctx: Ctx,
    place: Place,
    options: WithJobOptions,
    work: (call: Call) => Promise<void>,
  ): Promise<void> {
    const { watch } = this.#world;
    const call = watch.begins(ctx.api, place, options);
    if (ctx.signal?.aborted) call.abortedMs = this.#world.clock.now();
    try {
      await work(call);
      this.#world.count("agent" in options ? "agent" : options.class);
    } catch (error) {
      watch.failed(call, error);
      this.#world.count((error as JobError).reason);
    } finally {
      watch.ends(call);
      // In the turn in which others are woken.
      if (this.#oneIn(16)) this.#world.abortOne();
    }
  }

  async #inside(call: Call, work: () => Promise<void>): Promise<void> {
    const { watch } = this.#world;
    watch.enters(call);
    try {
      await work();
    } finally {
      watch.leaves(call);
    }
  }

  async #withList(ctx: Ctx, work: () => Promise<void>): Promise<void> {
    const { others } = this.#world.watch;
    others.add(ctx.api);
    try {
      await work();
    } finally {
      others.delete(ctx.api);
    }
  }

  /** One command. It is over within 20 ms, or hangs, until the domain stops. */
  #command(ctx: Ctx, place: Place): Promise<void> {
    const ms = this.#oneIn(150) ? 20_000 + this.#below(60_000) : this.#below(20);
    return withMonitor(ctx, place.object, async (monitor) => {
      must(monitor.user === null, `${ctx.api} meets ${monitor.user} in the monitor`);
      must(!monitor.closed, `${ctx.api} has a monitor that is closed`);
      monitor.user = ctx.api;
      await new Promise<void>((resolve) => {
        const end = () => {
          timer.cancel();
          place.commands.delete(end);
          resolve();
        };
        const timer = this.#world.clock.setTimer(ms, end);
        place.commands.add(end);
      });
      must(!monitor.closed, `the monitor was closed while ${ctx.api} was in it`);
      monitor.user = null;
    });
  }

  #stop(place: Place): void {
    place.object.setRunning(false);
    for (const end of [...place.commands]) end();
  }

  #sleep(limitMs: number): Promise<void> {
    return this.#world.sleep(this.#below(limitMs));
  }

  #below(limit: number): number {
    return this.#world.random.below(limit);
  }

  #oneIn(times: number): boolean {
    return this.#below(times) === 0;
  }
}
