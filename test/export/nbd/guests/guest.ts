/**
 * A guest: the real qemu-io on an NBD export, one process after the other, that writes, zeroes,
 * discards, flushes and reads with verification. Guests share clusters but no bytes: each has
 * stretches of its own, of odd lengths, so it knows what it must read.
 *
 *     wave    up to eight requests at once, which do not overlap, until all have ended
 *     batch   waves and single requests, in one process: one connection
 */

import type { Dice } from "../../../model/dice.ts";
import { tool, uri } from "../rig.ts";
import { type DiskModel, type Extent, PATTERNS } from "./disk-model.ts";

const WAVES_PER_BATCH = 40;
/** As often as others. */
const KINDS = [
  "write",
  "write",
  "write",
  "read",
  "read",
  "read",
  "zero",
  "discard",
  "flush",
] as const;

/** Divides a disk among guests, in stretches that begin and end anywhere. */
export function divide(size: number, guests: number, dice: Dice): Extent[][] {
  const shares: Extent[][] = Array.from({ length: guests }, () => []);
  for (let offset = 0, turn = 0; offset < size; turn++) {
    const bytes = Math.min(size - offset, 1 + dice.below(dice.oneIn(4) ? 700_000 : 60_000));
    shares[turn % guests]!.push({ offset, bytes });
    offset += bytes;
  }
  return shares;
}

export class Guest {
  readonly #socket: string;
  readonly #model: DiskModel;
  readonly #dice: Dice;
  readonly #share: readonly Extent[];
  requests = 0;
  batches = 0;

  constructor(socket: string, model: DiskModel, dice: Dice, share: readonly Extent[]) {
    this.#socket = socket;
    this.#model = model;
    this.#dice = dice;
    this.#share = share;
  }

  /** One process, from connecting to its end. @throws Error if it saw anything but what it must */
  async batch(): Promise<void> {
    const touched: Extent[] = [];
    const commands: string[] = [];
    for (let i = 0; i < WAVES_PER_BATCH; i++) {
      if (this.#dice.oneIn(2)) commands.push(...this.#wave(touched));
      else commands.push(this.#single(this.#place(), touched));
    }
    this.requests += commands.length;
    this.batches++;
    const words = commands.flatMap((command) => ["-c", command]);
    const args = ["-f", "raw", "-d", "unmap", ...words, uri(this.#socket, "disk")];
    const { status, output } = await tool("qemu-io", ...args);
    if (status !== 0 || output !== "") {
      throw new Error(`qemu-io ended with ${status}: ${output}\n${commands.join("\n")}`);
    }
    for (const extent of touched) this.#model.settle(extent);
  }

  /** Requests that are under way together, and the wait for all of them. */
  #wave(touched: Extent[]): string[] {
    const taken: Extent[] = [];
    const commands: string[] = [];
    for (let i = 1 + this.#dice.below(8); i > 0; i--) {
      const place = this.#place();
      const isFree = taken.every(
        (other) =>
          place.offset >= other.offset + other.bytes || other.offset >= place.offset + place.bytes,
      );
      if (!isFree) continue;
      const command = this.#async(place, touched);
      if (command === null) continue;
      taken.push(place);
      commands.push(command);
    }
    return [...commands, "aio_flush"];
  }

  #async(place: Extent, touched: Extent[]): string | null {
    const { offset, bytes } = place;
    const kind = this.#dice.pick(["write", "write", "read", "zero"] as const);
    if (kind === "read") {
      const pattern = this.#model.patternAt(offset);
      if (pattern === null) return null;
      const run = this.#model.runLength(offset, offset + bytes);
      return `aio_read -q -P ${pattern} ${offset} ${run}`;
    }
    touched.push(place);
    if (kind === "zero") {
      this.#model.planWrite(place, 0);
      return `aio_write -q -z ${this.#dice.oneIn(2) ? "-u " : ""}${offset} ${bytes}`;
    }
    return `aio_write -q ${this.#patternWrite(place)}`;
  }

  #single(place: Extent, touched: Extent[]): string {
    const { offset, bytes } = place;
    const kind = this.#dice.pick(KINDS);
    if (kind === "flush") return "flush";
    if (kind === "read") return this.#read(place);
    touched.push(place);
    if (kind === "write") return `write -q ${this.#patternWrite(place)}`;
    if (kind === "zero") {
      this.#model.planWrite(place, 0);
      return `write -q -z ${this.#dice.oneIn(2) ? "-u " : ""}${offset} ${bytes}`;
    }
    this.#model.planDiscard(place);
    return `discard -q ${offset} ${bytes}`;
  }

  #patternWrite(place: Extent): string {
    const pattern = this.#dice.below(PATTERNS);
    this.#model.planWrite(place, pattern);
    const fua = this.#dice.oneIn(30) ? "-f " : "";
    return `${fua}-P ${pattern} ${place.offset} ${place.bytes}`;
  }

  /** Of the whole place; verified is a run in it of which there is no doubt. */
  #read({ offset, bytes }: Extent): string {
    const start = this.#dice.below(bytes);
    const pattern = this.#model.patternAt(offset + start);
    if (pattern === null) return `read -q ${offset} ${bytes}`;
    const run = this.#model.runLength(offset + start, offset + bytes);
    return `read -q -P ${pattern} -s ${start} -l ${run} ${offset} ${bytes}`;
  }

  /** Somewhere in its own; now and then a whole stretch, often with an end on a round number. */
  #place(): Extent {
    const dice = this.#dice;
    const stretch = dice.pick(this.#share);
    if (dice.oneIn(6)) return stretch;
    let start = stretch.offset + dice.below(stretch.bytes);
    const end = stretch.offset + stretch.bytes;
    const round = 512 << dice.below(8);
    const rounded = Math.ceil(start / round) * round;
    if (dice.oneIn(2) && rounded < end) start = rounded;
    const most = dice.oneIn(4) ? 300_000 : 9000;
    const bytes = dice.oneIn(3) ? round : 1 + dice.below(most);
    return { offset: start, bytes: Math.min(bytes, end - start) };
  }
}
