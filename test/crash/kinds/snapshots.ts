/** Internal snapshots, dirty bitmaps: what is kept inside an image besides its disk. */

import { KiB, MiB } from "../../../src/base/bytes.ts";
import type { BlockNode } from "../../../src/block/node.ts";
import { type Guest, USUAL } from "../guest.ts";
import { readIds } from "../look.ts";
import type { Claim, ImageOptions, Kind, Trial } from "../trial.ts";

/** Snapshots by tag: what each sector was. */
type Tags = ReadonlyMap<string, Int32Array>;

/** The snapshots that there are, from one moment to the next. */
export class Shelf {
  readonly #guest: Guest;
  readonly #trial: Trial;
  readonly #history: { readonly tags: Tags; readonly from: number; done: number }[];
  #count = 0;

  constructor(trial: Trial, guest: Guest) {
    this.#trial = trial;
    this.#guest = guest;
    this.#history = [{ tags: new Map(), from: 0, done: 0 }];
  }

  async create(): Promise<void> {
    const tag = `s${this.#count++}`;
    const tags = new Map([...this.#tags, [tag, this.#guest.ids()]]);
    await this.#change(tags, () => this.#store.create(tag, { seconds: 1, nanoseconds: 0 }));
  }

  async apply(): Promise<void> {
    const [tag, ids] = this.#any();
    await this.#guest.replaced(ids, () => this.#store.apply(this.#idOf(tag)));
  }

  async delete(): Promise<void> {
    const [tag] = this.#any();
    const tags = new Map([...this.#tags].filter(([other]) => other !== tag));
    await this.#change(tags, () => this.#store.delete(this.#idOf(tag)));
  }

  /** To be called when the recording begins: what is there now is certain. */
  settle(): void {
    this.#history.splice(0, this.#history.length, { tags: this.#tags, from: 0, done: 0 });
  }

  /** All snapshots of before or all of after, each with its bytes. */
  readonly claim: Claim = async ({ node, cut, again }) => {
    const certain = this.#history.findLastIndex(({ done }) => done <= cut.done);
    const possible = this.#history.filter(
      ({ from }, i) => i === certain || (i > certain && from < cut.begun),
    );
    const names = namesOf(node);
    const found = possible.find(({ tags }) => [...tags.keys()].join() === names.join());
    if (!found) return `the snapshots are ${names.join()}`;
    for (const [tag, wanted] of found.tags) {
      const { ids } = await again(async (copy) => {
        const { id } = copy.state.snapshots!.list().find(({ name }) => name === tag)!;
        await copy.state.snapshots!.apply(id);
        return readIds(copy);
      });
      const at = wanted.findIndex((id, sector) => ids[sector] !== id);
      if (at >= 0)
        return `sector ${at} of snapshot ${tag} is of write ${ids[at]}, not ${wanted[at]}`;
    }
    return "";
  };

  get #tags(): Tags {
    return this.#history.at(-1)!.tags;
  }

  get #store() {
    return this.#guest.disk.node.state.snapshots!;
  }

  #any(): [string, Int32Array] {
    const all = [...this.#tags];
    return all[this.#trial.random.below(all.length)]!;
  }

  #idOf(tag: string): string {
    return this.#store.list().find(({ name }) => name === tag)!.id;
  }

  async #change(tags: Tags, change: () => Promise<unknown>): Promise<void> {
    const { source } = this.#trial;
    const next = { tags, from: source.log.length, done: Number.POSITIVE_INFINITY };
    this.#history.push(next);
    await change();
    next.done = source.log.length;
  }
}

function namesOf(node: BlockNode): string[] {
  return node.state.snapshots!.list().map(({ name }) => name);
}

const HABITS = { ...USUAL, packed: 1, mostBytes: 48 * KiB };

/** Two snapshots first; then `act` and guests by turns. */
function withSnapshots(
  name: string,
  image: ImageOptions,
  act: (shelf: Shelf, guest: Guest) => Promise<void>,
): Kind {
  return {
    name,
    async run(trial) {
      await trial.create("disk", image);
      const disk = await trial.open("disk");
      const guest = await trial.enter(disk);
      const shelf = new Shelf(trial, guest);
      trial.claims.push(shelf.claim);
      await guest.acts(6, HABITS);
      await shelf.create();
      await guest.acts(4, HABITS);
      await shelf.create();
      await guest.acts(4, HABITS);
      await trial.record();
      shelf.settle();
      for (let i = 0; i < 2; i++) {
        await guest.acts(3, HABITS);
        await guest.flush();
        await act(shelf, guest);
        await guest.acts(3, HABITS);
      }
      await trial.close(disk);
    },
  };
}

const small = { size: 512 * KiB, "cluster-size": 4 * KiB };
const extended = { size: MiB, "cluster-size": 16 * KiB, "extended-l2": true };

export const snapshots: readonly Kind[] = [
  withSnapshots("writes over snapshots", small, (_shelf, guest) => guest.acts(8, HABITS)),
  withSnapshots("writes over snapshots, extended L2 entries", extended, (_shelf, guest) =>
    guest.acts(8, HABITS),
  ),
  withSnapshots("snapshot create", small, (shelf) => shelf.create()),
  withSnapshots("snapshot apply", small, (shelf) => shelf.apply()),
  withSnapshots("snapshot delete", small, (shelf) => shelf.delete()),
  withSnapshots(
    "snapshot create, apply and delete, clusters of 512",
    { size: 256 * KiB, "cluster-size": 512 },
    allThree,
  ),
  withSnapshots(
    "snapshot create, apply and delete, version 2",
    { ...small, version: "v2" },
    allThree,
  ),
  withSnapshots(
    "snapshot create, apply and delete, extended L2 entries and 4-bit refcounts",
    { ...extended, "refcount-bits": 4 },
    allThree,
  ),
];

async function allThree(shelf: Shelf): Promise<void> {
  await shelf.create();
  await shelf.apply();
  await shelf.delete();
}
