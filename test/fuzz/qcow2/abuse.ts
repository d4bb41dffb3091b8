/**
 * All that can be done to one image, in a random order. Whatever the image says:
 *
 *   1. only BlockErrors come out
 *   2. no operation asks for more of its files than the size of the file explains
 *   3. reading changes nothing in the file
 *   4. no name inside the image is followed
 *   5. wasm memory is given back
 *   6. an image that was clean is not corrupt afterwards, and reads as it must
 */

import { alignDown } from "../../../src/base/bytes.ts";
import { BlockError } from "../../../src/base/errors.ts";
import { VirtualClock } from "../../../src/base/virtual-clock.ts";
import type { BlockBackend } from "../../../src/block/backend.ts";
import { checkNode } from "../../../src/block/check.ts";
import { Graph } from "../../../src/block/graph.ts";
import { Perm } from "../../../src/block/permissions.ts";
import { qcow2Driver } from "../../../src/drivers/format/qcow2/index.ts";
import type { Dice } from "../../model/dice.ts";
import { testWorld } from "../../world.ts";
import { abuseWithImg, type FuzzWorld } from "./img.ts";
import { judge, type Verdict } from "./judge.ts";
import { PASSPHRASE, SECRET } from "./luks.ts";
import { Model } from "./model.ts";
import { FuzzStores, traps } from "./store.ts";

export interface Case {
  readonly bytes: Uint8Array;
  readonly dataFile: Uint8Array | null;
  /** It takes luks.ts' passphrase. */
  readonly encrypted: boolean;
}

/** All that is ever opened; the last two by `img`. */
const NAMES = ["image", "data", "base", "out"];

/** Runs of a map, and of pieces of reads, of which no more are looked at. */
const RUNS_MAX = 400;
const READ_BYTES_MAX = 2 ** 18;
/** Whatever the file's size, and for each of its sectors. */
const REQUESTS_BASE = 4000;
const REQUESTS_PER_SECTOR = 24;
const BYTES_BASE = 96 * 2 ** 20;

export class Abuser {
  readonly stores = new FuzzStores();
  /** What came out, by kind. */
  readonly kinds: Map<string, number>;
  readonly #world: FuzzWorld;
  readonly graph: Graph;
  readonly #freeBytes: number;
  #hasData = false;
  encrypted = false;
  #verdict: { readonly changes: number; readonly verdict: Verdict } | null = null;

  static async start(kinds: Map<string, number>): Promise<Abuser> {
    const clock = new WatchedClock();
    const abuser = new Abuser(kinds, await testWorld({ clock }));
    clock.onLook = () => abuser.stores.looked();
    return abuser;
  }

  constructor(kinds: Map<string, number>, world: FuzzWorld) {
    this.kinds = kinds;
    this.#world = world;
    this.#freeBytes = world.kernel.freeBytes;
    this.graph = new Graph(world, [qcow2Driver(), this.stores.driver(), ...traps()] as never);
    this.graph.secrets.add(SECRET, new TextEncoder().encode(PASSPHRASE));
    this.graph.secrets.add("other", new TextEncoder().encode("swordfish"));
  }

