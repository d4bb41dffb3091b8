/**
 * virsh's manners, for whoever shows jobs and takes bandwidths from people: how a percentage is cut,
 * and how a number with a unit is read.
 */

import { MiB } from "../base/bytes.ts";
import { DomainError } from "./errors.ts";
import type { BlockJobInfo } from "./info.ts";

/** 100 only when nothing is left; else at most 99.99, cut after two decimals, never rounded up. */
export function percentage({ cur, end }: Pick<BlockJobInfo, "cur" | "end">): number {
  if (cur >= end) return 100;
  return Math.min(99.99, Math.floor((cur / end) * 10_000) / 100);
}

/** K and KiB are 1024, KB is 1000, and so on. */
const SUFFIXES = ["k", "m", "g", "t", "p", "e"];

/**
 * A bandwidth as people write it. Without a suffix it is in the unit of the call, which is MiB/s, or
 * bytes/s if `isBytes`; with one it is bytes, rounded down to whole MiB/s without `isBytes`.
 *
 * @returns in the unit of the call
 * @throws DomainError INVALID_ARG
 */
export function parseBandwidth(text: string, isBytes: boolean): number {
  const [, digits, suffix = ""] = /^\s*(\d+)\s*([A-Za-z]*)\s*$/.exec(text) ?? [];
  const scale = suffix === "" ? 1 : scaleOf(suffix.toLowerCase());
  if (digits === undefined || scale === undefined) {
    throw new DomainError("INVALID_ARG", `'${text}' is no bandwidth: a number, then K, M, G, KB …`);
  }
  const value = Number(digits);
  if (suffix === "") return value;
  return isBytes ? value * scale : Math.floor((value * scale) / MiB);
}

function scaleOf(suffix: string): number | undefined {
  if (suffix === "b" || suffix === "bytes") return 1;
  const [, letter, rest] = /^([kmgtpe])(b|ib)?$/.exec(suffix) ?? [];
  if (letter === undefined) return undefined;
  return (rest === "b" ? 1000 : 1024) ** (SUFFIXES.indexOf(letter) + 1);
}
