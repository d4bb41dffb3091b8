/**
 * What happens to disks beside jobs that copy: snapshots inside and outside of images, new sizes, new
 * and amended images, limits, drains, and side doors.
 */

import type { DrainedSection } from "../../src/block/drain.ts";
import type { ModelDisk } from "./disk.ts";
import type { Guest } from "./guest.ts";
import { THROTTLE_GROUP } from "./images.ts";
import type { Outcome } from "./life.ts";
import type { Scene, Starters } from "./starters.ts";
import type { Talk } from "./talk.ts";

const LAYERS_MAX = 6;
const SIZE_MAX = 384 * 1024;

/** A state of a disk kept inside its image. */
interface Kept {
  readonly guest: Guest;
  readonly node: string;
  readonly tag: string;
  readonly disk: ModelDisk;
}

export class Changes {
  readonly #scene: Scene;
  readonly #starters: Starters;
  readonly #kept: Kept[] = [];
  readonly #sections = new Set<DrainedSection>();

  constructor(scene: Scene, starters: Starters) {
    this.#scene = scene;
    this.#starters = starters;
  }

  /** @throws BlockError if a storm hits */
  async any(talk: Talk, guest: Guest): Promise<void> {
    const { dice } = this.#scene;
    const changes = [
      this.#snapshot,
      this.#snapshot,
      this.#keep,
      this.#keep,
      this.#goBack,
      this.#goBack,
      this.#dropKept,
      this.#resize,
      this.#create,
      this.#amend,
      this.#limit,
      this.#drain,
      this.#drain,
      this.#side,
      this.#side,
      this.#side,
    ];
    await dice.pick(changes).call(this, talk, guest);
  }

  // Outside

  async #snapshot(talk: Talk, guest: Guest): Promise<void> {
    const { dice, images, name } = this.#scene;
    if (guest.chain.length >= LAYERS_MAX || guest.hasSide || guest.snapshotBans > 0) return;
    const node = dice.pick([guest.device, guest.root.name, guest.top.name]);
    if (dice.oneIn(3)) {
      const overlay = name("q");
      const args = {
        ...(node === guest.device ? { device: node } : { "node-name": node }),
        "snapshot-file": `weather:${overlay}`,
        "snapshot-node-name": overlay,
        format: "qcow2",
      };
      guest.sideBans++;
      return talk.send("blockdev-snapshot-sync", args, () => this.#snapshotDone(guest, overlay));
    }
    const overlay = name("o");
    const below = guest.top.name;
    const label = `weather:${below}`;
    const size = guest.size;
    const format = dice.oneIn(4) ? "qcow2" : guest.format;
    await images.make({ name: overlay, format, size, label });
    const action = { type: "blockdev-snapshot", data: { node, overlay } };
    const done = () => this.#snapshotDone(guest, overlay, below);
    // With a backup of the same moment: it may name what is below the overlay then.
    const order = dice.oneIn(2) ? null : await this.#starters.backupOrder(guest);
    if (guest.hasSide || guest.snapshotBans > 0) return;
    guest.sideBans++;
    if (!order) return talk.send(action.type, action.data, done);
    const actions = [{ type: "blockdev-backup", data: order.args }, action];
    if (dice.oneIn(2)) actions.reverse();
    this.#starters.transaction(talk, actions, [order], false, done);
  }

