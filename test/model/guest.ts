/**
 * A guest with one disk: reads, writes, zeroes, discards, flushes, many at a time, and never two at
 * the same bytes, as no sane guest does that. Some come in by a side door, below the filters of a
 * job; some are called off. It knows what it must read.
 */

import { BlockError } from "../../src/base/errors.ts";
import type { BlockBackend } from "../../src/block/backend.ts";
import { getLength } from "../../src/block/io.ts";
import type { BlockNode } from "../../src/block/node.ts";
import { Perm } from "../../src/block/permissions.ts";
import { chainOf, skipFilters } from "../../src/block/status.ts";
import type { Engine } from "../../src/engine/engine.ts";
import type { Dice } from "./dice.ts";
import { ModelDisk } from "./disk.ts";
import { type Knowledge, pickData, pickRange, pickRequest, type Range } from "./guest-request.ts";
import { CLUSTER, type Format, type Images, tolerant } from "./images.ts";

export interface GuestInit {
  readonly name: string;
  readonly engine: Engine;
  readonly images: Images;
  readonly dice: Dice;
  readonly size: number;
  readonly format: Format;
  /** Nothing ever fails by itself here. */
  readonly isCalm: boolean;
  readonly note: (line: string) => void;
}

export class Guest implements Knowledge {
  readonly name: string;
  readonly format: Format;
  readonly model: ModelDisk;
  /** Snapshots that are being taken: what is written meanwhile may be in them. */
  readonly shadows = new Set<ModelDisk>();
  /** Nodes that were opened read-only, and shall be again when they are below others. */
  readonly readOnly = new Set<string>();
  requests = 0;
  /** So many want it to keep still. */
  holds = 0;
  /** So many may put an overlay above its node: nobody may write below that. */
  sideBans = 0;
  /** So many rely on its top layer being the same for a while. */
  snapshotBans = 0;
  /** Its disk is being taken away. */
  isLeaving = false;
  isResizing = false;
  readonly #init: GuestInit;
  readonly #dice: Dice;
  readonly #busy = new Set<Range>();
  #disk: BlockBackend | null = null;
  #side: BlockBackend | null = null;
  #lastChain: readonly BlockNode[] = [];
  #failure: unknown = null;

  constructor(init: GuestInit) {
    this.#init = init;
    this.#dice = init.dice;
    this.name = init.name;
    this.format = init.format;
    this.model = new ModelDisk(init.size);
  }

  get size(): number {
    return this.model.size;
  }

  /** What QMP calls it. */
  get device(): string {
    return `disk-${this.name}`;
  }

  get isBusy(): boolean {
    return this.#busy.size > 0;
  }

