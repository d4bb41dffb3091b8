/** A driver beside a real engine, in one thread: memory stores or files, a virtual clock, and a guest. */

import { createHash } from "node:crypto";
import { BlockError } from "../../src/base/errors.ts";
import { seededRandom } from "../../src/base/random.ts";
import { VirtualClock } from "../../src/base/virtual-clock.ts";
import type { BlockDriver } from "../../src/block/driver.ts";
import type { Format, ImageDefinition } from "../../src/domain/definition.ts";
import { Connection, type Domain } from "../../src/domain/domain.ts";
import { DomainDriver } from "../../src/domain/driver.ts";
import { DomainError, type DomainErrorName } from "../../src/domain/errors.ts";
import type { DomainEvent } from "../../src/domain/events.ts";
import type { ImageFiles } from "../../src/domain/image-files.ts";
import type { DriverOptions } from "../../src/domain/locks/domain-object.ts";
import { type DomainStore, MemoryDomainStore } from "../../src/domain/store.ts";
import { browserDrivers } from "../../src/drivers/index.ts";
import { MemoryStore, memoryDriver } from "../../src/drivers/protocol/memory.ts";
import type { Client, Device } from "../../src/engine/client.ts";
import { createEngine, type Engine } from "../../src/engine/engine.ts";
import { connectLocally } from "../../src/engine/node.ts";
import { kernelBytes } from "../kernel/load.ts";

export const KiB = 1024;
export const MiB = 1024 * KiB;
export const GRAIN = 64 * KiB;

export interface World {
  readonly clock: VirtualClock;
  readonly stores: Map<string, MemoryStore>;
  readonly engine: Engine;
  readonly client: Client;
  readonly store: DomainStore;
  driver: DomainDriver;
  connection: Connection;
  readonly events: DomainEvent[];
  /** Moves the clock until it settles. */
  run<T>(promise: Promise<T>): Promise<T>;
  /** Another driver takes the place of this one, as after a hand-over; the engine goes on. */
  restart(): Promise<void>;
  end(): Promise<void>;
}

export interface WorldOptions {
  readonly drivers?: readonly BlockDriver[];
  readonly store?: DomainStore;
  readonly stores?: Map<string, MemoryStore>;
  readonly locks?: DriverOptions;
}

/** @param isLost from then on what the driver saves is not kept: another one has taken over */
export function storeUntil(isLost: () => boolean): DomainStore {
  const kept = new MemoryDomainStore();
  return {
    load: () => kept.load(),
    async save(record) {
      if (isLost()) throw new BlockError("ESTALE", "Another driver has taken over");
      await kept.save(record);
    },
  };
}

export async function makeWorld(options: WorldOptions = {}): Promise<World> {
  const { store = new MemoryDomainStore(), stores = new Map(), drivers = [], locks = {} } = options;
  const clock = new VirtualClock();
  const engine = await createEngine({
    clock,
    random: seededRandom(1),
    kernelBytes: kernelBytes(),
    drivers: [...browserDrivers(new Map()), smallStores(stores), ...drivers],
  });
  const client = await connectLocally(engine);
  const asking = await connectLocally(engine);
  const files: ImageFiles = {
    canRemove: ({ driver }) => driver === "memory",
    async remove(source) {
      stores.delete(source["name"] as string);
    },
  };
  const events: DomainEvent[] = [];
  const onEvent = (event: DomainEvent) => void events.push(event);
  const start = () =>
    clock.runUntil(
      DomainDriver.start({ qmp: client, asking, store, clock, files, locks, onEvent }),
    );
  const driver = await start();
  const world: World = {
    clock,
    stores,
    engine,
    client,
    store,
    driver,
    connection: new Connection(driver),
    events,
    run: (promise) => clock.runUntil(promise),
    async restart() {
      await world.driver.close();
      world.driver = await start();
      world.connection = new Connection(world.driver);
    },
    async end() {
      await world.driver.close();
      await clock.runUntil(engine.close());
    },
  };
  return world;
}

/**
 * Memory under a name of its own, on the way to which something happens.
 *
 * @param around does the request, at once or later, or throws
 */
export function memoryBehind(
  stores: Map<string, MemoryStore>,
  name: string,
  around: (request: Request) => unknown,
): BlockDriver {
  const driver = memoryDriver(stores) as BlockDriver;
  return {
    ...driver,
    name,
    async open(context) {
      const state = await driver.open(context);
      const { name: store } = context.options as { readonly name?: string };
      return new Proxy(state, {
        get(target, key) {
          const member = Reflect.get(target, key);
          if (typeof member !== "function") return member;
          return (...args: unknown[]) =>
            around({ store, method: key as string, args, work: () => member.apply(target, args) });
        },
      });
    },
  };
}

export interface Request {
  /** The name of the store. */
  readonly store: string | undefined;
  readonly method: string;
  readonly args: readonly unknown[];
  work(): unknown;
}

/** Memory, of which a store "small" holds half a MiB. */
function smallStores(stores: Map<string, MemoryStore>): BlockDriver {
  return memoryBehind(stores, "memory", ({ store, method, args, work }) => {
    const ends: Record<string, number> = {
      pwrite: (args[1] as number) + ((args[0] as Uint8Array)?.length ?? 0),
      pwriteZeroes: (args[0] as number) + (args[1] as number),
    };
    if (store === "small" && (ends[method] ?? 0) > 512 * KiB) {
      throw new BlockError("ENOSPC", "The store is full");
    }
    return work();
  });
}

