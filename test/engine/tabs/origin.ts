/**
 * An origin in memory: locks, channels, epochs and files that tabs share, and lives that end in the
 * middle of anything. What a dead one had sent arrives; what it would do next never happens; its locks
 * and handles are free. A frozen one keeps all, and stands still.
 *
 *   Origin ── Life ── TabHost, driver `shelf`     one for a page, one for its worker
 */

import * as v from "valibot";
import { Bell } from "../../../src/base/bell.ts";
import type { Clock, Timer } from "../../../src/base/clock.ts";
import { BlockError } from "../../../src/base/errors.ts";
import { type Random, seededRandom } from "../../../src/base/random.ts";
import type { VirtualClock } from "../../../src/base/virtual-clock.ts";
import type { BlockDriver } from "../../../src/block/driver.ts";
import type { IntentStore } from "../../../src/block/write-intents.ts";
import { MemoryState, MemoryStore } from "../../../src/drivers/protocol/memory.ts";
import { retryWhileBusy } from "../../../src/drivers/protocol/retry-busy.ts";
import { checkEpoch, type JournalStore } from "../../../src/engine/journal/store.ts";
import type { Channel, Epochs, TabHost } from "../../../src/engine/tabs/host.ts";
import {
  ended,
  NO_REIGN,
  overtaking,
  type Reign,
  raised,
  serving,
} from "../../../src/engine/tabs/reign.ts";

interface LockRequest {
  readonly life: Life;
  readonly grant: () => void;
}

export class Origin {
  readonly clock: VirtualClock;
  readonly random: Random;
  readonly channels = new Map<string, Set<SimChannel>>();
  /** By name; the first of each holds it. */
  readonly locks = new Map<string, LockRequest[]>();
  readonly files = new Map<string, MemoryStore>();
  readonly handles = new Map<string, Life>();
  reign: Reign = NO_REIGN;
  /** Nothing more can be put on record of this reign. */
  isReignFull = false;
  /** Files that cannot be opened now. */
  readonly away = new Set<string>();
  /** The journal's record, and that of write intents, as text. */
  journal: string | null = null;
  intents: string | null = null;
  #lifeCount = 0;

  constructor(clock: VirtualClock, seed: number) {
    this.clock = clock;
    this.random = seededRandom(seed);
  }

  newLife(): Life {
    return new Life(this, ++this.#lifeCount);
  }

  /** The next in the queue has it. */
  grantNext(name: string): void {
    this.locks.get(name)?.[0]?.grant();
  }
}

export class Life {
  readonly number: number;
  readonly origin: Origin;
  readonly random: Random;
  isDead = false;
  #isFrozen = false;
  readonly #thaw = new Bell();
  readonly #onThaw: (() => void)[] = [];
  readonly #channels = new Set<SimChannel>();

  constructor(origin: Origin, number: number) {
    this.origin = origin;
    this.number = number;
    this.random = seededRandom(origin.random.below(2 ** 32));
  }

  get isFrozen(): boolean {
    return this.#isFrozen;
  }

  /** As SIGKILL: at once, whatever is under way. */
  kill(): void {
    this.isDead = true;
    for (const channel of this.#channels) channel.close();
    for (const [name, queue] of this.origin.locks) {
      const [holder] = queue;
      const left = queue.filter((request) => request.life !== this);
      this.origin.locks.set(name, left);
      if (holder?.life === this) this.origin.grantNext(name);
    }
    for (const [file, life] of this.origin.handles) {
      if (life === this) this.origin.handles.delete(file);
    }
  }

  freeze(): void {
    this.#isFrozen = true;
  }

  thaw(): void {
    this.#isFrozen = false;
    this.#thaw.ring();
    for (const wake of this.#onThaw.splice(0)) wake();
  }

  /** Runs it in this life: later if it is frozen, never if it is dead. */
  do(work: () => void): void {
    if (this.isDead) return;
    if (this.#isFrozen) this.#onThaw.push(() => this.do(work));
    else work();
  }

  /** Whatever is awaited behind it happens in this life, or never. */
  async alive(): Promise<void> {
    while (this.#isFrozen) await this.#thaw.rung();
    if (this.isDead) await new Promise(() => {});
  }

  get host(): TabHost {
    return {
      clock: this.clock,
      random: this.random,
      locks: {
        hold: (name, work, signal) => this.#hold(name, work, signal),
        held: async () => {
          await this.alive();
          const { locks } = this.origin;
          return [...locks].filter(([, queue]) => queue.length > 0).map(([name]) => name);
        },
      },
      epochs: this.#epochs,
      openChannel: (name) => this.#openChannel(name),
    };
  }

  get clock(): Clock {
    const { clock } = this.origin;
    return {
      now: () => clock.now(),
      timestamp: () => clock.timestamp(),
      setTimer: (ms, callback): Timer => clock.setTimer(ms, () => this.do(callback)),
      yield: async () => {
        await clock.yield();
        await this.alive();
      },
    };
  }

  get #epochs(): Epochs {
    const { origin } = this;
    return {
      raise: async () => {
        await this.alive();
        origin.reign = raised(origin.reign);
        return origin.reign;
      },
      serve: async (epoch) => {
        await this.alive();
        if (origin.reign.epoch !== epoch) throw new BlockError("ESTALE", "There is a later owner");
        origin.reign = serving(origin.reign, epoch);
      },
      overtake: async (epoch) => {
        await this.alive();
        if (origin.isReignFull) throw new BlockError("ENOSPC", "No space left");
        if (origin.reign.epoch !== epoch) throw new BlockError("ESTALE", "There is a later owner");
        origin.reign = overtaking(origin.reign, epoch);
      },
      close: async (epoch) => {
        await this.alive();
        origin.reign = ended(origin.reign, epoch);
      },
    };
  }

  get journal(): JournalStore {
    return this.#record("journal");
  }

  get intents(): IntentStore {
    return this.#record("intents");
  }

  #record(which: "journal" | "intents"): JournalStore & IntentStore {
    const { origin } = this;
    const load = async () => {
      await this.alive();
      const text = origin[which];
      return text === null ? undefined : JSON.parse(text);
    };
    return {
      load,
      save: async (record) => {
        checkEpoch(await load(), record);
        origin[which] = JSON.stringify(record);
        await this.alive();
      },
    };
  }

  #openChannel(name: string): Channel {
    const channel = new SimChannel(this, name);
    this.#channels.add(channel);
    return channel;
  }

  async #hold<T>(name: string, work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    await this.alive();
    const { locks } = this.origin;
    const queue = () => locks.get(name) ?? [];
    let request: LockRequest | undefined;
    await new Promise<void>((resolve, reject) => {
      const canceled = () => {
        // Too late once it is held.
        if (request === undefined || queue()[0] === request) return;
        locks.set(
          name,
          queue().filter((one) => one !== request),
        );
        reject(new BlockError("ECANCELED", "Operation canceled"));
      };
      if (signal?.aborted) return reject(new BlockError("ECANCELED", "Operation canceled"));
      signal?.addEventListener("abort", canceled, { once: true });
      request = { life: this, grant: () => this.do(resolve) };
      locks.set(name, [...queue(), request]);
      if (queue()[0] === request) request.grant();
    });
    try {
      await this.alive();
      return await work();
    } finally {
      if (!this.isDead) {
        locks.set(
          name,
          queue().filter((one) => one !== request),
        );
        this.origin.grantNext(name);
      }
    }
  }

