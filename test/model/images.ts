/** Images of a simulation: made in stores with weather, with awkward filters here and there. */

import { BlockError } from "../../src/base/errors.ts";
import type { BlockdevOptions } from "../../src/block/options.ts";
import { Perm } from "../../src/block/permissions.ts";
import { MemoryStore } from "../../src/drivers/protocol/memory.ts";
import type { Engine } from "../../src/engine/engine.ts";
import type { Dice } from "./dice.ts";
import type { Weather } from "./weather.ts";

export const CLUSTER = 4096;
/** There from the start, for throttle nodes. */
export const THROTTLE_GROUP = "g0";
/** How the names of filters begin that are here to stay. */
export const LASTING = "x-";

/** tiny: all that io.ts deals with, and nothing else; its table is gone when it is closed. */
export type Format = "tiny" | "qcow2";

export interface ImageInit {
  readonly name: string;
  readonly format: Format;
  readonly size: number;
  /** Node below; the header names its image. */
  readonly backing?: string | null;
  /** The header names this image, although nothing is opened below. */
  readonly label?: string;
}

export class Images {
  /** What headers say that was made for an image which has not come to stand where it should. */
  readonly stale = new Set<string>();
  readonly #engine: Engine;
  readonly #weather: Weather;
  readonly #dice: Dice;

  constructor(engine: Engine, weather: Weather, dice: Dice) {
    this.#engine = engine;
    this.#weather = weather;
    this.#dice = dice;
  }

  /** An empty image, opened. @throws BlockError in a storm */
  async make({ name, format, size, backing = null, label }: ImageInit): Promise<void> {
    const { graph } = this.#engine;
    this.#weather.stores.set(name, new MemoryStore(0));
    const store: BlockdevOptions = { driver: "weather", name };
    if (format === "tiny") {
      const tiny = { driver: "tiny", "cluster-size": CLUSTER, size };
      const below = backing === null ? {} : { backing };
      await graph.add({ ...tiny, "node-name": name, file: this.#filtered(name, store), ...below });
      return;
    }
    const file = await graph.add({ ...store, "node-name": `${name}-file` });
    const named = backing === null ? label : `weather:${backing}`;
    await this.#format(file.name, size, named);
    await graph.add({
      driver: "qcow2",
      "node-name": name,
      file: this.#filtered(name, file.name),
      backing,
      discard: this.#dice.pick(["unmap", "ignore"]),
    });
  }

  /** A filter above a node, that stays there. */
  async filter(name: string, below: string): Promise<string> {
    const node = `${LASTING}${name}`;
    const copying = { driver: "copy-on-read", file: below };
    const filter = this.#dice.pick([throttled(below), this.#awkward(below), copying]);
    await this.#engine.graph.add({ ...filter, "node-name": node });
    return node;
  }

  async #format(file: string, size: number, label: string | undefined): Promise<void> {
    const { graph } = this.#engine;
    const maker = graph.openBackend(graph.get(file), {
      name: "",
      description: "the maker",
      permissions: { take: Perm.consistentRead | Perm.write | Perm.resize, share: Perm.none },
    });
    const subclusters = { "cluster-size": 4 * CLUSTER, "extended-l2": true };
    const options = {
      size,
      ...(this.#dice.oneIn(4) ? subclusters : { "cluster-size": CLUSTER }),
      ...(label !== undefined && { "backing-file": label, "backing-fmt": "qcow2" }),
    };
    const { create } = graph.driver("qcow2");
    try {
      await create!({ world: graph.world, options: options as never, file: maker.edge });
    } finally {
      await graph.closeBackend(maker);
    }
  }

  #filtered(name: string, file: BlockdevOptions | string): BlockdevOptions | string {
    if (!this.#dice.oneIn(8)) return file;
    return { ...this.#awkward(file), "node-name": `${LASTING}${name}-file` };
  }

  /** Cuts requests into small pieces, in its own manner. */
  #awkward(image: BlockdevOptions | string): BlockdevOptions {
    return {
      driver: "blkdebug",
      image,
      "max-transfer": this.#dice.pick([512, 4096, 6144]),
      ...(this.#dice.oneIn(2) && { "opt-write-zero": 4096, "max-write-zero": 4096 }),
    } as BlockdevOptions;
  }
}

function throttled(file: string): BlockdevOptions {
  return { driver: "throttle", "throttle-group": THROTTLE_GROUP, file };
}

/** What the world has said no to is undefined; bugs go on. */
export async function tolerant<T>(work: Promise<T>): Promise<T | undefined> {
  try {
    return await work;
  } catch (error) {
    if (error instanceof BlockError) return undefined;
    throw error;
  }
}
