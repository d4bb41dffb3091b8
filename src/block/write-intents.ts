/**
 * All write intents of an engine, and the record of them, which is one JSON value and is replaced as a
 * whole:
 *
 *     { version, epoch, seq,
 *       generations: { "file:disk.qcow2": 3, "file:copy.qcow2": 7 },
 *       records: { "i12": { images: { "file:disk.qcow2": 3, "file:copy.qcow2": 7 }, regions, … } } }
 *
 * A record holds for images that nobody has written without it. So images have generations: the first
 * write to one since it was opened raises its generation, before it goes through, and with it what all
 * records say that have been taken up. One that has not been is of an older generation from then on,
 * and is not trusted. Only images of which some record speaks have one.
 */

import * as v from "valibot";
import { Coalesced } from "../base/coalesced.ts";
import { assert } from "../base/errors.ts";
import type { Kernel } from "../kernel/kernel.ts";
import { type Regions, regionsOf, regionsRecord } from "./intent-regions.ts";
import type { BlockNode } from "./node.ts";
import { WriteGate } from "./write-gate.ts";
import { WriteIntent, type WriteIntentInit } from "./write-intent.ts";

/** Where the record is kept. Same manners as a journal's store. */
export interface IntentStore {
  /** What was saved last; undefined if nothing was. @throws BlockError */
  load(): Promise<unknown>;
  /**
   * Replaces it: after a crash there is the old record or the new one, and when this has resolved the
   * new one.
   *
   * @throws BlockError ESTALE if the one that is there is of a later epoch; ENOSPC, EIO
   */
  save(record: IntentsRecord): Promise<void>;
}

export const INTENTS_VERSION = 1;

const generation = v.pipe(v.number(), v.safeInteger(), v.minValue(0));

const intentRecord = v.looseObject({
  images: v.record(v.string(), generation),
  regions: regionsRecord,
});
type IntentRecord = v.InferOutput<typeof intentRecord>;

const intentsRecord = v.object({
  version: v.literal(INTENTS_VERSION),
  epoch: generation,
  seq: generation,
  generations: v.record(v.string(), generation),
  records: v.record(v.string(), intentRecord),
});
export type IntentsRecord = v.InferOutput<typeof intentsRecord>;

/** Whether it is one, whatever is wrong with its entries. */
export function isIntentsRecord(stored: unknown): boolean {
  const entries = v.record(v.string(), v.unknown());
  return v.is(
    v.object({ ...intentsRecord.entries, generations: entries, records: entries }),
    stored,
  );
}

/** What a record has told. */
export interface FoundIntent {
  readonly regions: Regions;
  /** What WriteIntentInit.describe gave. */
  readonly more: Readonly<Record<string, unknown>>;
}

export class WriteIntents {
  /** Why there is nothing to trust, if what the store had cannot be understood. */
  readonly problem: string | null;
  readonly #store: IntentStore;
  readonly epoch: number;
  readonly #saves = new Coalesced(() => this.#save());
  readonly #live = new Map<string, WriteIntent>();
  /** From before the engine was started, and taken up by nobody yet. */
  readonly #left: Map<string, IntentRecord>;
  readonly #generations: Map<string, number>;
  /** The largest generation, and the last id, that there has been. */
  #seq: number;
  #isTouched = false;
  /** Changes that a write may have to wait for, and how many of them the save has that began last. */
  #changes = 0;
  #changesInSave = 0;

  /** @param epoch of the engine: what a later one has saved is not replaced */
  static async load(store: IntentStore, epoch: number): Promise<WriteIntents> {
    return new WriteIntents(store, epoch, await store.load());
  }

  private constructor(store: IntentStore, epoch: number, found: unknown) {
    this.#store = store;
    this.epoch = epoch;
    const parsed = found === undefined ? null : v.safeParse(intentsRecord, found);
    this.problem = parsed?.success === false ? parsed.issues[0].message : null;
    const { seq = 0, generations = {}, records = {} } = parsed?.success ? parsed.output : {};
    this.#seq = seq;
    this.#generations = new Map(Object.entries(generations));
    this.#left = new Map(Object.entries(records));
  }

  /** An id that no record has had. */
  newId(): string {
    return `i${++this.#seq}`;
  }

  /** newId() gave it: it means something only to whoever has it on record. */
  static isOwnId(id: string): boolean {
    return /^i\d+$/.test(id);
  }

  /** A node has been opened. */
  opened(node: BlockNode): void {
    if (node.driver.kind !== "filter") node.gate = new WriteGate(node, this);
  }

