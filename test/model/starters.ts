/** Starts jobs of every type, with options of every kind: some fit, and some are refused. */

import type { Engine } from "../../src/engine/engine.ts";
import type { Dice } from "./dice.ts";
import type { Guest } from "./guest.ts";
import type { Images } from "./images.ts";
import type { Jobs } from "./jobs.ts";
import type { Group, Life, LifeInit } from "./life.ts";
import type { Talk } from "./talk.ts";

export const POLICIES = ["report", "ignore", "stop", "enospc"] as const;
export const SPEEDS = [0, 0, 0, 1, 4096, 65536, 1048576];

/** What a simulation is made of. */
export interface Scene {
  readonly engine: Engine;
  readonly dice: Dice;
  readonly images: Images;
  readonly jobs: Jobs;
  readonly guests: readonly Guest[];
  /** A name that nobody has yet. */
  name(prefix: string): string;
}

/** A job's command, or an action of a transaction, that has not been sent. */
export interface Order {
  readonly life: Life;
  readonly args: Record<string, unknown>;
}

/** Anything that is true of a job before it is made. */
type Known = Partial<Pick<LifeInit, "device" | "target" | "isActive" | "isEndless" | "onEnd">>;

export class Starters {
  readonly #scene: Scene;

  constructor(scene: Scene) {
    this.#scene = scene;
  }

  /** @throws BlockError if a storm hits the making of a target */
  async start(talk: Talk, guest: Guest): Promise<void> {
    const starters = [
      this.#stream,
      this.#stream,
      this.#commit,
      this.#commit,
      this.#mirror,
      this.#mirror,
      this.#backup,
      this.#driveBackup,
      this.#transaction,
    ];
    await this.#scene.dice.pick(starters).call(this, talk, guest);
  }

  /** What all block jobs have in common. */
  order(type: string, guest: Guest, known: Known = {}): Order {
    const { dice, jobs, name } = this.#scene;
    // Without an id the job is called like the device, or cannot be called.
    const isNamed = known.device !== undefined || !dice.oneIn(8) || !jobs.isFree(guest.device);
    const device = known.device ?? (isNamed ? this.#device(guest) : guest.device);
    const id = isNamed ? name(type) : device;
    const autoFinalize = !dice.oneIn(4);
    const autoDismiss = !dice.oneIn(4);
    const manners = { autoFinalize, autoDismiss };
    const life = jobs.expect({ id, type, guest, isBlock: true, ...manners, ...known, device });
    const args = {
      device,
      ...(isNamed && { "job-id": id }),
      speed: dice.pick(SPEEDS),
      ...(!autoFinalize && { "auto-finalize": false }),
      ...(!autoDismiss && { "auto-dismiss": false }),
      ...(dice.oneIn(4) && { "filter-node-name": name("f") }),
    };
    return { life, args };
  }

  #device(guest: Guest): string {
    const { dice } = this.#scene;
    return dice.pick([guest.device, guest.top.name, guest.top.name, guest.root.name]);
  }

  send(talk: Talk, command: string, { life, args }: Order): void {
    talk.send(command, args, (reply) => this.#scene.jobs.answered(life, reply));
  }

  #stream(talk: Talk, guest: Guest): void {
    const { dice } = this.#scene;
    const { chain } = guest;
    const { life, args } = this.order("stream", guest);
    const top = dice.below(Math.min(2, chain.length));
    const base = top + 1 + dice.below(chain.length);
    const range = {
      ...(args["job-id"] !== undefined && { device: chain[top]!.name }),
      ...(base < chain.length &&
        dice.pick([{ "base-node": chain[base]!.name }, { bottom: chain[base - 1]!.name }])),
    };
    const policy = { "on-error": dice.pick(POLICIES) };
    this.send(talk, "block-stream", { life, args: { ...args, ...policy, ...range } });
  }

