/**
 * Throttle groups: nodes of one group share its limits. Two parts: buckets that tell how long to
 * wait, and one queue per node and direction, served round robin so that no node starves another.
 *
 *   node a  reads  ▪▪▪ ─┐                           a request that may pass fills the buckets;
 *   node b  reads  ▪   ─┴─▶ one at a time ─▶ buckets   it is let through first and paid for
 *   node a  writes ▪▪  ─────▶ one at a time ──┘        by those who come after it
 *
 * A bucket leaks at the mean rate and holds what may be done at once:
 *
 *       │ level ↑ by each request's bytes, or 1 │
 *       │~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~│◀─ size: max x length, or mean / 10 without max
 *       └───────────────────┬───────────────────┘   above it everybody waits
 *                           ▼ leaks `mean` per second
 *
 * With a burst longer than 1 s a second bucket keeps the burst itself to `max` per second: it leaks
 * `max`, and holds max / 10 (QEMU: util/throttle.c, block/throttle-groups.c).
 */

import type { Clock, Timer } from "../base/clock.ts";
import { assert, BlockError } from "../base/errors.ts";
import {
  BUCKET_NAMES,
  type BucketName,
  bucketLimits,
  checkLimits,
  type ThrottleLimits,
} from "./throttle-limits.ts";

export type ThrottleDirection = "read" | "write";
const DIRECTIONS: readonly ThrottleDirection[] = ["read", "write"];

const CONCERNS: Readonly<Record<ThrottleDirection, readonly BucketName[]>> = {
  read: ["bps-total", "iops-total", "bps-read", "iops-read"],
  write: ["bps-total", "iops-total", "bps-write", "iops-write"],
};

/** The groups of one graph, by name (QMP: object-add with qom-type throttle-group). */
export class ThrottleGroups {
  readonly #clock: Clock;
  readonly #groups = new Map<string, ThrottleGroup>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** @throws BlockError EEXIST; EINVAL for limits that exclude each other or make no sense */
  add(name: string, limits: ThrottleLimits): ThrottleGroup {
    if (this.#groups.has(name)) {
      throw new BlockError("EEXIST", `There is an object '${name}' already`);
    }
    const group = new ThrottleGroup(this.#clock, limits);
    this.#groups.set(name, group);
    return group;
  }

  get all(): Iterable<readonly [string, ThrottleGroup]> {
    return this.#groups;
  }

  find(name: string): ThrottleGroup | undefined {
    return this.#groups.get(name);
  }

  /** @throws BlockError ENOENT; EBUSY while a node is in the group */
  remove(name: string): void {
    const group = this.#groups.get(name);
    if (!group) throw new BlockError("ENOENT", `There is no object '${name}'`);
    if (group.memberCount > 0) {
      throw new BlockError("EBUSY", `Object '${name}' is in use by throttle nodes`);
    }
    this.#groups.delete(name);
  }
}

/** Levels of one limit's two buckets; units are bytes or requests. */
interface Bucket {
  readonly mean: number;
  readonly max: number;
  readonly burstSeconds: number;
  level: number;
  burstLevel: number;
}

interface Waiter {
  readonly bytes: number;
  pass(): void;
}

export class ThrottleGroup {
  readonly #clock: Clock;
  readonly #members: ThrottleMember[] = [];
  readonly #timers: Record<ThrottleDirection, Timer | null> = { read: null, write: null };
  /** Whose turn it was last. */
  readonly #last: Record<ThrottleDirection, ThrottleMember | null> = { read: null, write: null };
  #limits: ThrottleLimits = {};
  #buckets: ReadonlyMap<BucketName, Bucket> = new Map();
  #leakedMs = 0;

  /** Use ThrottleGroups.add(). */
  constructor(clock: Clock, limits: ThrottleLimits) {
    this.#clock = clock;
    this.setLimits(limits);
  }

  get memberCount(): number {
    return this.#members.length;
  }

  get limits(): ThrottleLimits {
    return this.#limits;
  }

  /**
   * Sets some limits, the others stay; all buckets are emptied, and those who wait are asked anew.
   *
   * @throws BlockError EINVAL if they do not fit together with those that stay; nothing has changed
   */
  setLimits(changes: ThrottleLimits): void {
    const limits = { ...this.#limits, ...changes };
    checkLimits(limits);
    this.#limits = limits;
    this.#buckets = new Map(
      BUCKET_NAMES.map((name) => {
        const { mean, max, burstSeconds } = bucketLimits(limits, name);
        return [name, { mean, max, burstSeconds, level: 0, burstLevel: 0 }];
      }),
    );
    this.#leakedMs = this.#clock.now();
    for (const direction of DIRECTIONS) this.serve(direction);
  }

  /** A node joins; leave() when it is closed. */
  join(): ThrottleMember {
    const member = new ThrottleMember(this);
    this.adopt(member);
    return member;
  }

  /** Called by the member. */
  adopt(member: ThrottleMember): void {
    this.#members.push(member);
  }

