/**
 * A guest with one disk: reads, writes, zeroes, discards, flushes, many at a time, and never two at
 * the same bytes, as no sane guest does that. Knows what it must read.
 */

import { assert, BlockError } from "../../src/base/errors.ts";
import type { Random } from "../../src/base/random.ts";
import type { VirtualClock } from "../../src/base/virtual-clock.ts";
import type { BlockBackend } from "../../src/block/backend.ts";
import type { BlockNode } from "../../src/block/node.ts";
import type { BlockdevOptions } from "../../src/block/options.ts";
import { Perm } from "../../src/block/permissions.ts";
import { chainOf } from "../../src/block/status.ts";
import type { Engine } from "../../src/engine/engine.ts";
import { ModelDisk } from "./disk.ts";

export const CLUSTER = 4096;
const REQUEST_MAX = 3 * CLUSTER;

export interface GuestInit {
  readonly name: string;
  readonly engine: Engine;
  readonly clock: VirtualClock;
  readonly random: Random;
  readonly size: number;
  readonly note: (line: string) => void;
}

export class Guest {
  readonly name: string;
  readonly size: number;
  readonly model: ModelDisk;
  requests = 0;
  format: "tiny" | "qcow2" = "tiny";
  readonly #engine: Engine;
  readonly #random: Random;
  readonly #note: (line: string) => void;
  readonly #busy = new Set<{ offset: number; end: number }>();
  #disk: BlockBackend | null = null;
  #failure: unknown = null;

  constructor({ name, engine, random, size, note }: GuestInit) {
    this.name = name;
    this.size = size;
    this.model = new ModelDisk(size);
    this.#engine = engine;
    this.#random = random;
    this.#note = note;
  }

  get isBusy(): boolean {
    return this.#busy.size > 0;
  }

  /** Layers from the top down, as they are now. */
  get chain(): readonly BlockNode[] {
    return chainOf(this.disk.node);
  }

  get disk(): BlockBackend {
    assert(this.#disk, "the guest has its disk");
    return this.#disk;
  }

  /** Every layer has data of its own, and is what the guest read before the next one was added. */
  async makeChain(layers: number, format: "tiny" | "qcow2"): Promise<void> {
    this.format = format;
    let below: string | null = null;
    for (let i = 0; i < layers; i++) {
      const name: string = `${this.name}${i}`;
      await this.makeImage(name, this.size, below);
      const filler = this.#open(name, "");
      for (let n = this.#random.below(12); n > 0; n--) {
        const { offset, bytes } = this.#range();
        const data = this.#data(bytes);
        await filler.write(data, offset);
        this.model.written(data, offset);
      }
      await this.#engine.graph.closeBackend(filler);
      below = name;
    }
    this.#disk = this.#open(below!, `disk-${this.name}`);
  }

  /** An empty image in a store with weather. */
  async makeImage(name: string, size: number, backing: string | null): Promise<void> {
    const { graph } = this.#engine;
    const file: BlockdevOptions = { driver: "weather", size: 0 };
    const below = backing === null ? {} : { backing };
    if (this.format === "tiny") {
      const tiny = { driver: "tiny", "cluster-size": CLUSTER, size };
      await graph.add({ ...tiny, "node-name": name, file, ...below });
      return;
    }
    const store = await graph.add({ ...file, "node-name": `${name}-file` });
    const maker = graph.openBackend(store, {
      name: "",
      description: "the maker",
      permissions: { take: Perm.consistentRead | Perm.write | Perm.resize, share: Perm.none },
    });
    const options = { size, "cluster-size": CLUSTER };
    const { create } = graph.driver("qcow2");
    try {
      await create!({ world: graph.world, options: options as never, file: maker.edge });
    } finally {
      await graph.closeBackend(maker);
    }
    const opened = backing === null ? { backing: null } : { backing };
    await graph.add({ driver: "qcow2", "node-name": name, file: store.name, ...opened });
  }

  /** Begins one request. */
  act(): void {
    const range = this.#range();
    const { offset, bytes } = range;
    if ([...this.#busy].some((other) => other.offset < offset + bytes && offset < other.end))
      return;
    const held = { offset, end: offset + bytes };
    this.#busy.add(held);
    this.requests++;
    this.#request(offset, bytes)
      .catch((error) => {
        this.#failure ??= error;
      })
      .finally(() => this.#busy.delete(held));
  }

  /** @throws what a request has found out since the last call */
  check(): void {
    if (this.#failure !== null) throw this.#failure;
  }

  /** Reads the whole disk. */
  async checkAll(): Promise<void> {
    const data = new Uint8Array(this.size);
    await this.disk.read(data, 0);
    this.#compare(data, 0);
  }

  async close(): Promise<void> {
    await this.#engine.graph.closeBackend(this.disk);
  }

  #open(node: string, name: string): BlockBackend {
    return this.#engine.graph.openBackend(this.#engine.graph.get(node), {
      name,
      description: `guest ${this.name}`,
      permissions: { take: Perm.consistentRead | Perm.write, share: Perm.all },
    });
  }

  async #request(offset: number, bytes: number): Promise<void> {
    const kind = this.#random.below(20);
    const { disk, model } = this;
    const say = (what: string) => this.#note(`guest ${this.name}: ${what} ${bytes} at ${offset}`);
    if (kind < 9) {
      const data = this.#data(bytes);
      say(`write ${data[0]}`);
      return settle(
        disk.write(data, offset),
        () => model.written(data, offset),
        () => model.writeFailed(data, offset),
      );
    }
    if (kind < 12) {
      const zeroes = new Uint8Array(bytes);
      say("zero");
      return settle(
        disk.writeZeroes(offset, bytes, { mayUnmap: this.#random.below(2) === 0 }),
        () => model.written(zeroes, offset),
        () => model.writeFailed(zeroes, offset),
      );
    }
    if (kind < 13) {
      say("discard");
      const gone = () => model.discarded(offset, bytes);
      return settle(disk.discard(offset, bytes), gone, gone);
    }
    if (kind < 14) {
      say("flush");
      return settle(disk.flush());
    }
    const data = new Uint8Array(bytes);
    say("read");
    return settle(disk.read(data, offset), () => this.#compare(data, offset));
  }

  #compare(data: Uint8Array, offset: number): void {
    const at = this.model.differs(data, offset);
    if (at >= 0) {
      const got = data[at - offset];
      throw new Error(
        `guest ${this.name} reads ${got} at ${at}, not ${this.model.values[at]}; ` +
          `chain ${this.chain.map((node) => node.name).join(" ")}`,
      );
    }
    this.model.learn(data, offset);
  }

  /** Bytes that tell which write they came from, most of the time. */
  #data(bytes: number): Uint8Array {
    return new Uint8Array(bytes).fill(1 + this.#random.below(255));
  }

  #range(): { offset: number; bytes: number } {
    const granule = [1, 512, CLUSTER][this.#random.below(3)]!;
    const offset = Math.floor(this.#random.below(this.size) / granule) * granule;
    const most = Math.min(REQUEST_MAX, this.size - offset);
    const bytes = Math.max(granule, Math.floor(this.#random.below(most + 1) / granule) * granule);
    return { offset, bytes: Math.min(bytes, this.size - offset) };
  }
}

/** Right after the request, in the next turn at the latest. Only the world may say no. */
function settle(
  request: Promise<void>,
  onDone: () => void = () => {},
  onFailed: () => void = () => {},
): Promise<void> {
  return request.then(onDone, (error) => {
    if (!(error instanceof BlockError)) throw error;
    onFailed();
  });
}
