/** Command lines taken apart as getopt_long() does: the same are taken, the same refused, whatever they make. */

import { readdirSync } from "node:fs";
import { expect, it } from "vitest";
import { useFolders } from "./rig.ts";
import { asOld } from "./versions.ts";

const folders = useFolders();

const LINES = [
  "create -f qcow2 -6 3",
  "create -f raw @/n -3",
  "create @/n 1M -f raw",
  "create -qf qcow2 -- @/n 1M",
  "create -qfqcow2 -ocluster_size=4k @/n 1M",
  "create -q --obj secret,id=s,data=x @/n 1M",
  "info --out=json --outp human @/a",
  "info --backing=1 @/a",
  "info -Ufqcow2 -- @/a",
  "info @/a --",
  "info -Z @/a",
  "info -- @/a --",
  "info -",
  "resize -q @/a -- 3M",
  "resize --shrink -q @/a -512k",
  "resize --shrink @/a -- -512k",
  "resize -512k @/a --shrink",
  "check -qrall @/a",
  "check -rq leaks @/a",
  "check -r",
  "snapshot -lc @/a",
  "snapshot -lqU @/a",
  "map --start 0 --max=64k @/a",
  "compare -sf qcow2 -Fqcow2 @/a @/a",
  "bitmap --a @/a b -g64k",
  "bitmap --re @/a b",
  "amend @/a -olazy_refcounts=on",
  "convert -Oqcow2 -S0 @/a -q @/o",
  "convert --s @/a @/o",
];

it.each(LINES)("%s", async (line) => {
  const at = folders();
  at.make("create", "-q", "-f", "qcow2", "@/a", "1M");
  const { ours, theirs } = await at.both(...line.split(" "));
  expect(ours.status, ours.stderr).toBe(theirs.status);
  expect(asOld(line.split(" ")[0]!, ours.stdout)).toBe(theirs.stdout);
  expect(readdirSync(at.mine)).toEqual(readdirSync(at.real));
});
