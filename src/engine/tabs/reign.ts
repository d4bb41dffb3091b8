/**
 * What is kept of owners, for all tabs of an origin: one record, which each of them changes in its turn.
 *
 *   raised ──▶ served ──▶ closed ──▶ raised …
 *                 └── lost: no word of its end ──▶ raised …
 *
 * What clients have kept of an owner that has closed in good order is durable, whether or not they have heard
 * of it. Of one that was lost they may know more than the disk has.
 */

export interface Reign {
  /** Number of the owner; every owner has a higher one than all before it. */
  readonly epoch: number;
  /** The last one that has served anybody; 0 if none has. */
  readonly served: number;
  /** The last one that has closed all in good order, after it had served; 0 if none has. */
  readonly closed: number;
  /** The last one that has served and did not close; 0 if there was none. Of the present one nothing is said. */
  readonly lost: number;
  /**
   * The last one that has let in anybody but its own page, or has let a disk get other content; 0 if none has. What
   * was written under it may not be the newest any more, and who was away cannot know.
   */
  readonly overtaken: number;
}

export const NO_REIGN: Reign = { epoch: 0, served: 0, closed: 0, lost: 0, overtaken: 0 };

/** @param stored undefined if there is none; one of an older version has not all of it */
export function asReign(stored: Partial<Reign> | undefined): Reign {
  return { ...NO_REIGN, ...stored };
}

/** There is a new owner. */
export function raised(reign: Reign): Reign {
  const { epoch, served, closed, lost } = reign;
  return { ...reign, epoch: epoch + 1, lost: closed < served ? served : lost };
}

/** That owner lets clients in; nothing changes if there is a later one. */
export function serving(reign: Reign, epoch: number): Reign {
  return reign.epoch === epoch ? { ...reign, served: epoch } : reign;
}

/** That owner lets others in, or a disk get other content; nothing changes if there is a later one. */
export function overtaking(reign: Reign, epoch: number): Reign {
  return reign.epoch === epoch ? { ...reign, overtaken: epoch } : reign;
}

/** That owner has closed all; nothing changes if there is a later one, or if it never served. */
export function ended(reign: Reign, epoch: number): Reign {
  return reign.epoch === epoch && reign.served === epoch ? { ...reign, closed: epoch } : reign;
}

/** Whether an owner before this one has closed in good order, and all between the two. */
export function hasClosed({ epoch, lost }: Reign, other: number): boolean {
  return lost < other && other < epoch;
}
