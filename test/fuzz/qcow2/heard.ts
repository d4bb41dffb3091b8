/** What a run of the tests must have met, so that nobody takes a fuzzer that does nothing for a good sign. */

import { expect } from "vitest";
import { qcow2Fuzzer } from "./fuzz.ts";

/** @throws FuzzError with the seed that replays an image */
export async function holdImages(seed: number, count: number): Promise<void> {
  const { kinds } = await qcow2Fuzzer.run({ count, seed });
  const atLeast = (kind: string, wanted: number) =>
    expect(kinds.get(kind) ?? 0, kind).toBeGreaterThan(wanted);
  for (const kind of [
    "clean images",
    "broken images",
    "opened to read",
    "opened to write",
    "EIO of read",
    "check says clean",
    "check says corrupt",
  ])
    atLeast(kind, count / 5);
  for (const kind of ["open", "map", "write", "discard", "snapshot delete", "compressed write"]) {
    const failed = (kinds.get(`EIO of ${kind}`) ?? 0) + (kinds.get(`EINVAL of ${kind}`) ?? 0);
    expect(failed, `${kind} that fails`).toBeGreaterThan(count / 200);
  }
  for (const name of ["commit", "rebase", "convert", "snapshot"]) {
    atLeast(`0 of img ${name}`, count / 250);
  }
  atLeast("converted and compared", count / 100);
  atLeast("LUKS, opened to read", count / 200);
  atLeast("LUKS, not opened", count / 400);
}
