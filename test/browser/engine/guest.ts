/**
 * A guest at the page's end of a device, and the bytes that its disk must have: requests of all kinds
 * go on while a job runs, each read is compared.
 */

import { expect } from "vitest";
import { seededRandom } from "../../../src/base/random.ts";
import type { Device } from "../../../src/engine/client.ts";

/** The disk is dealt out to this many requests at once, which do not overlap. */
const LANES = 4;
const REQUEST_BYTES_MAX = 96 * 1024;
/** Now and then in one request, so that whole clusters are written as well. */
const ALIGNMENTS = [1, 512, 65536];

export class Guest {
  readonly device: Device;
  /** What the disk reads as: true of every byte that no request is under way on. */
  readonly model: Uint8Array<ArrayBuffer>;
  /** Requests that have been answered. */
  requests = 0;
  readonly #random: ReturnType<typeof seededRandom>;
  readonly #seed: number;

  /** @param model what the disk reads as now; the guest's from here on */
  constructor(device: Device, model: Uint8Array<ArrayBuffer>, seed: number) {
    this.device = device;
    this.model = model;
    this.#seed = seed;
    this.#random = seededRandom(seed);
  }

  /** What the disk must read as while nothing is under way. */
  state(): Uint8Array<ArrayBuffer> {
    return this.model.slice();
  }

  /**
   * Requests on and on, until `work` is over and at least some were made.
   *
   * @param restMs between rounds: a job that runs after the guest's writes has to come nearer
   * @returns what `work` did
   */
  async during<T>(work: Promise<T>, { restMs = 0 } = {}): Promise<T> {
    let isOver = false;
    const over = () => {
      isOver = true;
    };
    work.then(over, over);
    for (let rounds = 0; !isOver || rounds < 3; rounds++) {
      await this.round();
      if (restMs > 0) await new Promise((resolve) => setTimeout(resolve, restMs));
    }
    return work;
  }

  async rounds(count: number): Promise<void> {
    for (let n = 0; n < count; n++) await this.round();
  }

  /** One request in each lane, side by side. */
  async round(): Promise<void> {
    const laneBytes = Math.floor(this.model.length / LANES);
    const lanes = Array.from({ length: LANES }, (_, lane) =>
      this.#request(lane * laneBytes, laneBytes),
    );
    await Promise.all(lanes);
  }

  /** The whole disk is as it must be. */
  async expectDisk(): Promise<void> {
    this.#expectSame(await this.device.read(0, this.model.length), 0);
  }

  async #request(laneStart: number, laneBytes: number): Promise<void> {
    const random = this.#random;
    const alignment = ALIGNMENTS[random.below(ALIGNMENTS.length)]!;
    const align = (n: number) => n - (n % alignment);
    const bytes = Math.max(alignment, align(1 + random.below(REQUEST_BYTES_MAX)));
    const offset = laneStart + align(random.below(laneBytes - bytes));
    const data = this.model.subarray(offset, offset + bytes);
    const kind = random.below(10);
    if (kind < 5) {
      random.fill(data);
      await this.device.write(offset, data);
    } else if (kind < 7) {
      data.fill(0);
      await this.device.writeZeroes(offset, bytes, { mayUnmap: kind === 6 });
    } else if (kind < 9) {
      this.#expectSame(await this.device.read(offset, bytes), offset);
    } else {
      await this.device.flush();
    }
    this.requests += 1;
  }

  #expectSame(seen: Uint8Array, offset: number): void {
    const wrong = seen.findIndex((byte, n) => byte !== this.model[offset + n]);
    const at = offset + wrong;
    expect(
      wrong,
      `seed ${this.#seed}: byte ${at} reads ${seen[wrong]}, not ${this.model[at]}`,
    ).toBe(-1);
  }
}
