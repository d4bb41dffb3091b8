/**
 * What stands between a node and its writes where somebody must know of them after a crash: see
 * write-intent.ts. A node of an engine that keeps no such record has none.
 */

import type { BlockNode } from "./node.ts";
import type { WriteIntent } from "./write-intent.ts";
import type { WriteIntents } from "./write-intents.ts";

/** A write that is under way. */
export interface Passage {
  readonly offset: number;
  readonly bytes: number;
  /** Who has been told that it has begun, and is told of its end. */
  readonly told: WriteIntent[];
}

export class WriteGate {
  readonly #node: BlockNode;
  readonly #intents: WriteIntents;
  readonly #watching = new Set<WriteIntent>();
  readonly #passages = new Set<Passage>();
  #isFirst = true;
  /** How often the record has fallen behind in a way that no write may rely on; and how far it has come. */
  #behind = 0;
  #saved = 0;

  constructor(node: BlockNode, intents: WriteIntents) {
    this.#node = node;
    this.#intents = intents;
  }

  /** Somebody has to know where the node is written, writes under way included. */
  add(intent: WriteIntent): void {
    this.#watching.add(intent);
    for (const { offset, bytes, told } of this.#passages) {
      intent.enter(offset, bytes);
      told.push(intent);
    }
  }

  /** The record may speak of it still: no write before that is over. */
  remove(intent: WriteIntent): void {
    this.#watching.delete(intent);
    this.#behind++;
  }

  /** The node's bytes are in another file from now on: of that it has written nothing yet. */
  moved(): void {
    this.#isFirst = true;
  }

  /** A write begins. @param bytes 0: it changes the disk, but at no place that there will be */
  enter(offset: number, bytes: number): Passage {
    if (this.#isFirst && !isStorage(this.#node)) {
      this.#isFirst = false;
      if (this.#intents.written(this.#node)) this.#behind++;
    }
    const passage: Passage = { offset, bytes, told: [...this.#watching] };
    for (const intent of passage.told) intent.enter(offset, bytes);
    this.#passages.add(passage);
    return passage;
  }

  /**
   * Until all is on record that must be for this write to go through.
   *
   * @throws BlockError what saving throws: the write must not be done then; ECANCELED
   */
  async open(passage: Passage, signal?: AbortSignal): Promise<void> {
    while (!this.#isOnRecord(passage)) {
      const behind = this.#behind;
      await this.#intents.onRecord(signal);
      this.#saved = Math.max(this.#saved, behind);
    }
  }

  /** The same around work that tells bitmaps itself. @throws BlockError as open(); what the work throws */
  async pass(
    offset: number,
    bytes: number,
    work: () => Promise<void>,
    signal?: AbortSignal,
  ): Promise<void> {
    const passage = this.enter(offset, bytes);
    try {
      await this.open(passage, signal);
      await work();
    } finally {
      this.leave(passage);
    }
  }

  /** The node is about to have other bytes, at no place that can be named: on record when this resolves. @throws as open() */
  announce(signal?: AbortSignal): Promise<void> {
    return this.pass(0, 0, async () => {}, signal);
  }

  /** The write has ended, well or not, and bitmaps have been told of it. */
  leave(passage: Passage): void {
    this.#passages.delete(passage);
    for (const intent of passage.told) intent.leave(passage.offset, passage.bytes);
  }

  #isOnRecord({ offset, bytes, told }: Passage): boolean {
    return this.#saved === this.#behind && told.every((intent) => intent.isOnRecord(offset, bytes));
  }
}

/** A format keeps its own bytes there: what disk that is changes by writes to the format's node. */
function isStorage(node: BlockNode): boolean {
  for (const { parent, role } of node.parents) {
    if (role === "backing" || !("driver" in parent)) continue;
    if (parent.driver.kind === "format") return true;
  }
  return false;
}
