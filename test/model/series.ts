/**
 * Incremental backups of one disk, the way a backup program makes them: a full one and a bitmap from
 * the same moment, then rounds that copy what is dirty onto the last one that is good.
 *
 *     disk      ──┬────────┬──────────┬──▶        each target stands on the one before, and reads
 *     targets    full ◀── inc1 ◀──── inc2         as the disk did when its round began
 *
 * Now and then the bitmap is split in two and put together again; several ways of doing so are
 * transactions, and some of those are called off.
 */

import type { ModelDisk } from "./disk.ts";
import type { Guest } from "./guest.ts";
import { readNode } from "./jobs.ts";
import type { Life, Outcome } from "./life.ts";
import type { Scene, Starters } from "./starters.ts";
import type { Talk } from "./talk.ts";

/** No bitmap tells smaller pieces apart. */
const SECTOR = 512;

type Mode = "incremental" | "on-success" | "always" | "never";
const MODES: readonly Mode[] = ["incremental", "on-success", "always", "always", "never"];

export class Series {
  readonly guest: Guest;
  readonly #scene: Scene;
  readonly #starters: Starters;
  /** The node whose writes the bitmaps record; null: there is no series. */
  #node: string | null = null;
  /** Together they have all that has changed since `base` was the disk. The first one is used. */
  #bitmaps: string[] = [];
  #base: string | null = null;
  /** What `base` holds; null if nobody knows, because it was not finished. */
  #baseDisk: ModelDisk | null = null;
  #isBusy = false;
  /** Whose bitmap keeps what was not copied. */
  #round: Life | null = null;

  constructor(guest: Guest, scene: Scene, starters: Starters) {
    this.guest = guest;
    this.#scene = scene;
    this.#starters = starters;
  }

  get isGood(): boolean {
    return this.#base !== null && !this.#isBusy && this.guest.top.name === this.#node;
  }

  get bitmaps(): readonly string[] {
    return this.#bitmaps;
  }

  /** @throws BlockError if a storm hits the making of a target */
  async act(talk: Talk): Promise<void> {
    if (this.#isBusy) return;
    // What is written elsewhere is not recorded.
    if (this.#node !== null && this.guest.top.name !== this.#node) this.#forget(talk);
    if (this.#node === null) return this.#begin(talk);
    const { dice } = this.#scene;
    if (this.#bitmaps.length > 1) return this.#join(talk);
    if (dice.oneIn(4)) return this.#split(talk);
    if (dice.oneIn(12)) return this.#forget(talk);
    return this.#copyChanges(talk);
  }

  /** Right when somebody's write is being saved, a round is called off that has to remember that. */
  disturb(talk: Talk): void {
    const round = this.#round;
    if (!round || round.isOver || !this.guest.isBusy) return;
    round.group.isCancelAsked = true;
    talk.send("job-cancel", { id: round.id });
  }

  async #begin(talk: Talk): Promise<void> {
    const { name, dice } = this.#scene;
    const node = this.guest.top.name;
    const bitmap = name("b");
    const target = await this.#makeTarget(null);
    const onEnd = (outcome: Outcome, life: Life) => {
      this.#isBusy = false;
      if (outcome === "completed" && life.isOfDisk) this.#baseOn(target, life.copy);
      else this.#forget(talk);
    };
    const order = this.#starters.order("backup", this.guest, { device: node, target, onEnd });
    const args = { ...order.args, target, sync: "full" };
    const isPersistent = this.guest.top.driver.name === "qcow2" && dice.oneIn(2);
    const add = {
      type: "block-dirty-bitmap-add",
      data: {
        node,
        name: bitmap,
        ...(dice.oneIn(2) && { granularity: dice.pick([512, 4096, 16384]) }),
        ...(isPersistent && { persistent: true }),
      },
    };
    const backup = {
      type: "blockdev-backup",
      data: { ...args, ...this.#starters.backupManners() },
    };
    const actions = dice.oneIn(2) ? [add, backup] : [backup, add];
    this.#isBusy = true;
    this.#node = node;
    this.#bitmaps = [bitmap];
    this.#starters.transaction(talk, actions, [order], false, (isDone) => {
      if (isDone) return;
      this.#isBusy = false;
      this.#drop();
    });
  }

  async #copyChanges(talk: Talk): Promise<void> {
    const { dice } = this.#scene;
    const target = await this.#makeTarget(this.#base);
    const mode = dice.pick(MODES);
    const onEnd = (outcome: Outcome, life: Life) => this.#roundEnded(talk, mode, outcome, life);
    const device = this.#node!;
    const order = this.#starters.order("backup", this.guest, { device, target, onEnd });
    const sync = mode === "incremental" ? { sync: mode } : { sync: "bitmap", "bitmap-mode": mode };
    const args = {
      ...order.args,
      target,
      bitmap: this.#bitmaps[0],
      ...sync,
      ...this.#starters.backupManners(),
    };
    this.#isBusy = true;
    this.#round = mode === "always" ? order.life : null;
    order.life.onRefused = () => {
      this.#isBusy = false;
    };
    this.#starters.send(talk, "blockdev-backup", { life: order.life, args });
  }

  #roundEnded(talk: Talk, mode: Mode, outcome: Outcome, life: Life): void {
    this.#isBusy = false;
    if (outcome === "never started") return;
    // The bitmap is of this node, and so was the backup; but it was not of the guest's disk.
    if (!life.isOfDisk) return this.#forget(talk);
    const { target } = life.init;
    if (outcome === "completed") {
      if (mode !== "never") this.#baseOn(target!, life.copy);
    } else if (mode === "always") {
      // What it did copy is not in the bitmap any more.
      this.#baseOn(target!, null);
    }
  }

