/**
 * blockCommit(): images of a chain are merged into one below them.
 *
 *     [base] <── [mid] <── [top] <── [vda]    commit of top, mid       [base] <── [vda]
 *     [base] <── [vda]                        active commit, pivot     [base]
 */

import { findLayer, relativeName } from "./chain.ts";
import { DomainError } from "./errors.ts";
import { BLOCK_COMMIT } from "./flags.ts";
import { userOf } from "./image-users.ts";
import type { Operation } from "./operation.ts";
import { type DiskRecord, formatNode, type Layer } from "./record.ts";
import { describeSource, pathOf, type Source } from "./source.ts";
import { checkNoJob, newJob, startJob } from "./start-job.ts";

export interface CommitOptions {
  readonly disk: string;
  /** Null: the bottom, or with SHALLOW what is right below top. */
  readonly base: string | null;
  /** Null, or the disk's target: the active layer. */
  readonly top: string | null;
  /** Bytes per second; 0: no limit. */
  readonly speed: number;
  /** Of BLOCK_COMMIT. */
  readonly flags: number;
}

export async function commit(op: Operation, options: CommitOptions): Promise<void> {
  const { flags } = options;
  const disk = op.disk(options.disk);
  if (disk.readonly) {
    throw new DomainError("OPERATION_INVALID", `Disk '${disk.target}' is read-only`);
  }
  checkNoJob(op, disk);
  const { layers } = disk;
  const { top, base } = range(disk, options);
  const gone = layers.slice(top, base);
  const isActive = top === 0;
  const unlink = flags & BLOCK_COMMIT.DELETE ? filesOf(op, disk, gone) : undefined;
  const isRelative = (flags & BLOCK_COMMIT.RELATIVE) !== 0 && !isActive;
  const backingFile = isRelative ? await relativeName(op, layers, top - 1, base) : undefined;
  const kind = isActive ? "active-commit" : "commit";
  const job = {
    ...newJob(op, kind, disk, layers[top]!, flags),
    top: layers[top]!.n,
    base: layers[base]!.n,
    ...(unlink && { unlink }),
  };
  await startJob(op, job, () =>
    op.execute("block-commit", {
      "job-id": job.name,
      device: formatNode(layers[0]!),
      "base-node": formatNode(layers[base]!),
      "top-node": formatNode(layers[top]!),
      ...(backingFile !== undefined && { "backing-file": backingFile }),
      speed: options.speed,
      "auto-dismiss": false,
    }),
  );
}

/** Which images are meant, as places in the chain. @throws DomainError INVALID_ARG */
function range(disk: DiskRecord, options: CommitOptions): { top: number; base: number } {
  const { flags } = options;
  const { layers } = disk;
  const refuse = (text: string): never => {
    throw new DomainError("INVALID_ARG", text);
  };
  const isTop = options.top === null || options.top === disk.target;
  const top = isTop ? 0 : findLayer(disk, options.top!);
  if (top === 0 && !(flags & BLOCK_COMMIT.ACTIVE)) {
    refuse(`A commit of the active layer of '${disk.target}' needs the flag ACTIVE`);
  }
  if (top > 0 && flags & BLOCK_COMMIT.ACTIVE) {
    refuse(
      `The flag ACTIVE is for the active layer; '${options.top}' is not that of '${disk.target}'`,
    );
  }
  if (top === layers.length - 1) {
    refuse(`'${describeSource(layers[top]!.source)}' has no backing image to be committed into`);
  }
  const isShallow = (flags & BLOCK_COMMIT.SHALLOW) !== 0;
  const deepest = isShallow ? top + 1 : layers.length - 1;
  const base = options.base === null ? deepest : findLayer(disk, options.base);
  if (base <= top) {
    refuse(
      `'${options.base}' is not below what is to be committed in the chain of '${disk.target}'`,
    );
  }
  if (isShallow && base !== top + 1) {
    refuse(`With the flag SHALLOW the base must be right below the top; '${options.base}' is not`);
  }
  return { top, base };
}

/**
 * Files to be removed at the end: those that have a path, unless another disk has them, too.
 *
 * @throws DomainError OPERATION_INVALID, CONFIG_UNSUPPORTED
 */
function filesOf(op: Operation, disk: DiskRecord, layers: readonly Layer[]): Source[] {
  const sources = layers.map(({ source }) => source).filter((source) => pathOf(source) !== null);
  for (const source of sources) {
    const path = pathOf(source)!;
    const user = userOf(op.host.record, source, disk);
    if (user !== undefined) {
      throw new DomainError("OPERATION_INVALID", `'${path}' cannot be removed: ${user} has it`);
    }
    if (!op.host.files?.canRemove(source)) {
      throw new DomainError("CONFIG_UNSUPPORTED", `'${path}' cannot be removed here`);
    }
  }
  return sources;
}