  /** Layers from the top down, filters left out; when the disk is gone, as they were at last. */
  get chain(): readonly BlockNode[] {
    if (this.#disk) this.#lastChain = chainOf(this.#disk.node);
    return this.#lastChain;
  }

  get top(): BlockNode {
    return this.chain[0]!;
  }

  /** Where the guest stands: its top layer, or a filter above that. */
  get root(): BlockNode {
    return this.#disk!.node;
  }

  /** Every layer has data of its own, and is what the guest read before the next one was added. */
  async makeChain(layers: number): Promise<void> {
    const { engine, images, format } = this.#init;
    let below: string | null = null;
    for (let i = 0; i < layers; i++) {
      const name: string = `${this.name}${i}`;
      await images.make({ name, format, size: this.size, backing: below });
      await this.#fill(name);
      if (i < layers - 1 && this.#dice.oneIn(2)) {
        await engine.graph.reopen(engine.graph.get(name), { readOnly: true });
        this.readOnly.add(name);
      }
      below = name;
    }
    const root = this.#dice.oneIn(4) ? await images.filter(this.name, below!) : below!;
    const device = { type: "message-port", id: this.device, nodeName: root, writable: true };
    this.#disk = (await engine.exports.add(device)).backend;
  }

  async #fill(name: string): Promise<void> {
    const filler = this.#open(name, "");
    const write = async ({ offset, bytes }: Range) => {
      const data = pickData(this.#dice, bytes);
      await filler.write(data, offset);
      this.model.written(data, offset);
    };
    // Like a chequerboard, so that jobs find many small pieces; or here and there.
    if (this.#dice.oneIn(3)) {
      const step = 2 * CLUSTER;
      const first = CLUSTER * this.#dice.below(2);
      for (let offset = first; offset < this.size; offset += step) {
        await write({ offset, bytes: CLUSTER });
      }
    }
    for (let n = this.#dice.below(12); n > 0; n--) await write(pickRange(this.#dice, this.size));
    await this.#init.engine.graph.closeBackend(filler);
  }

  /** Begins one request. */
  act(): void {
    if (this.holds > 0 || this.isLeaving) return;
    const range = pickRange(this.#dice, this.size);
    const { offset, bytes } = range;
    for (const other of this.#busy) {
      if (other.offset < offset + bytes && offset < other.offset + other.bytes) return;
    }
    this.#busy.add(range);
    this.requests++;
    this.#request(range)
      .catch((error) => {
        this.#failure ??= error;
      })
      .finally(() => this.#busy.delete(range));
  }

  /** Opens or closes the side door; a job may not allow it. */
  async toggleSide(): Promise<void> {
    const side = this.#side;
    this.#side = null;
    if (side) await this.#init.engine.graph.closeBackend(side);
    else if (!this.isLeaving && this.sideBans === 0) {
      this.#side = this.#open(this.top.name, `side-${this.name}`);
    }
  }

  get hasSide(): boolean {
    return this.#side !== null;
  }

  /** Looks how long the disk is: a resize may have come to something, whatever it told. */
  measure(): void {
    if (!this.#disk) return;
    const length = getLength(this.root);
    if (length < this.size) {
      throw new Error(`Guest ${this.name} has ${length} bytes only, not ${this.size}`);
    }
    this.model.resize(length);
  }

  /** The disk is one of these and no mixture: keeps still until it has been read. */
  becomeOneOf(disks: readonly ModelDisk[]): void {
    this.holds++;
    this.#tellApart(disks).catch((error) => {
      this.#failure ??= error;
    });
  }

  async #tellApart(disks: readonly ModelDisk[]): Promise<void> {
    const { clock } = this.#init.engine;
    while (!this.isLeaving) {
      const disk = this.#disk!;
      const data = new Uint8Array(disk.length);
      const isRead = await tolerant(disk.read(data, 0).then(() => true));
      if (!isRead) {
        await new Promise<void>((done) => clock.setTimer(100, done));
        continue;
      }
      const found = disks.find((one) => one.size === data.length && one.differs(data, 0) < 0);
      if (!found) throw new Error(`Guest ${this.name} has a disk that is neither old nor new`);
      this.model.become(found);
      this.model.learn(data, 0);
      break;
    }
    this.holds--;
  }

  /** @throws what a request has found out since the last call */
  check(): void {
    if (this.#failure !== null) throw this.#failure;
    for (const { name } of this.chain.slice(0, 1)) this.readOnly.delete(name);
  }

  /** Reads the whole disk. */
  async checkAll(): Promise<void> {
    const data = new Uint8Array(this.size);
    await this.#disk!.read(data, 0);
    this.compare(data, 0);
  }

  /** Right before the disk goes. */
  sayGoodbye(): void {
    this.#lastChain = chainOf(this.root);
    this.#disk = null;
  }

  /** @throws if the disk cannot hold this */
  compare(data: Uint8Array, offset: number): void {
    const at = this.model.differs(data, offset);
    if (at >= 0) {
      const chain = this.chain.map((node) => node.name).join(" ");
      const got = data[at - offset];
      throw new Error(
        `guest ${this.name} reads ${got} at ${at}, not ${this.model.at(at)}; chain ${chain}`,
      );
    }
    this.model.learn(data, offset);
  }

  #open(node: string, name: string): BlockBackend {
    const { graph } = this.#init.engine;
    return graph.openBackend(graph.get(node), {
      name,
      description: `guest ${this.name}`,
      permissions: { take: Perm.consistentRead | Perm.write, share: Perm.all },
    });
  }

  async #request(range: Range): Promise<void> {
    const door = this.#side && this.#dice.oneIn(3) ? this.#side : this.#disk!;
    const stop = this.#dice.oneIn(25) ? this.#stopper() : undefined;
    const { what, send, ended } = pickRequest(this.#dice, range);
    const isSide = door === this.#side;
    const how = `${isSide ? " from the side" : ""}${stop ? ", in doubt" : ""}`;
    this.#init.note(`guest ${this.name}: ${what} ${range.bytes} at ${range.offset}${how}`);
    // The side door stays where it is when a job moves the disk elsewhere.
    const isOurs = () => !isSide || skipFilters(door.node) === this.top;
    // Right after the request, in the next turn at the latest. Only the world may say no.
    await send(door, stop ? { signal: stop } : {}).then(
      () => {
        if (isOurs()) ended(this, true);
      },
      (error) => {
        if (!(error instanceof BlockError)) throw error;
        const isShut = door !== this.#disk && door !== this.#side;
        if (isOurs()) ended(this, false);
        if (this.#init.isCalm && !stop?.aborted && !isShut && isOurs()) throw error;
      },
    );
  }

  written(data: Uint8Array, offset: number, isSure: boolean): void {
    if (isSure) this.model.written(data, offset);
    else this.model.maybeWritten(data, offset);
    for (const shadow of this.shadows) shadow.maybeWritten(data, offset);
  }

  discarded(offset: number, bytes: number): void {
    this.model.discarded(offset, bytes);
    for (const shadow of this.shadows) shadow.discarded(offset, bytes);
  }

  /** Raised sooner or later. */
  #stopper(): AbortSignal {
    const stop = new AbortController();
    const { clock } = this.#init.engine;
    clock.setTimer(this.#dice.pick([0, 1, 10, 100]), () => stop.abort());
    return stop.signal;
  }
}
