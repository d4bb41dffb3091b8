/**
 * Mutations that know what they hit: boundary numbers, pointers onto what they must not lead to, torn
 * and cut off files, names that want to be followed. Some images stay as they are: those must work.
 */

import { readU32 } from "../../../src/base/bytes.ts";
import type { Dice } from "../../model/dice.ts";
import { EVIL_NAMES } from "./build.ts";
import { type Field, type Fields, fieldsOf } from "./fields.ts";

export interface Mutant {
  readonly bytes: Uint8Array;
  /** What was done, for the story of a failure. */
  readonly story: readonly string[];
}

export function mutate(whole: Uint8Array, dice: Dice): Mutant {
  const mutation = new Mutation(whole, dice);
  const count = dice.pick([0, 1, 1, 1, 1, 2, 2, 3, 5]);
  for (let i = 0; i < count; i++) mutation.step();
  return { bytes: mutation.bytes, story: mutation.story };
}

class Mutation {
  bytes: Uint8Array;
  readonly story: string[] = [];
  readonly #dice: Dice;
  readonly #fields: Fields;
  readonly #groups: string[];
  readonly #clusterBytes: number;

  constructor(whole: Uint8Array, dice: Dice) {
    this.bytes = whole.slice();
    this.#dice = dice;
    this.#fields = fieldsOf(whole);
    const tables = [...this.#fields.keys()].filter((group) => group !== "header");
    this.#groups = ["header", "header", ...tables];
    if (this.#fields.has("luks")) this.#groups.push("luks", "luks", "luks");
    this.#clusterBytes = 2 ** readU32(whole, 20);
  }

  step(): void {
    switch (this.#dice.below(12)) {
      case 0:
      case 1:
      case 2:
        return this.#boundary();
      case 3:
      case 4:
      case 5:
        return this.#redirect();
      case 6:
        return this.#nudge();
      case 7:
        return this.#swap();
      case 8:
        return this.#cutOff();
      case 9:
        return this.#flip();
      case 10:
        return this.#rename();
      default:
        return this.#copyCluster();
    }
  }

  #pick(kind?: Field["kind"]): Field | null {
    const dice = this.#dice;
    for (let i = 0; i < 20; i++) {
      const field = dice.pick(this.#fields.get(dice.pick(this.#groups))!);
      const fits = kind === undefined ? field.kind !== "text" : field.kind === kind;
      if (fits && field.at + field.bytes <= this.bytes.length) return field;
    }
    return null;
  }

  #get({ at, bytes }: Field): bigint {
    let value = 0n;
    for (let i = 0; i < bytes; i++) value = value * 256n + BigInt(this.bytes[at + i]!);
    return value;
  }

  #set({ name, at, bytes }: Field, value: bigint): void {
    const cut = BigInt.asUintN(bytes * 8, value);
    for (let i = 0; i < bytes; i++) {
      this.bytes[at + i] = Number((cut >> BigInt((bytes - 1 - i) * 8)) & 255n);
    }
    this.story.push(`${name} at ${at} = 0x${cut.toString(16)}`);
  }

  #boundary(): void {
    const field = this.#pick();
    if (!field) return;
    const bits = BigInt(field.bytes * 8);
    const max = 2n ** bits - 1n;
    const power = 2n ** BigInt(this.#dice.below(Number(bits)));
    const value = this.#dice.pick([
      0n,
      1n,
      power,
      power - 1n,
      power + 1n,
      max,
      max - 1n,
      max / 2n,
      max / 2n - 1n,
      max / 2n + 1n,
    ]);
    this.#set(field, value);
  }

  /** A pointer leads where another one does, or to a place that is known to hurt; flags may stay. */
  #redirect(): void {
    const dice = this.#dice;
    const field = this.#pick("pointer");
    const other = this.#pick("pointer");
    if (!field || !other) return;
    const size = BigInt(this.#clusterBytes);
    const length = BigInt(this.bytes.length);
    const own = BigInt(field.at) - (BigInt(field.at) % size);
    const place = dice.pick([
      this.#get(other) & 0x00fffffffffffe00n,
      this.#get(other) & 0x00fffffffffffe00n,
      this.#get(other) & 0x00fffffffffffe00n,
      0n,
      own,
      size,
      length - (length % size),
      length - (length % size) - size,
      length * 2n,
      2n ** 53n - size,
      2n ** 55n,
      BigInt(dice.below(Math.ceil(this.bytes.length / this.#clusterBytes))) * size,
      BigInt(dice.below(this.bytes.length)),
    ]);
    const flags = dice.pick([
      this.#get(field) & 0xff000000000001ffn,
      0n,
      0x8000000000000000n,
      0x4000000000000000n,
      0x8000000000000001n,
    ]);
    this.#set(field, place | (field.name.includes("ntry") ? flags : 0n));
  }

  #nudge(): void {
    const field = this.#pick();
    if (!field) return;
    const size = BigInt(this.#clusterBytes);
    const by = this.#dice.pick([1n, -1n, 8n, -8n, 512n, -512n, size, -size, 0x2a00n]);
    this.#set(field, this.#get(field) + by);
  }

  #swap(): void {
    const [one, other] = [this.#pick("pointer"), this.#pick("pointer")];
    if (!one || !other || one.bytes !== other.bytes) return;
    const value = this.#get(one);
    this.#set(one, this.#get(other));
    this.#set(other, value);
  }

  #cutOff(): void {
    const dice = this.#dice;
    const { length } = this.bytes;
    const at = dice.pick([
      dice.below(length),
      dice.below(length),
      dice.below(Math.ceil(length / this.#clusterBytes)) * this.#clusterBytes,
      Math.min(length, dice.below(200)),
      Math.max(0, length - dice.below(this.#clusterBytes)),
    ]);
    this.bytes = this.bytes.slice(0, at);
    this.story.push(`cut off at ${at} of ${length}`);
  }

  #flip(): void {
    for (let i = 1 + this.#dice.below(8); i > 0; i--) {
      const field = this.#pick();
      // One in two anywhere.
      const at = field && this.#dice.oneIn(2) ? field.at : this.#dice.below(this.bytes.length || 1);
      if (at >= this.bytes.length) continue;
      const bit = this.#dice.below(8);
      this.bytes[at]! ^= 1 << bit;
      this.story.push(`bit ${bit} of byte ${at} flipped`);
    }
  }

  #rename(): void {
    const field = this.#pick("text");
    if (!field) return;
    const name = new TextEncoder().encode(this.#dice.pick(EVIL_NAMES)).subarray(0, field.bytes);
    this.bytes.set(name, field.at);
    if (this.#dice.oneIn(4)) this.bytes[field.at + this.#dice.below(field.bytes)] = 0xff;
    this.story.push(`${field.name} at ${field.at} renamed`);
  }

  #copyCluster(): void {
    const dice = this.#dice;
    const count = Math.floor(this.bytes.length / this.#clusterBytes);
    if (count < 2) return;
    const [from, to] = [dice.below(count), 1 + dice.below(count - 1)];
    const source = from * this.#clusterBytes;
    this.bytes.copyWithin(to * this.#clusterBytes, source, source + this.#clusterBytes);
    this.story.push(`cluster ${from} copied over ${to}`);
  }
}
