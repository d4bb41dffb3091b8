/**
 * One run of one kind of operation: images in recorded files, a guest on the top one, jobs on a clock
 * that is moved by hand. All of it comes from the kind's name and a seed.
 */

import type { Clock } from "../../src/base/clock.ts";
import { type Random, seededRandom } from "../../src/base/random.ts";
import type { VirtualClock } from "../../src/base/virtual-clock.ts";
import type { BlockBackend } from "../../src/block/backend.ts";
import type { World } from "../../src/block/driver.ts";
import { Graph } from "../../src/block/graph.ts";
import type { BlockNode } from "../../src/block/node.ts";
import { Perm } from "../../src/block/permissions.ts";
import type { BlockJob, BlockJobServices } from "../../src/blockjob/block-job.ts";
import { blklogwrites } from "../../src/drivers/filter/blklogwrites.ts";
import { copyOnRead } from "../../src/drivers/filter/copy-on-read.ts";
import type { CreateOptions } from "../../src/drivers/format/qcow2/create.ts";
import { qcow2Driver } from "../../src/drivers/format/qcow2/index.ts";
import { rawDriver } from "../../src/drivers/format/raw.ts";
import { memoryDriver } from "../../src/drivers/protocol/memory.ts";
import { JobList } from "../../src/job/list.ts";
import { verbs } from "../../src/job/verbs.ts";
import { testWorld } from "../world.ts";
import { Guest } from "./guest.ts";
import type { LogSource } from "./log.ts";
import { Recorder, recordedDriver } from "./recorder.ts";
import { WrittenLog } from "./written-log.ts";

export interface Kind {
  /** Unique, in words; --only takes a part of it. */
  readonly name: string;
  /** Of the states that another kind gets; 1 unless given. */
  readonly share?: number;
  /** Recorded by blklogwrites; the image is in the file `disk` or `locked`. */
  readonly isLogged?: boolean;
  /** Does it once: makes images, calls record(), and does what may be cut at any moment. */
  run(trial: Trial): Promise<void>;
}

export interface ImageOptions extends Omit<CreateOptions, "size"> {
  readonly size: number;
}

/** When it happened, in entries of the log. */
export interface Cut {
  /** All of these are done: a flush that was over by then has been told to the guest. */
  readonly done: number;
  /** None of those behind these has begun. The same, unless a test has tampered with the log. */
  readonly begun: number;
}

/** What a crash has left, opened. */
export interface Left {
  /** The guest's disk, read-only. */
  readonly node: BlockNode;
  /** Of which write each of its sectors is. */
  readonly ids: Int32Array;
  readonly cut: Cut;
  /** The image once more, in files that may be changed: what `use` does is thrown away. */
  again<T>(use: (node: BlockNode) => Promise<T>): Promise<T>;
}

/** Something besides the guest's bytes that must hold. Resolves with what does not, or "". */
export type Claim = (left: Left) => Promise<string>;

export class Trial {
  readonly random: Random;
  readonly recorder = new Recorder();
  /** Names of files that are qcow2 images; each has to be sound after any crash. */
  readonly images: string[] = [];
  /** The image that the guest is on before the first flush is over. */
  root = "";
  readonly claims: Claim[] = [];
  readonly clock: VirtualClock;
  readonly graph: Graph;
  readonly services: BlockJobServices;
  readonly #isLogged: boolean;
  #written: WrittenLog | null = null;
  #guest: Guest | null = null;

  private constructor(world: World & { clock: VirtualClock }, seed: number, isLogged: boolean) {
    this.#isLogged = isLogged;
    this.random = seededRandom(seed);
    this.clock = world.clock;
    this.graph = graphOf(world, this.recorder, seededRandom(seed ^ 0x5bd1e995));
    const jobs = new JobList({
      onBug(bug) {
        throw bug;
      },
    });
    this.services = { graph: this.graph, jobs, clock: this.clock, emit() {} };
  }

  /** @param isLogged by blklogwrites: then there is one image */
  static async start(seed: number, isLogged = false): Promise<Trial> {
    return new Trial(await testWorld({ seed }), seed, isLogged);
  }

