/**
 * Engine and driver together, over stores that outlive them. A life ends at a moment that was chosen before:
 * from then on nothing that it asks of a store is done any more, and no answer comes.
 *
 *     driver ── record of domains ─┐
 *       │ QMP                      │
 *     engine ── journal ───────────┼── ticks: before and after each access; one of them is the last
 *       │                          │
 *     images ──────────────────────┘
 */

import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { sleep } from "../../src/base/clock.ts";
import { BlockError } from "../../src/base/errors.ts";
import { type Random, seededRandom } from "../../src/base/random.ts";
import { VirtualClock } from "../../src/base/virtual-clock.ts";
import type { BlockDriver, BlockState } from "../../src/block/driver.ts";
import type { IntentStore } from "../../src/block/write-intents.ts";
import { Connection } from "../../src/domain/domain.ts";
import { DomainDriver } from "../../src/domain/driver.ts";
import type { DomainEvent } from "../../src/domain/events.ts";
import type { ImageFiles } from "../../src/domain/image-files.ts";
import { nodeFiles } from "../../src/domain/node-files.ts";
import type { Source } from "../../src/domain/source.ts";
import { type DomainStore, MemoryDomainStore } from "../../src/domain/store.ts";
import { browserDrivers } from "../../src/drivers/index.ts";
import { fileDriver } from "../../src/drivers/protocol/file.ts";
import type { Client } from "../../src/engine/client.ts";
import { createEngine, type Engine } from "../../src/engine/engine.ts";
import { type JournalStore, openJournal } from "../../src/engine/journal/store.ts";
import { connectLocally } from "../../src/engine/node.ts";
import { FileJournal } from "../../src/engine/node-journal.ts";
import { MemoryIntentStore } from "../block/intent-store.ts";
import type { Files } from "../crash/log.ts";
import { Recorder, recordedDriver } from "../crash/recorder.ts";
import { openEntries, StateMaker } from "../crash/states.ts";
import { MemoryJournal } from "../engine/journal/rig.ts";
import { compiledKernel } from "../kernel/load.ts";

/** Where images and records are kept. */
export interface Ground {
  readonly journal: JournalStore;
  readonly intents: IntentStore;
  readonly domains: DomainStore;
  readonly driver: BlockDriver;
  source(name: string): Source;
  /** Given the engine's client. */
  files(client: Client): ImageFiles;
  /** What is there now, by name. */
  images(): Files;
  /** All that is asked of it from now on is done to what a crash at this moment has left. */
  crash(random: Random): void;
  end(): void;
}

/** Stores of a browser: what is not flushed is lost or not. */
export function memoryGround(): Ground {
  let recorder = new Recorder();
  let driver = recordedDriver(recorder, seededRandom(1));
  recorder.record();
  const gone = (name: string) => !recorder.has(name);
  return {
    journal: new MemoryJournal(),
    intents: new MemoryIntentStore(),
    domains: new MemoryDomainStore(),
    driver: {
      ...driver,
      name: "opfs",
      createOptions: { ...driver.openOptions, size: fileDriver().createOptions.size },
      async open(context) {
        const { filename } = context.options as { filename: string };
        if (gone(filename)) throw new BlockError("ENOENT", `There is no file '${filename}'`);
        return driver.open(context);
      },
      async create({ options }) {
        const { filename, size } = options as { filename: string; size: number };
        recorder.make(filename, size);
      },
    } as BlockDriver,
    source: (filename) => ({ driver: "opfs", filename }),
    files: () => ({
      canRemove: ({ driver: of }) => of === "opfs",
      remove: async ({ filename }) => void recorder.remove(filename as string),
    }),
    images: () => recorder.files(),
    crash(random) {
      const share = random.below(4);
      const cut = recorder.log.length;
      const kept = openEntries(recorder.log, cut).filter(() => random.below(3) < share);
      const left = new StateMaker(recorder.starts, recorder.log).make({
        cut,
        kept,
        torn: new Map(),
        lengthFirst: false,
      });
      recorder = new Recorder();
      for (const [name, bytes] of left) recorder.add(name, bytes.slice());
      recorder.record();
      driver = recordedDriver(recorder, random);
    },
    end() {},
  };
}

