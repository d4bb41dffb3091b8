/**
 * Readers of the past: a backup without a copy of its own (sync=none) keeps what guests overwrite, and
 * a snapshot-access node above its filter shows the disk as it was when the job began.
 */

import type { BlockBackend } from "../../src/block/backend.ts";
import { Perm } from "../../src/block/permissions.ts";
import type { Guest } from "./guest.ts";
import { tolerant } from "./images.ts";
import type { Life } from "./life.ts";
import type { Order, Scene, Starters } from "./starters.ts";
import type { Talk } from "./talk.ts";

interface Past {
  readonly life: Life;
  readonly node: string;
  readonly reader: BlockBackend;
}

export class Pasts {
  readonly #scene: Scene;
  readonly #starters: Starters;
  readonly #pasts = new Set<Past>();
  /** Whatever is under way here. */
  readonly #running = new Set<Promise<unknown>>();
  #failure: unknown = null;

  constructor(scene: Scene, starters: Starters) {
    this.#scene = scene;
    this.#starters = starters;
  }

  /** @throws BlockError in a storm */
  async act(talk: Talk, guest: Guest): Promise<void> {
    const { dice } = this.#scene;
    if (this.#pasts.size === 0) return this.#begin(talk, guest);
    const past = dice.pick([...this.#pasts]);
    if (past.life.isOver || dice.oneIn(20)) this.#run(this.#close(past));
    else this.#run(this.#read(past));
  }

  check(): void {
    if (this.#failure !== null) throw this.#failure;
  }

  /** Lets go of all of them. */
  async end(): Promise<void> {
    for (const past of this.#pasts) this.#run(this.#close(past));
    while (this.#running.size > 0) await Promise.all(this.#running);
  }

  async #begin(talk: Talk, guest: Guest): Promise<void> {
    const { jobs, name } = this.#scene;
    const order: Order = await this.#starters.backupOrder(guest, true);
    const filter = name("f");
    const args = { ...order.args, "filter-node-name": filter };
    talk.send("blockdev-backup", args, (reply) => {
      jobs.answered(order.life, reply);
      if (!reply.error && order.life.copy) this.#run(this.#open(order.life, filter));
    });
  }

  async #open(life: Life, filter: string): Promise<void> {
    const { engine, name } = this.#scene;
    const node = name("p");
    const options = { driver: "snapshot-access", "node-name": node, file: filter };
    const added = await tolerant(engine.graph.add(options));
    if (!added) return;
    const reader = engine.graph.openBackend(added, {
      name: node,
      description: `reader of ${node}`,
      permissions: { take: Perm.consistentRead, share: Perm.all },
    });
    this.#pasts.add({ life, node, reader });
  }

  async #read({ life, node, reader }: Past): Promise<void> {
    const { dice } = this.#scene;
    const { copy } = life;
    if (!copy) return;
    const offset = dice.below(copy.size);
    const data = new Uint8Array(1 + dice.below(Math.min(16384, copy.size - offset)));
    const isRead = await tolerant(reader.read(data, offset).then(() => true));
    if (!isRead) return;
    const at = copy.differs(data, offset);
    if (at >= 0) {
      throw new Error(
        `${node}, the past of ${life.id}, reads ${data[at - offset]} at ${at}, not ${copy.at(at)}`,
      );
    }
    copy.learn(data, offset);
  }

  async #close(past: Past): Promise<void> {
    if (!this.#pasts.delete(past)) return;
    const { graph } = this.#scene.engine;
    await graph.closeBackend(past.reader);
    await graph.remove(past.node);
  }

  #run(work: Promise<unknown>): void {
    const counted = work.then(
      () => {
        this.#running.delete(counted);
      },
      (error) => {
        this.#running.delete(counted);
        this.#failure ??= error;
      },
    );
    this.#running.add(counted);
  }
}