  /** @throws Error if anything of the above does not hold */
  async run(given: Case, dice: Dice, story: string[]): Promise<void> {
    const { bytes, dataFile, encrypted } = given;
    const { stores } = this;
    stores.clear();
    stores.put("image", bytes);
    this.#verdict = null;
    if (dataFile) stores.put("data", dataFile);
    this.#hasData = dataFile !== null;
    this.encrypted = encrypted;
    const before = this.#judge();
    const isClean = before.corruptions.length + before.passedOver.length === 0;
    this.#tell(`${isClean ? "clean" : "broken"} images`);

    const reading = await this.#open(true);
    if (encrypted) this.#tell(`LUKS, ${reading ? "opened to read" : "not opened"}`);
    if (reading) {
      this.#tell("opened to read");
      await new Visit(this, reading, dice, null, story).look();
      await this.#close(reading);
    }
    if (stores.changes > 0) throw new Error("reading has changed the file");
    this.#checkMemory();

    await this.#check(true, isClean && reading !== null);
    if (stores.changes > 0) throw new Error("checking has changed the file");

    const model = isClean && reading ? new Model(0) : null;
    for (let round = 0; round < 2; round++) {
      // Most of what there is to find shows the first time.
      if (round > 0 && !dice.oneIn(3)) break;
      const writing = await this.#open(false);
      if (!writing) break;
      this.#tell("opened to write");
      const visit = new Visit(this, writing, dice, model, story);
      if (round === 0) await visit.learn();
      else await visit.verify();
      await visit.harm();
      await visit.verify();
      await this.#close(writing);
      this.#checkMemory();
      if (model) this.#checkStillClean();
    }
    if (model) await this.#check(true, true);
    stores.put("image", bytes);
    this.#verdict = null;
    await this.#check(false, isClean && reading !== null);
    // One in two: it costs as much as all the rest.
    if (dice.oneIn(2)) {
      stores.put("image", bytes);
      const image = { encrypted, isClean };
      await abuseWithImg(this.#world, stores, image, dice, story, (kind) => this.#tell(kind));
      this.#checkMemory();
    }
    for (const name of stores.opened) {
      if (!NAMES.includes(name)) throw new Error(`'${name}' was opened`);
    }
    stores.clear();
  }

  /** What the image is by its bytes; looked at anew when something was written. */
  #judge(): Verdict {
    const { changes } = this.stores;
    if (this.#verdict?.changes !== changes) {
      this.#verdict = { changes, verdict: judge(this.stores.source("image")) };
    }
    return this.#verdict.verdict;
  }

  /** Our own check, which must not call clean what the judge does not; a repair must do what it says. */
  async #check(readOnly: boolean, isClean: boolean): Promise<void> {
    const operation = readOnly ? "check" : "repair";
    const outcome = await this.attempt(operation, async () => {
      const node = await this.graph.addForCheck({
        driver: "qcow2",
        "node-name": "checked",
        "read-only": readOnly,
        file: { driver: "fuzz-store", name: "image" },
        ...(this.#hasData && { "data-file": { driver: "fuzz-store", name: "data" } }),
      });
      try {
        return await checkNode(node, { fix: readOnly ? "none" : "all" });
      } finally {
        await this.graph.remove("checked");
      }
    });
    this.#checkMemory();
    if (!outcome) {
      if (isClean && readOnly) throw new Error("a clean image cannot be checked");
      return;
    }
    const { corruptions, "check-errors": errors } = outcome.result;
    const { corruptions: wrong } = this.#judge();
    const ours = corruptions + errors === 0;
    this.#tell(`${operation} says ${ours ? "clean" : "corrupt"}`);
    if (ours === (wrong.length === 0)) return;
    const theirs = wrong.length === 0 ? "clean" : wrong.join("; ");
    throw new Error(`${operation} says ${ours ? "clean" : "corrupt"}, the judge says ${theirs}`);
  }