/** Makes an image in a memory store: [name] over [backing], with this content in these grains. */
export async function makeImage(
  { client, run, stores }: World,
  name: string,
  {
    size = 1 * MiB,
    backing,
    content = {},
    format = "qcow2",
  }: {
    size?: number;
    backing?: string;
    content?: Readonly<Record<number, number>>;
    format?: "qcow2" | "raw";
  } = {},
): Promise<void> {
  stores.set(name, new MemoryStore(format === "raw" ? size : 0));
  const add = (options: object) => run(client.execute("blockdev-add", options as never));
  await add({ driver: "memory", "node-name": "new-file", name });
  if (format === "qcow2") {
    const label = backing && { "backing-file": `/memory/${backing}`, "backing-fmt": "qcow2" };
    const options = { driver: "qcow2", file: "new-file", size, ...label };
    await run(client.execute("blockdev-create", { "job-id": "new", options } as never));
    await run(client.waitForJob("new", "concluded"));
    await run(client.execute("job-dismiss", { id: "new" }));
  }
  const open = { driver: format, "node-name": "new-image", file: "new-file" };
  await add({ ...open, ...(format === "qcow2" && { backing: null }) });
  const writable = { type: "message-port", id: "new-device", "node-name": "new-image" } as const;
  await run(client.execute("block-export-add", { ...writable, writable: true }));
  const device = await run(client.openDevice("new-device"));
  await write({ run } as World, device, content);
  await run(device.close());
  await run(client.execute("block-export-del", { id: "new-device", mode: "hard" }));
  await run(client.execute("blockdev-del", { "node-name": "new-image" }));
  await run(client.execute("blockdev-del", { "node-name": "new-file" }));
}

/** Fills grains of 64 KiB, each with one byte. */
export async function write(
  { run }: Pick<World, "run">,
  device: Device,
  content: Readonly<Record<number, number>>,
): Promise<void> {
  for (const [grain, byte] of Object.entries(content)) {
    await run(device.write(Number(grain) * GRAIN, new Uint8Array(GRAIN).fill(byte)));
  }
  await run(device.flush());
}

/** A memory store. */
export const memory = (name: string) => ({ driver: "memory", name });

export function image(
  name: string,
  backingStore: ImageDefinition | null = null,
  format: Format = "qcow2",
): ImageDefinition {
  return { format, source: memory(name), backingStore };
}

/** A chain of images as a disk, the top first. */
export function disk(target: string, ...names: string[]) {
  const chain = names.reduceRight<ImageDefinition | null>(
    (below, name) => image(name, below),
    null,
  );
  return { target, ...chain! };
}

/** A domain "demo" that runs, over images [base] <── [mid] <── [top] of some content, top first here. */
export async function running(
  world: World,
  disks: Readonly<Record<string, readonly string[]>> = { vda: ["top", "mid", "base"] },
  size = 1 * MiB,
): Promise<Domain> {
  for (const names of Object.values(disks)) {
    for (const [i, name] of [...names].reverse().entries()) {
      const backing = names[names.length - i];
      const content = { [i]: i + 1, [i + 4]: i + 1, 12: i + 1 };
      await makeImage(world, name, { size, ...(backing && { backing }), content });
    }
  }
  const definition = {
    name: "demo",
    disks: Object.entries(disks).map(([target, names]) => disk(target, ...names)),
  };
  const domain = await world.run(world.connection.define(definition as never));
  await world.run(domain.create());
  return domain;
}

/** The guest's view of a disk. */
export async function guest(
  { client, run }: World,
  domain: Domain,
  target: string,
): Promise<Device> {
  const { disks } = await run(domain.info());
  return run(client.openDevice(disks.find((one) => one.target === target)!.device!));
}

/** What a disk reads as, hashed: whole disks are compared often. */
export async function read({ run }: Pick<World, "run">, device: Device): Promise<string> {
  const hash = createHash("sha256");
  for (let at = 0; at < device.size; at += MiB) {
    hash.update(await run(device.read(at, Math.min(MiB, device.size - at))));
  }
  return hash.digest("hex");
}

/** Lets everything happen that takes no time. */
export const settle = ({ clock }: World) => clock.advance(0);

/** Moves the clock until there is such an event; one that there was already counts. */
export async function until(
  world: World,
  fits: (event: DomainEvent) => boolean,
): Promise<DomainEvent> {
  for (let ms = 0; ms < 120_000; ms += 100) {
    const found = world.events.find(fits);
    if (found) return found;
    await world.clock.advance(100);
  }
  throw new Error(`No such event among ${JSON.stringify(world.events)}`);
}

/** Block job events by target, as [type, status]. */
export function told({ events }: World, target: string): [number, number][] {
  return events.flatMap((event) =>
    event.event === "block-job-2" && event.disk === target
      ? [[event.type, event.status] as [number, number]]
      : [],
  );
}

export const ended =
  (target: string) =>
  (event: DomainEvent): boolean =>
    event.event === "block-job-2" && event.disk === target && event.status !== 3;

export const isReady =
  (target: string) =>
  (event: DomainEvent): boolean =>
    event.event === "block-job-2" && event.disk === target && event.status === 3;

export const backupIsOver = ({ event }: DomainEvent): boolean => event === "job-completed";

/** What is thrown, by its number's name. */
export async function refusal(world: World, promise: Promise<unknown>): Promise<DomainErrorName> {
  try {
    await world.run(promise);
  } catch (error) {
    if (error instanceof DomainError) return error.code;
    throw error;
  }
  throw new Error("It was not refused");
}