  /** @param below the node that the overlay was made for; without it, the one it has found itself */
  #snapshotDone(guest: Guest, overlay: string, below?: string): void {
    guest.sideBans--;
    const names = guest.chain.map(({ name }) => name);
    const at = names.indexOf(overlay);
    if (at < 0) return;
    // The disk may have moved since the command was sent; then it is no overlay of the top.
    const { stale } = this.#scene.images;
    if (below !== undefined && names[at + 1] !== below) stale.add(`weather:${below}`);
    if (at > 0) stale.add(`weather:${names[at + 1]}`);
  }

  // Inside

  /** A disk that is one image, as what shows through from below is not kept. */
  #isWhole(guest: Guest): boolean {
    return guest.chain.length === 1 && guest.top.driver.name === "qcow2";
  }

  #keep(talk: Talk, guest: Guest): void {
    const { dice, name } = this.#scene;
    if (!this.#isWhole(guest) || guest.isResizing || guest.holds > 0) return;
    const disk = guest.model.copy();
    const tag = name("s");
    const node = guest.top.name;
    guest.shadows.add(disk);
    const done = () => {
      guest.shadows.delete(disk);
      this.#kept.push({ guest, node, tag, disk });
    };
    const type = "blockdev-snapshot-internal-sync";
    const data = { device: node, name: tag };
    dice.pick([
      () => talk.send(type, data, done),
      () => this.#starters.transaction(talk, [{ type, data }], [], false, done),
      () => this.#job(talk, guest, "snapshot-save", { tag, vmstate: node, devices: [node] }, done),
    ])();
  }

  /** The guest keeps still: when exactly its disk goes back in time nobody is told. */
  #goBack(talk: Talk, guest: Guest): void {
    const kept = this.#scene.dice.pick(this.#kept.filter((one) => one.guest === guest));
    if (!kept || !this.#isWhole(guest) || guest.top.name !== kept.node) return;
    if (guest.isBusy || guest.isResizing || guest.holds > 0) return;
    const { node, tag, disk } = kept;
    guest.holds++;
    const before = guest.model.copy();
    const done = (outcome: Outcome) => {
      guest.holds--;
      if (outcome === "completed") guest.model.become(disk);
      // It cannot be interrupted: a cancelled one may have been done.
      if (outcome === "failed") guest.becomeOneOf([before, disk]);
    };
    this.#job(talk, guest, "snapshot-load", { tag, vmstate: node, devices: [node] }, done);
  }

  #dropKept(talk: Talk, guest: Guest): void {
    const { dice } = this.#scene;
    const kept = dice.pick(this.#kept.filter((one) => one.guest === guest));
    if (!kept) return;
    const { node, tag } = kept;
    if (dice.oneIn(2))
      this.#job(talk, guest, "snapshot-delete", { tag, devices: [node] }, () => {});
    else talk.send("blockdev-snapshot-delete-internal-sync", { device: node, name: tag });
  }

  // Images

  #resize(talk: Talk, guest: Guest): void {
    if (guest.isResizing || guest.holds > 0 || guest.shadows.size > 0) return;
    if (guest.size > SIZE_MAX) return;
    const { dice } = this.#scene;
    const size = guest.size + 4096 * (1 + dice.below(4));
    const isByDevice = dice.oneIn(2);
    const where = isByDevice ? { device: guest.device } : { "node-name": guest.top.name };
    guest.isResizing = true;
    talk.send("block_resize", { ...where, size }, (reply) => {
      guest.isResizing = false;
      guest.measure();
      // A guest may have moved to another node meanwhile.
      if (!reply.error && isByDevice && guest.size !== size) {
        throw new Error(`Guest ${guest.name} has ${guest.size} bytes after a resize to ${size}`);
      }
    });
  }

  #create(talk: Talk, guest: Guest): void {
    const size = guest.size;
    const options = { driver: "weather", name: this.#scene.name("c"), size };
    this.#job(talk, guest, "blockdev-create", { options }, () => {});
  }

  #amend(talk: Talk, guest: Guest): void {
    const { dice } = this.#scene;
    const options = {
      driver: "qcow2",
      ...dice.pick([{ "lazy-refcounts": true }, { "lazy-refcounts": false }, { version: "v3" }]),
    };
    const node = dice.pick(guest.chain).name;
    this.#job(talk, guest, "x-blockdev-amend", { "node-name": node, options }, () => {});
  }

  /** A job that is no block job. Its name is its command's, but for the first part of that. */
  #job(
    talk: Talk,
    guest: Guest,
    command: string,
    args: object,
    done: (outcome: Outcome) => void,
  ): void {
    const { jobs, name } = this.#scene;
    const type = command.replace(/^(x-)?blockdev-/, "");
    const id = name(type);
    const life = jobs.expect({
      id,
      type,
      guest,
      isBlock: false,
      autoFinalize: true,
      autoDismiss: false,
      onEnd: done,
    });
    life.onRefused = () => done("never started");
    talk.send(command, { "job-id": id, ...args }, (reply) => jobs.answered(life, reply));
  }

  // Around

  #limit(talk: Talk): void {
    const { dice } = this.#scene;
    const value = dice.pick([
      { "iops-total": 0 },
      { "iops-total": 500 },
      { "bps-write": 1_000_000 },
    ]);
    talk.send("qom-set", { path: THROTTLE_GROUP, property: "limits", value });
  }

  /** Somebody wants a node quiet for a while. */
  #drain(_talk: Talk, guest: Guest): void {
    const { dice, engine } = this.#scene;
    const node = dice.pick([guest.root, ...guest.chain]);
    const ms = dice.pick([0, 1, 50, 500]);
    engine.graph.drain([node]).then((section) => {
      this.#sections.add(section);
      engine.clock.setTimer(ms, () => this.#endSection(section));
    });
  }

  #endSection(section: DrainedSection): void {
    if (this.#sections.delete(section)) section.end();
  }

  async #side(_talk: Talk, guest: Guest): Promise<void> {
    await guest.toggleSide();
  }

  /** Lets go of everything that would not end by itself. */
  async end(): Promise<void> {
    for (const section of this.#sections) this.#endSection(section);
    for (const guest of this.#scene.guests) if (guest.hasSide) await guest.toggleSide();
  }
}