  #checkStillClean(): void {
    const { corruptions, passedOver } = this.#judge();
    const wrong = [...corruptions, ...passedOver];
    if (wrong.length > 0) throw new Error(`a clean image is corrupt now: ${wrong.join("; ")}`);
  }

  #checkMemory(): void {
    const { freeBytes } = this.#world.kernel;
    if (freeBytes !== this.#freeBytes) {
      throw new Error(`${this.#freeBytes - freeBytes} bytes of wasm memory were not given back`);
    }
    if (this.graph.nodes.length > 0) throw new Error("a node was left open");
  }

  async #open(readOnly: boolean): Promise<BlockBackend | null> {
    const store = (name: string) => ({ driver: "fuzz-store", name });
    return this.attempt("open", async () => {
      const node = await this.graph.addForUsers({
        driver: "qcow2",
        "node-name": "disk",
        "read-only": readOnly,
        file: store("image"),
        backing: null,
        ...(this.#hasData && { "data-file": store("data") }),
        ...(this.encrypted && { encrypt: { format: "luks", "key-secret": SECRET } }),
      });
      return this.graph.openBackend(node, {
        name: "fuzz",
        description: "the fuzzer",
        permissions: { take: readOnly ? Perm.consistentRead : Perm.all, share: Perm.all },
      });
    });
  }

  async #close(backend: BlockBackend): Promise<void> {
    await this.attempt("close", () => this.graph.closeBackend(backend));
  }

  /** @returns null if a BlockError came out */
  async attempt<T>(operation: string, work: () => Promise<T>): Promise<T | null> {
    const sectors = this.stores.length("image") / 512;
    this.stores.expect(operation, {
      requests: REQUESTS_BASE + REQUESTS_PER_SECTOR * sectors,
      bytes: BYTES_BASE,
    });
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
      this.#tell(`${error.errno} of ${operation}`);
      return null;
    }
  }

  #tell(kind: string): void {
    this.kinds.set(kind, (this.kinds.get(kind) ?? 0) + 1);
  }
}

class WatchedClock extends VirtualClock {
  onLook = (): void => {};

  override now(): number {
    this.onLook();
    return super.now();
  }
}

interface Taken {
  readonly id: string;
  readonly model: Model | null;
  readonly length: number;
}

/** One opening of one image. */
class Visit {
  readonly #abuser: Abuser;
  readonly #backend: BlockBackend;
  readonly #dice: Dice;
  readonly #model: Model | null;
  readonly #story: string[];
  readonly #taken: Taken[] = [];

  constructor(
    abuser: Abuser,
    backend: BlockBackend,
    dice: Dice,
    model: Model | null,
    story: string[],
  ) {
    this.#abuser = abuser;
    this.#backend = backend;
    this.#dice = dice;
    this.#model = model;
    this.#story = story;
  }

