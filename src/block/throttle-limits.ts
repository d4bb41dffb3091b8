/**
 * The limits of a throttle group as QMP writes them, and which of them go together (QEMU:
 * ThrottleLimits in qapi/block-core.json, throttle_is_valid() in util/throttle.c).
 *
 *   bps-*   bytes per second       iops-*   requests per second       0: no limit
 *   *-max          the same during a burst
 *   *-max-length   how many seconds a burst at that rate may last, 1 unless given
 *   iops-size      a request of more bytes than this counts as several
 */

import * as v from "valibot";
import { size } from "../base/check.ts";
import { BlockError } from "../base/errors.ts";

/** A limit that has a bucket of its own. */
export const BUCKET_NAMES = [
  "iops-total",
  "iops-read",
  "iops-write",
  "bps-total",
  "bps-read",
  "bps-write",
] as const;
export type BucketName = (typeof BUCKET_NAMES)[number];

type Member = BucketName | `${BucketName}-max` | `${BucketName}-max-length` | "iops-size";
export type ThrottleLimits = { readonly [M in Member]?: number };

/** In QEMU's order, as qom-get answers. */
export const LIMIT_MEMBERS: readonly Member[] = [
  ...BUCKET_NAMES.flatMap((name): Member[] => [name, `${name}-max`, `${name}-max-length`]),
  "iops-size",
];

const VALUE_MAX = 1e15;
const LENGTH_MAX = 2 ** 32 - 1;

/** valibot schema of ThrottleLimits. */
export const throttleLimits = v.strictObject(
  Object.fromEntries(LIMIT_MEMBERS.map((member) => [member, v.exactOptional(size)])) as Record<
    Member,
    v.ExactOptionalSchema<typeof size, undefined>
  >,
);

/** One bucket's share of the limits. */
export function bucketLimits(
  limits: ThrottleLimits,
  name: BucketName,
): { mean: number; max: number; burstSeconds: number } {
  return {
    mean: limits[name] ?? 0,
    max: limits[`${name}-max`] ?? 0,
    burstSeconds: limits[`${name}-max-length`] ?? 1,
  };
}

/** All members, with what those have that were not given. */
export function withDefaults(limits: ThrottleLimits): Required<ThrottleLimits> {
  const all = LIMIT_MEMBERS.map((member) => [
    member,
    limits[member] ?? (member.endsWith("-length") ? 1 : 0),
  ]);
  return Object.fromEntries(all) as Required<ThrottleLimits>;
}

/** @throws BlockError EINVAL that names the members in the wrong */
export function checkLimits(limits: ThrottleLimits): void {
  for (const kind of ["bps", "iops"] as const) {
    for (const part of ["", "-max"] as const) {
      const sides = [`${kind}-read${part}`, `${kind}-write${part}`] as const;
      const total = `${kind}-total${part}` as const;
      const isSplit = sides.some((side) => (limits[side] ?? 0) > 0);
      if (isSplit && (limits[total] ?? 0) > 0) {
        throw invalid(`'${total}' and '${sides[0]}', '${sides[1]}' exclude each other`);
      }
    }
  }
  const hasIops = BUCKET_NAMES.some((name) => name.startsWith("iops") && (limits[name] ?? 0) > 0);
  if ((limits["iops-size"] ?? 0) > 0 && !hasIops) throw invalid("'iops-size' needs an iops limit");
  for (const name of BUCKET_NAMES) checkBucket(limits, name);
}

function checkBucket(limits: ThrottleLimits, name: BucketName): void {
  const { mean, max, burstSeconds } = bucketLimits(limits, name);
  if (mean > VALUE_MAX || max > VALUE_MAX) {
    throw invalid(`'${name}' and '${name}-max' are at most ${VALUE_MAX}`);
  }
  if (burstSeconds === 0) throw invalid(`'${name}-max-length' cannot be 0`);
  if (burstSeconds > LENGTH_MAX) throw invalid(`'${name}-max-length' is at most ${LENGTH_MAX}`);
  if (burstSeconds > 1 && max === 0) throw invalid(`'${name}-max-length' needs '${name}-max'`);
  if (max > 0 && burstSeconds > VALUE_MAX / max) {
    throw invalid(`'${name}-max-length' is too long for '${name}-max'`);
  }
  if (max > 0 && mean === 0) throw invalid(`'${name}-max' needs '${name}'`);
  if (max > 0 && max < mean) throw invalid(`'${name}-max' cannot be lower than '${name}'`);
}

function invalid(text: string): BlockError {
  return new BlockError("EINVAL", `These throttle limits cannot be: ${text}`);
}