  /** From one moment on a second bitmap records. */
  #split(talk: Talk): void {
    const { name } = this.#scene;
    const node = this.#node!;
    const second = name("b");
    const [first] = this.#bitmaps;
    const actions = [
      { type: "block-dirty-bitmap-add", data: { node, name: second } },
      { type: "block-dirty-bitmap-disable", data: { node, name: first } },
    ];
    this.#change(talk, actions, () => this.#bitmaps.push(second));
  }

  #join(talk: Talk): void {
    const node = this.#node!;
    const [first, second] = this.#bitmaps;
    const actions = [
      { type: "block-dirty-bitmap-enable", data: { node, name: first } },
      { type: "block-dirty-bitmap-merge", data: { node, target: first, bitmaps: [second] } },
      this.#scene.dice.oneIn(2)
        ? { type: "block-dirty-bitmap-clear", data: { node, name: second } }
        : { type: "block-dirty-bitmap-disable", data: { node, name: second } },
      { type: "block-dirty-bitmap-remove", data: { node, name: second } },
    ];
    this.#change(talk, actions, () => this.#bitmaps.pop());
  }

  #change(talk: Talk, actions: readonly object[], done: () => void): void {
    this.#isBusy = true;
    this.#starters.transaction(talk, actions, [], false, (isDone) => {
      this.#isBusy = false;
      if (isDone) done();
    });
  }

  #forget(talk: Talk): void {
    for (const name of this.#bitmaps) {
      talk.send("block-dirty-bitmap-remove", { node: this.#node, name });
    }
    this.#drop();
  }

  #drop(): void {
    this.#node = null;
    this.#bitmaps = [];
    this.#base = null;
    this.#baseDisk = null;
  }

  #baseOn(target: string, disk: ModelDisk | null): void {
    this.#base = target;
    this.#baseDisk = disk;
  }

  async #makeTarget(backing: string | null): Promise<string> {
    const { name, dice, images } = this.#scene;
    const format = dice.oneIn(4) ? "qcow2" : "tiny";
    const target = name(format === "qcow2" ? "q" : "t");
    await images.make({ name: target, format, size: this.guest.size, backing });
    return target;
  }

  /** Wherever the disk is not what the last good backup holds, a bitmap says so. */
  async check(): Promise<void> {
    if (!this.isGood || this.#baseDisk === null) return;
    const { engine } = this.#scene;
    const { size, top } = this.guest;
    const [old, now] = [
      await readNode(engine, this.#base!, size),
      await readNode(engine, top.name, size),
    ];
    const bitmaps = this.#bitmaps.map((name) => top.bitmaps.get(name));
    for (let at = 0; at < size; at += SECTOR) {
      const isSame =
        Buffer.compare(old.subarray(at, at + SECTOR), now.subarray(at, at + SECTOR)) === 0;
      if (isSame || bitmaps.some((bitmap) => bitmap.isDirty(at))) continue;
      throw new Error(
        `Sector ${at} of guest ${this.guest.name} has changed since ${this.#base} was copied, but ` +
          `${this.#bitmaps.join(", ")} of ${top.name} do not know`,
      );
    }
  }
}