  get #state() {
    return this.#backend.node.state;
  }

  /** All that changes nothing. */
  async look(): Promise<void> {
    await this.#try("info", async () => this.#state.info?.());
    await this.#try("map", () => this.#map());
    await this.#try("snapshot list", async () => this.#state.snapshots?.list());
    await this.#try("bitmap list", async () => {
      await this.#state.bitmapStore?.list();
    });
    await this.#read(0, Math.min(this.#backend.length, READ_BYTES_MAX));
    const tail = Math.max(0, this.#backend.length - 70_000);
    await this.#read(tail, this.#backend.length - tail);
    const middle = this.#offset();
    await this.#read(middle, Math.min(100_000, this.#backend.length - middle));
  }

  async #map(): Promise<void> {
    const { length } = this.#backend;
    for (let at = 0, runs = 0; at < length && runs < RUNS_MAX; runs++) {
      const { bytes } = await this.#backend.status(at, length - at);
      if (!(bytes > 0 && at + bytes <= length)) throw new Error(`a run of ${bytes} bytes at ${at}`);
      at += bytes;
    }
  }

  /** In pieces that end anywhere. */
  async #read(offset: number, bytes: number): Promise<void> {
    for (let done = 0; done < bytes; ) {
      const piece = new Uint8Array(Math.min(bytes - done, 1 + this.#dice.below(70_000)));
      const at = offset + done;
      await this.#try("read", () => this.#backend.read(piece, at));
      done += piece.length;
    }
  }

  /** Fills the model with what the disk reads as now. */
  async learn(): Promise<void> {
    const model = this.#model;
    if (!model) return;
    model.resize(this.#backend.length);
    model.forget(0, model.length);
    const learn = async (at: number, bytes: number): Promise<void> => {
      const piece = new Uint8Array(bytes);
      const done = await this.#try("read", async () => {
        await this.#backend.read(piece, at);
        return true;
      });
      if (done) model.set(at, piece);
      else if (bytes > 512) {
        for (let i = 0; i < bytes; i += 512) await learn(at + i, Math.min(512, bytes - i));
      }
    };
    for (let at = 0; at < model.length; at += 8192) {
      await learn(at, Math.min(8192, model.length - at));
    }
  }

  async verify(): Promise<void> {
    const model = this.#model;
    if (!model) return;
    for (let at = 0; at < model.length; ) {
      const piece = new Uint8Array(Math.min(1 + this.#dice.below(60_000), model.length - at));
      const from = at;
      const done = await this.#try("read", async () => {
        await this.#backend.read(piece, from);
        return true;
      });
      const wrong = done ? model.difference(at, piece) : -1;
      if (wrong >= 0) {
        const { [wrong]: wanted } = model.bytes;
        throw new Error(`byte ${wrong} of a clean disk is ${piece[wrong - at]}, not ${wanted}`);
      }
      at += piece.length;
    }
  }

  async harm(): Promise<void> {
    for (let i = 3 + this.#dice.below(8); i > 0; i--) await this.#step();
  }

  #offset(): number {
    const { length } = this.#backend;
    if (length === 0) return 0;
    const near = Math.min(length, 192 * 1024);
    if (!this.#dice.oneIn(4)) return this.#dice.below(near);
    return Math.floor((this.#dice.below(2 ** 31) / 2 ** 31) * length);
  }

  async #step(): Promise<void> {
    const dice = this.#dice;
    const offset = this.#offset();
    const { length } = this.#backend;
    const most = dice.pick([512, 5000, 70_000, 200_000]);
    const bytes = Math.min(1 + dice.below(most), length - offset);
    switch (dice.below(16)) {
      case 0:
      case 1:
      case 2:
      case 3:
        return this.#write(offset, bytes);
      case 4:
        return this.#zero(offset, bytes, dice.oneIn(2));
      case 5:
        return this.#discard(offset, bytes);
      case 6:
      case 7:
        return this.#pack(offset);
      case 8:
        return this.#takeSnapshot();
      case 9:
        return this.#applySnapshot();
      case 10:
        return this.#deleteSnapshot();
      case 11:
        return this.#resize();
      case 12:
        await this.#try("flush", () => this.#backend.flush());
        return;
      case 13:
        return this.#relabel();
      case 14:
        return this.#amend();
      default:
        return this.#read(offset, bytes);
    }
  }

  async #write(offset: number, bytes: number): Promise<void> {
    const data = new Uint8Array(bytes).fill(this.#dice.below(256));
    this.#dice.random.fill(data.subarray(0, 40));
    const isDone = await this.#done("write", offset, bytes, () =>
      this.#backend.write(data, offset),
    );
    if (isDone) this.#model?.set(offset, data);
  }

  async #zero(offset: number, bytes: number, mayUnmap: boolean): Promise<void> {
    const isDone = await this.#done("zero write", offset, bytes, () =>
      this.#backend.writeZeroes(offset, bytes, { mayUnmap }),
    );
    if (isDone) this.#model?.zero(offset, bytes);
  }

  async #discard(offset: number, bytes: number): Promise<void> {
    await this.#done("discard", offset, bytes, () => this.#backend.discard(offset, bytes));
    // It may read as anything now.
    this.#model?.forget(offset, bytes);
  }

  async #pack(offset: number): Promise<void> {
    const { clusterSize } = this.#state.limits;
    const start = alignDown(offset, clusterSize);
    const data = new Uint8Array(Math.min(clusterSize, this.#backend.length - start));
    data.fill(this.#dice.below(256));
    this.#dice.random.fill(data.subarray(0, this.#dice.pick([0, 40, clusterSize])));
    const isDone = await this.#done("compressed write", start, data.length, () =>
      this.#backend.writeCompressed(data, start),
    );
    if (isDone) this.#model?.set(start, data);
  }

  async #takeSnapshot(): Promise<void> {
    const name = this.#dice.pick(["s", "%s%n", "", "x".repeat(300), `s${this.#dice.below(99)}`]);
    const info = await this.#try("snapshot create", async () =>
      this.#state.snapshots?.create(name, { seconds: 1, nanoseconds: 2 }),
    );
    if (!info) return;
    const model = this.#model?.copy() ?? null;
    this.#taken.push({ id: info.id, model, length: this.#backend.length });
  }

  async #listed(): Promise<readonly { readonly id: string }[]> {
    const list = await this.#try("snapshot list", async () => this.#state.snapshots?.list());
    return list ?? [];
  }

  async #applySnapshot(): Promise<void> {
    const list = await this.#listed();
    if (list.length === 0) return;
    const { id } = this.#dice.pick(list);
    const isDone = await this.#try("snapshot apply", async () => {
      await this.#state.snapshots?.apply(id);
      return true;
    });
    const model = this.#model;
    if (!isDone || !model) return;
    // Ids are used again.
    const taken = this.#taken.findLast((other) => other.id === id);
    model.resize(this.#backend.length);
    model.forget(0, model.length);
    if (!taken?.model || taken.length !== this.#backend.length) return;
    model.restore(taken.model);
  }

  async #deleteSnapshot(): Promise<void> {
    const list = await this.#listed();
    if (list.length === 0) return;
    const { id } = this.#dice.pick(list);
    await this.#try("snapshot delete", async () => this.#state.snapshots?.delete(id));
  }

  async #resize(): Promise<void> {
    const dice = this.#dice;
    const { length } = this.#backend;
    // With a raw data file all that is new gets its tables at once.
    const isWide = !this.#backend.node.children.has("data-file");
    const far = isWide ? 2 ** 40 : 2 ** 21;
    const by = dice.pick([512, 65536, 2 ** 20, -512, -65536, far, 1]);
    const to = Math.max(
      0,
      dice.oneIn(4) ? dice.below(isWide ? 2 ** 20 : 2 ** 12) * 512 : length + by,
    );
    const isDone = await this.#done("resize", 0, 0, () => this.#backend.truncate(to));
    if (isDone) this.#model?.resize(to);
    else if (this.#backend.length === to && to < length) this.#model?.resize(to);
    else if (this.#backend.length !== length) throw new Error("a resize that failed has resized");
  }

  async #amend(): Promise<void> {
    const dice = this.#dice;
    const { encrypted, graph } = this.#abuser;
    const encrypt = dice.pick([
      { state: "active", "new-secret": "other", "iter-time": 0 },
      { state: "inactive", "old-secret": "other" },
      { state: "inactive", keyslot: dice.below(9) },
    ]);
    const change = encrypted
      ? { encrypt: { format: "luks", ...encrypt } }
      : { version: dice.pick(["v2", "v3"]) };
    await this.#try(encrypted ? "amend of keys" : "amend", async () => {
      await this.#state.amend?.(change as never, { force: false, secrets: graph.secrets });
    });
  }

  async #relabel(): Promise<void> {
    const name = this.#dice.pick([null, "json:{}", "x".repeat(1023), "../%s%n"]);
    await this.#try("change of the backing file", async () => {
      await this.#state.changeBackingFile?.(name, name === null ? null : "raw");
    });
  }

  /** @returns whether it was done; if not, nobody knows what the range reads as */
  async #done(
    operation: string,
    offset: number,
    bytes: number,
    work: () => Promise<void>,
  ): Promise<boolean> {
    const isDone = await this.#try(`${operation}`, async () => {
      await work();
      return true;
    });
    if (!isDone) this.#model?.forget(offset, bytes);
    return isDone === true;
  }

  #try<T>(operation: string, work: () => Promise<T>): Promise<T | null> {
    if (operation !== "read") this.#story.push(operation);
    return this.#abuser.attempt(operation, work);
  }
}