  /** Called by the member. */
  remove(member: ThrottleMember): void {
    for (const direction of DIRECTIONS) {
      assert(member.waiting[direction].length === 0, "a closed node has no request under way");
      if (this.#last[direction] === member) this.#last[direction] = null;
    }
    this.#members.splice(this.#members.indexOf(member), 1);
  }

  /** True if a request that comes now must get in line. */
  mustWait(direction: ThrottleDirection): boolean {
    return this.#timers[direction] !== null || this.#waitMs(direction) > 0;
  }

  /** A member's request goes through: it has had its turn, and fills the buckets. */
  account(member: ThrottleMember, direction: ThrottleDirection, bytes: number): void {
    this.#last[direction] = member;
    const perRequest = this.#limits["iops-size"] ?? 0;
    const requests = perRequest > 0 && bytes > perRequest ? bytes / perRequest : 1;
    for (const name of CONCERNS[direction]) {
      const bucket = this.#buckets.get(name)!;
      const units = name.startsWith("bps") ? bytes : requests;
      bucket.level += units;
      if (bucket.burstSeconds > 1) bucket.burstLevel += units;
    }
  }

  /** Lets through who may, in turn, and sets the timer for the next one. */
  serve(direction: ThrottleDirection): void {
    this.#timers[direction]?.cancel();
    this.#timers[direction] = null;
    for (let next = this.#next(direction); next; next = this.#next(direction)) {
      const waitMs = this.#waitMs(direction);
      if (waitMs > 0) {
        this.#timers[direction] = this.#clock.setTimer(waitMs, () => {
          this.#timers[direction] = null;
          this.serve(direction);
        });
        return;
      }
      const waiter = next.waiting[direction].shift();
      assert(waiter, "who is served has waited");
      this.account(next, direction, waiter.bytes);
      waiter.pass();
    }
  }

  /** The next member in the round that waits. */
  #next(direction: ThrottleDirection): ThrottleMember | undefined {
    const last = this.#last[direction];
    const start = last === null ? 0 : this.#members.indexOf(last) + 1;
    const round = [...this.#members.slice(start), ...this.#members.slice(0, start)];
    return round.find((member) => member.waiting[direction].length > 0);
  }

  /** How long the next request of this direction has to wait; 0 if it may go. */
  #waitMs(direction: ThrottleDirection): number {
    this.#leak();
    let most = 0;
    for (const name of CONCERNS[direction]) {
      most = Math.max(most, waitNanoseconds(this.#buckets.get(name)!));
    }
    return most / 1e6;
  }

  #leak(): void {
    const now = this.#clock.now();
    const seconds = (now - this.#leakedMs) / 1000;
    this.#leakedMs = now;
    if (seconds <= 0) return;
    for (const bucket of this.#buckets.values()) {
      bucket.level = Math.max(0, bucket.level - bucket.mean * seconds);
      bucket.burstLevel = Math.max(0, bucket.burstLevel - bucket.max * seconds);
    }
  }
}

/** One node's place in its group. */
export class ThrottleMember {
  readonly waiting: Record<ThrottleDirection, Waiter[]> = { read: [], write: [] };
  #group: ThrottleGroup;
  /** So many drains want all requests to get through. */
  #drains = 0;

  /** Use ThrottleGroup.join(). */
  constructor(group: ThrottleGroup) {
    this.#group = group;
  }

  /**
   * Resolves when a request of so many bytes may go on.
   *
   * @throws BlockError ECANCELED if the signal is raised before that; it is not charged then
   */
  async enter(direction: ThrottleDirection, bytes: number, signal?: AbortSignal): Promise<void> {
    const queue = this.waiting[direction];
    if (this.#drains > 0 || (queue.length === 0 && !this.#group.mustWait(direction))) {
      this.#group.account(this, direction, bytes);
      return;
    }
    const passed = new Promise<void>((resolve, reject) => {
      const stop = () => {
        queue.splice(queue.indexOf(waiter), 1);
        this.#group.serve(direction);
        reject(new BlockError("ECANCELED", "Operation canceled"));
      };
      const waiter = {
        bytes,
        pass: () => {
          signal?.removeEventListener("abort", stop);
          resolve();
        },
      };
      queue.push(waiter);
      if (signal?.aborted) stop();
      else signal?.addEventListener("abort", stop, { once: true });
    });
    this.#group.serve(direction);
    await passed;
  }

  /** Lets all go that wait, and all that come until drainedEnd(); they are charged. Calls nest. */
  drainedBegin(): void {
    this.#drains++;
    for (const direction of DIRECTIONS) {
      for (const { bytes, pass } of this.waiting[direction].splice(0)) {
        this.#group.account(this, direction, bytes);
        pass();
      }
      this.#group.serve(direction);
    }
  }

  drainedEnd(): void {
    assert(this.#drains > 0, "a drain ends once");
    this.#drains--;
  }

  leave(): void {
    this.#group.remove(this);
  }

  /** Goes to another group, with nothing waiting. */
  move(group: ThrottleGroup): void {
    if (group === this.#group) return;
    this.#group.remove(this);
    group.adopt(this);
    this.#group = group;
  }
}

/** Whole nanoseconds, so that what rounding leaves in a bucket does not set timers of no length. */
function waitNanoseconds({ mean, max, burstSeconds, level, burstLevel }: Bucket): number {
  if (mean === 0) return 0;
  const over = level - (max === 0 ? mean / 10 : max * burstSeconds);
  if (over > 0) return Math.floor((over * 1e9) / mean);
  const burstOver = burstLevel - max / 10;
  if (burstSeconds > 1 && burstOver > 0) return Math.floor((burstOver * 1e9) / max);
  return 0;
}