  get guest(): Guest {
    if (!this.#guest) throw new Error("the trial has no guest yet");
    return this.#guest;
  }

  /** What is cut. */
  get source(): LogSource {
    return this.#written ?? this.recorder;
  }

  /** A new image in a file of this name. */
  async create(name: string, options: ImageOptions): Promise<void> {
    const { graph, recorder, images } = this;
    recorder.add(name);
    images.push(name);
    const file = await graph.add({ driver: "recorded", "node-name": "new", filename: name });
    const backend = this.#backend(file, Perm.all);
    const { world, secrets } = graph;
    const encrypt = { ...keyOf(name).encrypt, "iter-time": 1 };
    await graph.driver("qcow2").create!({
      // To measure how long a key takes needs a clock that goes.
      world: { ...world, clock: ticking(world.clock) },
      secrets,
      options: { ...options, ...(isLocked(name) && { encrypt }) } as never,
      file: backend.edge,
    });
    await graph.closeBackend(backend);
    await graph.remove("new");
    if (this.#isLogged) this.#written = new WrittenLog(recorder, name);
  }

  /**
   * Opens it under its file's name, and with its data file if there is one.
   *
   * @param more other members of blockdev-add, such as the node that it stands on
   */
  async open(name: string, more: object = {}): Promise<BlockBackend> {
    return this.#backend(await this.add(name, more), Perm.consistentRead | Perm.write);
  }

  /** As open(), without anybody on it. */
  add(name: string, more: object = {}): Promise<BlockNode> {
    const data = `${name}.data`;
    return this.graph.add({
      driver: "qcow2",
      "node-name": name,
      // So small that epochs also start on their own.
      "cache-size": 16 * 1024,
      backing: null,
      file: this.#written?.options ?? { driver: "recorded", filename: name },
      ...keyOf(name),
      ...(this.recorder.has(data) && { "data-file": { driver: "recorded", filename: data } }),
      ...more,
    });
  }

  /** A way to a node below the guest's. */
  enterBelow(name: string): BlockBackend {
    return this.#backend(this.graph.get(name), Perm.consistentRead | Perm.write);
  }

  /** For a moment, with the right to another size, which jobs would mind. */
  async resize(length: number): Promise<void> {
    const { guest } = this;
    const { disk } = guest;
    const resizer = this.#backend(disk.node, Perm.all, "resizer");
    guest.moveTo(resizer);
    await guest.resize(length);
    guest.moveTo(disk);
    await this.graph.closeBackend(resizer);
  }

  /** Ends the graph's use of it; what was in memory is in the file then. */
  async close(disk: BlockBackend): Promise<void> {
    const { name } = disk.node;
    await this.graph.closeBackend(disk);
    await this.graph.remove(name);
  }

  /** Puts the guest on a disk, which is as certain as it is now. */
  async enter(disk: BlockBackend): Promise<Guest> {
    this.root = disk.node.name;
    this.#guest = new Guest(this.source, this.random, disk);
    await this.#guest.adopt();
    return this.#guest;
  }

  /** From here on it may be cut at any moment. All images must be flushed. */
  async record(): Promise<void> {
    await this.guest.disk.flush();
    await this.guest.adopt();
    this.recorder.record();
    this.#written?.record();
  }

  /** Lets a job work to its end while the guest goes on. */
  async until(job: BlockJob, meanwhile: () => Promise<void>): Promise<void> {
    for (let round = 0; round < 400 && !job.completed; round++) {
      if (round < 40) await this.clock.runUntil(meanwhile());
      await this.clock.advance(20 + this.random.below(100));
      if (job.ready && !job.completed) await verbs.complete(job);
    }
    await this.clock.runUntil(job.finished);
    if (job.error) throw job.error;
  }

  #backend(node: BlockNode, take: number, name = node.name): BlockBackend {
    return this.graph.openBackend(node, {
      name,
      description: `the disk '${node.name}'`,
      permissions: { take, share: Perm.all },
    });
  }
}

/** A minute goes by whenever somebody looks: so slow a machine gets the cheapest key, every time. */
function ticking(clock: Clock): Clock {
  let ms = 0;
  return {
    now() {
      ms += 60_000;
      return ms;
    },
    timestamp: () => clock.timestamp(),
    setTimer: (ms, callback) => clock.setTimer(ms, callback),
    yield: () => clock.yield(),
  };
}

/** Images of such names are encrypted. */
export const isLocked = (name: string) => name.startsWith("locked");
export const SECRET = { id: "key", text: "hunter2" };

/** What blockdev-add must be told for an image of this name. */
export function keyOf(name: string) {
  return isLocked(name) ? { encrypt: { format: "luks", "key-secret": SECRET.id } } : {};
}

/** @param random for the order in which files do what they are asked for; null: as it comes */
export function graphOf(world: World, recorder: Recorder, random: Random | null): Graph {
  const graph = new Graph(world, [
    qcow2Driver(),
    rawDriver(),
    copyOnRead,
    blklogwrites,
    memoryDriver(),
    recordedDriver(recorder, random),
  ] as never);
  graph.secrets.add(SECRET.id, new TextEncoder().encode(SECRET.text));
  return graph;
}
