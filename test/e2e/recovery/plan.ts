/** What page and test both know: the disks, one for each type of job, and the images they are made of. */

export const KINDS = ["stream", "commit", "active", "mirror", "backup"] as const;
export type Kind = (typeof KINDS)[number];

export const DISK_BYTES = 1024 * 1024;
export const CLUSTER_BYTES = 16 * 1024;
/** Of jobs: slow enough to be amid their work when the end comes, for several lives. */
export const SPEED = 128 * 1024;
/** What every disk is full of at first. */
export const FIRST_ID = 1;

/** Two images of each disk change places, run by run; `base` and `target` keep theirs. */
export const IMAGES: Readonly<Record<Kind, readonly string[]>> = {
  stream: ["stream-a", "stream-b"],
  commit: ["commit-a", "commit-b", "commit-base"],
  active: ["active-b", "active-base"],
  mirror: ["mirror-a", "mirror-b"],
  backup: ["backup-a", "backup-target"],
};
export const BITMAP = "since-the-last";

export interface Ended {
  readonly outcome: "completed" | "failed" | "cancelled";
  readonly error?: string;
  /** Tells one run of a job from another. */
  readonly began: { readonly seconds: number; readonly microseconds: number };
}

/** What a tab finds that is opened after a kill. */
export interface Found {
  /** Of each disk: the images that it stands on, the top first. */
  readonly chains: Readonly<Record<Kind, readonly string[]>>;
  /** Jobs that have ended, until start(). */
  readonly ended: Readonly<Partial<Record<Kind, Ended>>>;
  readonly atWork: readonly Kind[];
  /** Those that the kill has met amid their work, or their end. */
  readonly interrupted: readonly Kind[];
  readonly problems: readonly string[];
}

/** What to do in one life, besides writing. */
export interface Orders {
  /** No write of it has a number below it. */
  readonly firstId: number;
  /** When to let a job go as fast as it can, in ms; it is completed as soon as it is ready then. */
  readonly hurry: Readonly<Partial<Record<Kind, number>>>;
}

/** More than a guest comes to. */
export const IDS_PER_LIFE = 100_000;

/** @returns seed and first write of a disk's guest */
export function guestOf({ firstId }: Orders, kind: Kind): readonly [number, number] {
  const first = firstId + KINDS.indexOf(kind) * IDS_PER_LIFE;
  return [first, first];
}