  #commit(talk: Talk, guest: Guest): void {
    const { dice } = this.#scene;
    const { chain } = guest;
    if (chain.length < 2) return;
    const { life, args } = this.order("commit", guest);
    const top = dice.below(chain.length - 1);
    const base = top + 1 + dice.below(chain.length - top - 1);
    const range = {
      device: guest.device,
      ...((base < chain.length - 1 || dice.oneIn(2)) && { "base-node": chain[base]!.name }),
      ...((top > 0 || dice.oneIn(2)) && { "top-node": chain[top]!.name }),
    };
    const policy = { "on-error": dice.pick(POLICIES) };
    this.send(talk, "block-commit", { life, args: { ...args, ...policy, ...range } });
  }

  async #mirror(talk: Talk, guest: Guest): Promise<void> {
    const { dice, name } = this.#scene;
    const { chain, root, top } = guest;
    // Made to stand on what the disk stands on: nobody may put an overlay in between.
    const isTop = chain[1] && guest.sideBans === 0 && dice.oneIn(3);
    const below = isTop ? chain[1]!.name : null;
    if (isTop) guest.snapshotBans++;
    const target = await this.#target(guest, below);
    const isActive = dice.oneIn(2);
    // Who stands on another image changes with that one; only the guest can tell if it is right.
    const known = below === null ? { target } : {};
    const { life, args } = this.order("mirror", guest, { ...known, isActive });
    const replaced = dice.pick([top.name, root.name, chain.at(-1)!.name]);
    const own = {
      target: dice.oneIn(6) ? await this.#scene.images.filter(name("m"), target) : target,
      sync: below === null ? "full" : "top",
      ...this.policies(),
      ...(dice.oneIn(2) && { granularity: dice.pick([4096, 4096, 8192, 65536]) }),
      ...(isActive && { "copy-mode": "write-blocking" }),
      ...(dice.oneIn(3) && { "buf-size": 8192 }),
      ...(dice.oneIn(4) && { replaces: replaced }),
    };
    talk.send("blockdev-mirror", { ...args, ...own }, (reply) => {
      if (isTop) guest.snapshotBans--;
      this.#scene.jobs.answered(life, reply);
    });
  }

  async #backup(talk: Talk, guest: Guest): Promise<void> {
    this.send(talk, "blockdev-backup", await this.backupOrder(guest));
  }

  /** @throws BlockError if a storm hits the making of the target */
  async backupOrder(guest: Guest, isEndless = this.#scene.dice.oneIn(6)): Promise<Order> {
    const { dice } = this.#scene;
    const target = await this.#target(guest, null);
    const sync = isEndless ? "none" : "full";
    const { life, args } = this.order("backup", guest, isEndless ? { isEndless } : { target });
    const isPacked = target.startsWith("q") && dice.oneIn(4);
    return { life, args: { ...args, target, sync, ...this.backupManners(isPacked) } };
  }

  backupManners(isPacked = false): object {
    const { dice } = this.#scene;
    return {
      ...this.policies(),
      // What a broken snapshot lacks cannot be made up for: the job fails then.
      ...(dice.oneIn(2) && { "on-cbw-error": "break-snapshot" }),
      ...(isPacked && { compress: true }),
      ...(dice.oneIn(4) && {
        "x-perf": { "max-workers": 1 + dice.below(3), "max-chunk": dice.pick([0, 65536]) },
      }),
    };
  }

  policies(): object {
    const { dice } = this.#scene;
    return { "on-source-error": dice.pick(POLICIES), "on-target-error": dice.pick(POLICIES) };
  }

  #driveBackup(talk: Talk, guest: Guest): void {
    const { dice, name } = this.#scene;
    const target = name("q");
    const sync = dice.pick(["full", "full", "top"]);
    const { life, args } = this.order("backup", guest, sync === "full" ? { target } : {});
    const own = { target: `weather:${target}`, format: "qcow2", sync };
    this.send(talk, "drive-backup", { life, args: { ...args, ...own, ...this.backupManners() } });
  }

  /** Backups of one moment, of one disk or of several, which end together or do not. */
  async #transaction(talk: Talk, guest: Guest): Promise<void> {
    const { dice, guests } = this.#scene;
    const others = [guest, dice.pick(guests), dice.pick(guests)].slice(0, 1 + dice.below(3));
    const orders: Order[] = [];
    for (const one of others) orders.push(await this.backupOrder(one));
    const isGrouped = dice.oneIn(2);
    const actions = orders.map(({ args }) => ({ type: "blockdev-backup", data: args }));
    this.transaction(talk, actions, orders, isGrouped);
  }

  /** @param actions those of the orders among them */
  transaction(
    talk: Talk,
    actions: readonly object[],
    orders: readonly Order[],
    isGrouped: boolean,
    onReply: (isDone: boolean) => void = () => {},
  ): void {
    const { dice, jobs } = this.#scene;
    const lives = orders.map(({ life }) => life);
    if (isGrouped) join(lives);
    const isCalledOff = !isGrouped && dice.oneIn(5);
    const all = isCalledOff ? [...actions, { type: "abort", data: {} }] : actions;
    const properties = isGrouped ? { properties: { "completion-mode": "grouped" } } : {};
    talk.send("transaction", { actions: all, ...properties }, (reply) => {
      if (isCalledOff && !reply.error) throw new Error("An aborted transaction has been done");
      for (const life of lives) jobs.answered(life, reply);
      onReply(!reply.error);
    });
  }

  async #target(guest: Guest, backing: string | null): Promise<string> {
    const { dice, images, name } = this.#scene;
    const format = dice.oneIn(4) ? "qcow2" : guest.format;
    const target = name(format === "qcow2" ? "q" : "t");
    await images.make({ name: target, format, size: guest.size, backing });
    return target;
  }
}

function join(lives: readonly Life[]): void {
  const group: Group = {
    lives: [...lives],
    isGrouped: true,
    isFinalizeAsked: lives.every(({ init }) => init.autoFinalize),
    isCancelAsked: false,
  };
  for (const life of lives) life.group = group;
}
