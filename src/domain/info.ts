/**
 * What getBlockJobInfo() tells: the rules by which an engine's figures become libvirt's, as a table.
 * The first rule that fits is the one.
 */

import { BLOCK_JOB_TYPE, JOB_KINDS, type JobKind, TWO_PHASE } from "./enums.ts";

/** virDomainBlockJobInfo. */
export interface BlockJobInfo {
  /** One of BLOCK_JOB_TYPE. */
  readonly type: number;
  /** MiB/s, or bytes/s if asked for; 0: no limit. */
  readonly bandwidth: number;
  /** 0 <= cur <= end; equal only when all is done, or ready. They have no unit. */
  readonly cur: number;
  readonly end: number;
}

/** A zeroed struct: there is no job. */
export const NO_JOB: BlockJobInfo = {
  type: BLOCK_JOB_TYPE.UNKNOWN,
  bandwidth: 0,
  cur: 0,
  end: 0,
};

/** What the engine says of a job: query-block-jobs. */
export interface EngineFigures {
  readonly offset: number;
  readonly len: number;
  readonly ready: boolean;
}

interface Progress {
  readonly cur: number;
  readonly end: number;
}

interface Rule {
  readonly says: string;
  fits(figures: EngineFigures | null, hasReadyFlag: boolean): boolean;
  progress(figures: EngineFigures): Progress;
}

const isEmpty = ({ offset, len }: EngineFigures) => offset === 0 && len === 0;

const PROGRESS_RULES: readonly Rule[] = [
  {
    says: "not listed: not begun yet, or over",
    fits: (figures) => figures === null,
    progress: () => ({ cur: 0, end: 1 }),
  },
  {
    says: "nothing to do, and the kind of job gets ready: done once it is ready",
    fits: (figures, hasReadyFlag) => figures !== null && isEmpty(figures) && hasReadyFlag,
    progress: ({ ready }) => ({ cur: ready ? 1 : 0, end: 1 }),
  },
  {
    says: "nothing to do, and it ends by itself: as it is",
    fits: (figures) => figures !== null && isEmpty(figures),
    progress: () => ({ cur: 0, end: 0 }),
  },
  {
    says: "all is done but it is not ready: one less, since clients poll for cur == end",
    fits: (figures, hasReadyFlag) =>
      figures !== null && hasReadyFlag && !figures.ready && figures.offset >= figures.len,
    progress: ({ len }) => ({ cur: len - 1, end: len }),
  },
  {
    says: "otherwise: as it is",
    fits: () => true,
    progress: ({ offset, len }) => ({ cur: Math.min(offset, len), end: len }),
  },
];

/** @param figures null: the engine does not list the job */
export function progressOf(kind: JobKind, figures: EngineFigures | null): Progress {
  const hasReadyFlag = TWO_PHASE.includes(kind);
  const rule = PROGRESS_RULES.find(({ fits }) => fits(figures, hasReadyFlag))!;
  return rule.progress(figures ?? { offset: 0, len: 0, ready: false });
}

/** @param bandwidth in the unit that was asked for */
export function blockJobInfo(
  kind: JobKind,
  bandwidth: number,
  figures: EngineFigures | null,
): BlockJobInfo {
  return { type: JOB_KINDS[kind], bandwidth, ...progressOf(kind, figures) };
}
