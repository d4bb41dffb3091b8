/** Some images, the same each time; `npm run fuzz -- --qcow2 200000` makes more. */

import { expect, it } from "vitest";
import { qcow2Fuzzer } from "./qcow2/fuzz.ts";

const COUNT = 1000;
const SEED = 1;

it("images made to hurt: only typed errors, bounded work, nothing followed, nothing broken", async () => {
  const { kinds } = await qcow2Fuzzer.run({ count: COUNT, seed: SEED });
  // It was about something.
  const heard = [
    "clean images",
    "broken images",
    "opened to read",
    "opened to write",
    "EIO of read",
    "check says clean",
    "check says corrupt",
  ];
  for (const kind of heard) expect(kinds.get(kind), kind).toBeGreaterThan(COUNT / 5);
  for (const operation of [
    "open",
    "map",
    "write",
    "discard",
    "snapshot delete",
    "compressed write",
  ])
    expect(kinds.get(`EIO of ${operation}`) ?? kinds.get(`EINVAL of ${operation}`)).toBeGreaterThan(
      20,
    );
  for (const name of ["commit", "rebase", "convert", "snapshot"]) {
    expect(kinds.get(`0 of img ${name}`), name).toBeGreaterThan(10);
  }
  expect(kinds.get("converted and compared")).toBeGreaterThan(30);
}, 600_000);
