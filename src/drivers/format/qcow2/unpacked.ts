/**
 * The last few packed clusters as they unpack: small reads of one cluster, one after the other or at
 * once, read and unpack it once.
 *
 * Kept by where the packed data is in the file. Those bytes stay what they are as long as anything
 * refers to them; only when the place is handed out anew will it hold other data, so that is when it is
 * forgotten (forget()). A read that is under way then does not come back: what is kept is the promise
 * of its answer, from the start.
 */

import { KiB } from "../../../base/bytes.ts";
import type { PackedPlace } from "./layout.ts";

/** Most bytes that are kept; one cluster, if that is more. */
const KEPT_BYTES = 512 * KiB;

interface Kept {
  readonly place: PackedPlace;
  readonly cluster: Promise<Uint8Array>;
}

export class Unpacked {
  /** By the place's offset; least recently used first. */
  readonly #kept = new Map<number, Kept>();
  readonly #most: number;

  constructor(clusterBytes: number) {
    this.#most = Math.max(1, Math.floor(KEPT_BYTES / clusterBytes));
  }

  /** What is known of the place; undefined if nothing is. */
  find({ offset, bytes }: PackedPlace): Promise<Uint8Array> | undefined {
    const kept = this.#kept.get(offset);
    if (kept?.place.bytes !== bytes) return undefined;
    this.#kept.delete(offset);
    this.#kept.set(offset, kept);
    return kept.cluster;
  }

  /** The cluster at the place. @param unpack called if it is not known; what it throws is not kept */
  get(place: PackedPlace, unpack: () => Promise<Uint8Array>): Promise<Uint8Array> {
    const known = this.find(place);
    if (known) return known;
    const cluster = unpack();
    const kept = { place, cluster };
    this.#kept.set(place.offset, kept);
    if (this.#kept.size > this.#most) {
      for (const oldest of this.#kept.keys()) {
        this.#kept.delete(oldest);
        break;
      }
    }
    cluster.catch(() => {
      if (this.#kept.get(place.offset) === kept) this.#kept.delete(place.offset);
    });
    return cluster;
  }

  /** The place will hold other data. */
  forget({ offset, bytes }: PackedPlace): void {
    for (const { place } of this.#kept.values()) {
      if (place.offset < offset + bytes && offset < place.offset + place.bytes) {
        this.#kept.delete(place.offset);
      }
    }
  }
}