  /**
   * What is on record under an id, if that can be trusted: it speaks of these nodes' images, and none
   * of them has been written since without being on it.
   */
  find(id: string, nodes: readonly BlockNode[], kernel: Kernel): FoundIntent | null {
    const record = this.#left.get(id);
    if (!record) return null;
    const wanted = new Set(nodes.flatMap(imagesOf));
    const images = Object.entries(record.images);
    const isSame = images.length === wanted.size && images.every(([key]) => wanted.has(key));
    if (!isSame || !images.every(([key, number]) => this.#generations.get(key) === number)) {
      return null;
    }
    const { regions: bits, images: _, ...more } = record;
    const regions = regionsOf(kernel, bits);
    return regions && { regions, more };
  }

  /**
   * A new intent, of which there is no record before it is published; one that was found under the
   * same id stays until then.
   */
  begin(init: WriteIntentInit): WriteIntent {
    assert(!this.#live.has(init.id), "an intent's id is in use once");
    const intent = new WriteIntent(this, init);
    this.#live.set(intent.id, intent);
    for (const key of intent.images) {
      if (!this.#generations.has(key)) this.#generations.set(key, ++this.#seq);
    }
    gateOf(init.nodes[0]!).add(intent);
    return intent;
  }

  /** A record that will not be taken up any more. */
  forget(id: string): void {
    if (this.#left.delete(id)) this.touch();
  }

  /** What is on record is behind what is, in a way that somebody may be told of: see settled(). */
  touch(): void {
    this.#isTouched = true;
    this.#changes++;
  }

  /** Before anybody is told what has changed. @throws BlockError */
  async settled(): Promise<void> {
    if (this.#isTouched) await this.saved();
  }

  /** Drops what nobody will take up. @param ids of intents that somebody may */
  keepOnly(isWanted: (id: string) => boolean): void {
    for (const id of this.#left.keys()) if (!isWanted(id)) this.forget(id);
  }

  /** All that is to be on record now is, when this resolves. @throws BlockError; ECANCELED */
  saved(signal?: AbortSignal): Promise<void> {
    return this.#saves.done(signal);
  }

  /** The same for a write, which can do with the save that is under way if that has all it needs. */
  onRecord(signal?: AbortSignal): Promise<void> {
    const isInSave = this.#changes === this.#changesInSave;
    return (isInSave && this.#saves.ended(signal)) || this.saved(signal);
  }

  // For intents and gates.

  ended(intent: WriteIntent): void {
    this.#live.delete(intent.id);
    this.#left.delete(intent.id);
    for (const node of intent.nodes) node.gate?.remove(intent);
    this.touch();
  }

  left(intent: WriteIntent): void {
    const record = intent.isPublished ? this.#recordOf(intent) : null;
    this.ended(intent);
    if (record) this.#left.set(intent.id, record);
  }

  /** The first write to a node. @returns whether it must be on record before it goes through */
  written(node: BlockNode): boolean {
    let isTold = false;
    for (const key of imagesOf(node)) {
      if (!this.#generations.has(key)) continue;
      this.#generations.set(key, ++this.#seq);
      isTold = true;
      this.#changes++;
    }
    return isTold;
  }

  async #save(): Promise<void> {
    const published = [...this.#live.values()].filter((intent) => intent.isPublished);
    const records: Record<string, IntentRecord> = {};
    for (const [id, record] of this.#left) records[id] = record;
    this.#isTouched = false;
    this.#changesInSave = this.#changes;
    for (const intent of published) {
      records[intent.id] = this.#recordOf(intent);
      this.#left.delete(intent.id);
      intent.saveBegins();
    }
    let isSaved = false;
    try {
      await this.#store.save({
        version: INTENTS_VERSION,
        epoch: this.epoch,
        seq: this.#seq,
        generations: Object.fromEntries(this.#generations),
        records,
      });
      isSaved = true;
      // Not before: until then the store may have a record that speaks of them.
      this.#dropGenerations(records);
    } finally {
      this.#isTouched ||= !isSaved;
      for (const intent of published) intent.saveEnded(isSaved);
    }
  }

  #recordOf(intent: WriteIntent): IntentRecord {
    const numbers = intent.images.map((key) => [key, this.#generations.get(key)!] as const);
    return {
      ...intent.describe(),
      images: Object.fromEntries(numbers),
      regions: intent.regions.describe(),
    };
  }

  /** Of images that no record speaks of, nor will. */
  #dropGenerations(records: Readonly<Record<string, IntentRecord>>): void {
    const wanted = new Set(Object.values(records).flatMap(({ images }) => Object.keys(images)));
    for (const { images } of this.#live.values()) for (const key of images) wanted.add(key);
    for (const { images } of this.#left.values()) {
      for (const key of Object.keys(images)) wanted.add(key);
    }
    for (const key of this.#generations.keys()) if (!wanted.has(key)) this.#generations.delete(key);
  }
}

function gateOf(node: BlockNode): WriteGate {
  assert(node.gate, "a node that was opened beside write intents has a gate");
  return node.gate;
}

/**
 * What holds a node's bytes, without its backing file: driver and name of each store; of a file on Node
 * what it is, since one file has many names.
 */
export function imagesOf(node: BlockNode): string[] {
  if (node.driver.kind === "protocol") {
    const { driver, world, state } = node;
    const { identity } = state;
    const isTold = typeof identity === "string";
    const name = isTold ? identity : (state.info?.().filename ?? JSON.stringify(node.options));
    // What is gone with its engine is not what another one has under the same name.
    return [`${driver.name}:${name}${driver.isVolatile ? `@${world.intents?.epoch}` : ""}`];
  }
  return [...node.children.values()].flatMap(({ role, node: child }) =>
    role === "file" || role === "data-file" ? imagesOf(child) : [],
  );
}