  /** Files as OPFS has them: one handle at a time, gone with its worker; what is written is there. */
  shelf(): BlockDriver<{ filename: string }> {
    const { origin } = this;
    return {
      name: "shelf",
      kind: "protocol",
      roles: {},
      openOptions: { filename: v.string() },
      open: async ({ options: { filename }, readOnly, signal }) => {
        await retryWhileBusy(this.clock, signal, async () => {
          await this.alive();
          if (origin.away.has(filename)) throw new BlockError("ENOENT", `'${filename}' is away`);
          if (origin.handles.has(filename)) throw new BlockError("EBUSY", "It is open elsewhere");
          origin.handles.set(filename, this);
        });
        const store = origin.files.get(filename) ?? new MemoryStore();
        origin.files.set(filename, store);
        return new ShelfState(this, filename, store, readOnly);
      },
    };
  }
}

class ShelfState extends MemoryState {
  readonly #life: Life;
  readonly #filename: string;

  constructor(life: Life, filename: string, store: MemoryStore, readOnly: boolean) {
    super(store, readOnly);
    this.#life = life;
    this.#filename = filename;
  }

  override async pread(...args: Parameters<MemoryState["pread"]>): Promise<void> {
    await this.#turn();
    await super.pread(...args);
  }

  override async pwrite(...args: Parameters<MemoryState["pwrite"]>): Promise<void> {
    await this.#turn();
    await super.pwrite(...args);
    // A write may be done, and nobody hears of it.
    await this.#turn();
  }

  override async pwriteZeroes(...args: Parameters<MemoryState["pwriteZeroes"]>): Promise<void> {
    await this.#turn();
    await super.pwriteZeroes(...args);
  }

  override async pdiscard(...args: Parameters<MemoryState["pdiscard"]>): Promise<void> {
    await this.#turn();
    await super.pdiscard(...args);
  }

  override async truncate(length: number): Promise<void> {
    await this.#turn();
    await super.truncate(length);
  }

  override async flush(): Promise<void> {
    await this.#turn();
  }

  override async close(): Promise<void> {
    await this.#life.alive();
    await super.close();
    this.#life.origin.handles.delete(this.#filename);
  }

  async #turn(): Promise<void> {
    const { clock, random } = this.#life;
    if (random.below(3) === 0) {
      await new Promise<void>((resolve) => {
        clock.setTimer(random.below(4), resolve);
      });
    }
    await this.#life.alive();
  }
}

/** Messages come in order to each end; how long they take is chance. */
export class SimChannel implements Channel {
  onmessage: ((message: unknown) => void) | null = null;
  readonly #life: Life;
  readonly #name: string;
  #isClosed = false;
  /** When the last one on its way is there. */
  #busyUntilMs = 0;

  constructor(life: Life, name: string) {
    this.#life = life;
    this.#name = name;
    const { channels } = life.origin;
    if (!channels.has(name)) channels.set(name, new Set());
    channels.get(name)!.add(this);
  }

  post(message: unknown): void {
    if (this.#isClosed || this.#life.isDead) return;
    const { channels } = this.#life.origin;
    for (const other of channels.get(this.#name)!) {
      if (other !== this) other.#take(structuredClone(message));
    }
  }

  close(): void {
    this.#isClosed = true;
    this.#life.origin.channels.get(this.#name)?.delete(this);
  }

  #take(message: unknown): void {
    const { clock, random } = this.#life.origin;
    this.#busyUntilMs = Math.max(this.#busyUntilMs, clock.now() + random.below(4));
    clock.setTimer(this.#busyUntilMs - clock.now(), () =>
      this.#life.do(() => {
        if (!this.#isClosed) this.onmessage?.(message);
      }),
    );
  }
}