/** Files in a folder: a process that is killed leaves what it has written. */
export function nodeGround(): Ground {
  const folder = mkdtempSync(join(tmpdir(), "blocktab-domain-"));
  return {
    journal: new FileJournal(join(folder, "journal.json")),
    intents: new FileJournal(join(folder, "intents.json")),
    domains: new FileJournal(join(folder, "domains.json")),
    driver: fileDriver() as BlockDriver,
    source: (name) => ({ driver: "file", filename: join(folder, name) }),
    files: nodeFiles,
    images: () => {
      const names = readdirSync(folder).filter((name) => !name.includes("json"));
      return new Map(names.map((name) => [name, new Uint8Array(readFileSync(join(folder, name)))]));
    },
    crash() {},
    end: () => rmSync(folder, { recursive: true }),
  };
}

/** Counts moments, and is the last one's end. */
export class Ticks {
  count = 0;
  /** The moment of the end. */
  last = Number.POSITIVE_INFINITY;
  readonly open = new Set<BlockState>();
  /** What was under way then comes to its end, unheard. */
  readonly #begun = new Set<Promise<unknown>>();

  get isOver(): boolean {
    return this.count >= this.last;
  }

  async do<T>(access: () => Promise<T>): Promise<T> {
    await this.#tick();
    const begun = access();
    this.#begun.add(begun);
    const forget = () => this.#begun.delete(begun);
    begun.then(forget, forget);
    const settled = await begun.then(
      (value) => () => value,
      (error: unknown) => () => {
        throw error;
      },
    );
    await this.#tick();
    return settled();
  }

  /** All that had begun is over; whoever is dead has nothing open. */
  async quiet(): Promise<void> {
    await Promise.allSettled(this.#begun);
    for (const state of this.open) await state.close?.();
  }

  async #tick(): Promise<void> {
    if (!this.isOver) this.count++;
    if (this.isOver) await new Promise<never>(() => {});
  }
}

const ACCESSES = ["pread", "pwrite", "pwriteZeroes", "pdiscard", "truncate", "flush"];

function ticking(driver: BlockDriver, ticks: Ticks): BlockDriver {
  return {
    ...driver,
    async open(context) {
      const opened = async () => {
        const state = await driver.open(context);
        ticks.open.add(state);
        return state;
      };
      const state = await ticks.do(opened);
      return new Proxy(state, {
        get(target, key) {
          const member = Reflect.get(target, key);
          if (typeof member !== "function") return member;
          if (key === "close") ticks.open.delete(target);
          return (...args: unknown[]) => {
            const call = () => member.apply(target, args);
            return ACCESSES.includes(key as string) ? ticks.do(call) : call();
          };
        },
      });
    },
    ...(driver.create && { create: (context) => ticks.do(() => driver.create!(context)) }),
  } as BlockDriver;
}

function tickingStore<Store extends JournalStore | IntentStore | DomainStore>(
  store: Store,
  ticks: Ticks,
): Store {
  const save = (record: never) => ticks.do(() => store.save(record));
  return { load: () => store.load(), save } as Store;
}

export class Life {
  readonly ticks = new Ticks();
  readonly clock: VirtualClock;
  readonly events: DomainEvent[] = [];
  engine!: Engine;
  client!: Client;
  driver!: DomainDriver;
  connection!: Connection;

  /** @param startMs wall time does not go back */
  constructor(startMs: number) {
    this.clock = new VirtualClock(startMs);
  }

  async begin(ground: Ground): Promise<void> {
    const { ticks, clock } = this;
    this.engine = await createEngine({
      clock,
      random: seededRandom(1),
      kernelBytes: await compiledKernel(),
      drivers: [
        ...browserDrivers(new Map()).filter(({ name }) => name !== ground.driver.name),
        ticking(ground.driver, ticks),
      ],
      journal: await openJournal(
        tickingStore(ground.journal, ticks),
        tickingStore(ground.intents, ticks),
      ),
    });
    await this.engine.recover();
    this.client = await connectLocally(this.engine);
    const files = ground.files(this.client);
    this.driver = await DomainDriver.start({
      qmp: this.client,
      store: tickingStore(ground.domains, ticks),
      clock,
      files: { ...files, remove: (source) => ticks.do(() => files.remove(source)) },
      onEvent: (event) => void this.events.push(event),
    });
    this.connection = new Connection(this.driver);
  }

  nap(ms: number): Promise<void> {
    return sleep(this.clock, ms);
  }

  /** Moves time until the promise settles. @returns false if the life ended before */
  async lasts(promise: Promise<unknown>): Promise<boolean> {
    let isSettled = false;
    const settled = () => {
      isSettled = true;
    };
    promise.then(settled, settled);
    while (!isSettled && !this.ticks.isOver) {
      await this.clock.advance(1);
      await new Promise((resolve) => setImmediate(resolve));
    }
    if (!isSettled) return false;
    await promise;
    return true;
  }
}
