/**
 * Which requests were under way when, and whether what was read then, and what is there in the end,
 * could come from doing them one after the other.
 *
 * The disk is looked at in units; each write fills its units with its own number, so a unit tells who
 * wrote it last. Then every other write of that unit came before. These "before"s of all units, and
 * those of requests of which one was over when the other began, must not make a circle.
 *
 *     unit   0 1 2 3 4 5
 *     A      a a a a           b b in unit 2 and 3: A before B
 *     B          b b b b
 *
 * Zeroes have no number, and what was discarded may be anything: there less is known, and asked.
 */

export const UNIT_BYTES = 64;
const ZERO = 0;
/** What the disk held at first, where it was not zeroes. */
export const FIRST = 1;

export interface Deed {
  readonly kind: "write" | "zeroes" | "discard";
  /** Of a write: what its units hold, greater than FIRST. */
  readonly value: number;
  readonly offset: number;
  readonly bytes: number;
  readonly start: number;
  /** Infinity while it is under way. */
  end: number;
}

export class History {
  readonly deeds: Deed[] = [];
  readonly #first: number;
  #moments = 0;

  /** @param first what every unit holds at first: ZERO or FIRST */
  constructor(first: number) {
    this.#first = first;
  }

  now(): number {
    return this.#moments++;
  }

  /** @returns the deed, under way */
  begin(kind: Deed["kind"], offset: number, bytes: number): Deed {
    const value = kind === "write" ? FIRST + 1 + this.deeds.length : ZERO;
    const end = Number.POSITIVE_INFINITY;
    const deed: Deed = { kind, value, offset, bytes, start: this.now(), end };
    this.deeds.push(deed);
    return deed;
  }

  finish(deed: Deed): void {
    deed.end = this.now();
  }

  /** What is wrong with a read of `bytes` at `offset`; null if nothing. */
  faultOfRead(bytes: Uint8Array, offset: number, start: number, end: number): string | null {
    for (let at = 0; at < bytes.length; at += UNIT_BYTES) {
      const value = unitValue(bytes, at);
      const place = offset + at;
      const cover = this.deeds.filter((deed) => covers(deed, place) && deed.start < end);
      const isLate = (candidateEnd: number) =>
        cover.some((d) => d.kind !== "discard" && candidateEnd < d.start && d.end < start);
      if (this.#candidates(value, cover).every(isLate)) {
        return `at ${place} a read of ${start} to ${end} sees ${value}, of ${tell(cover)}`;
      }
    }
    return null;
  }

  /** What is wrong with the whole disk when those deeds are over, and no others had an effect. */
  faultOfWhole(bytes: Uint8Array, deeds: readonly Deed[] = this.deeds): string | null {
    const before = deeds.map((later) => deeds.map((deed) => deed.end < later.start));
    const number = new Map(deeds.map((deed, i) => [deed, i]));
    for (let at = 0; at < bytes.length; at += UNIT_BYTES) {
      const value = unitValue(bytes, at);
      const cover = deeds.filter((deed) => covers(deed, at));
      const isPast = (end: number) => cover.some((d) => d.kind !== "discard" && end < d.start);
      if (this.#candidates(value, cover).every(isPast)) {
        return `at ${at} there is ${value}, of ${tell(cover)}`;
      }
      const last = cover.find((deed) => deed.kind === "write" && deed.value === value);
      if (!last || cover.some((deed) => deed.kind === "discard")) continue;
      const row = before[number.get(last)!]!;
      for (const other of cover) if (other !== last) row[number.get(other)!] = true;
    }
    return hasCircle(before) ? "the writes cannot have come one after the other" : null;
  }

  /** Ends of what may have left this value. */
  #candidates(value: number, cover: readonly Deed[]): number[] {
    const ends = cover.filter((deed) => deed.value === value).map(({ end }) => end);
    if (value === this.#first) ends.push(-1);
    // A discard may show zeroes, or what was there at first.
    if (value === FIRST) {
      ends.push(...cover.filter(({ kind }) => kind === "discard").map(({ end }) => end));
    }
    return ends;
  }
}

function covers({ offset, bytes }: Deed, at: number): boolean {
  return offset <= at && at < offset + bytes;
}

/** The one number in a unit; -1 if there are several. */
function unitValue(bytes: Uint8Array, at: number): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset + at, UNIT_BYTES);
  const value = view.getUint32(0);
  for (let i = 4; i < UNIT_BYTES; i += 4) if (view.getUint32(i) !== value) return -1;
  return value;
}

export function filled(value: number, bytes: number): Uint8Array {
  const data = new Uint8Array(bytes);
  const view = new DataView(data.buffer);
  for (let at = 0; at < bytes; at += 4) view.setUint32(at, value);
  return data;
}

function tell(cover: readonly Deed[]): string {
  return cover
    .map(({ kind, value, start, end }) => `${kind} ${value} (${start}-${end})`)
    .join(", ");
}

/** @param before for each, which ones come before it */
function hasCircle(before: readonly (readonly boolean[])[]): boolean {
  const state = before.map(() => "new" as "new" | "open" | "done");
  const visit = (i: number): boolean => {
    if (state[i] === "open") return true;
    if (state[i] === "done") return false;
    state[i] = "open";
    const found = before[i]!.some((is, j) => is && visit(j));
    state[i] = "done";
    return found;
  };
  return before.some((_, i) => visit(i));
}
