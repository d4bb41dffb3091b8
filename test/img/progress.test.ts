/** Which subcommands show how far they are, and when. */

import { describe, expect, it } from "vitest";
import { useFolders } from "./rig.ts";

const folders = useFolders();

describe("-p", () => {
  it.each([
    "convert -O qcow2 @/base @/new",
    "compare @/base @/same",
    "rebase -b base -F qcow2 @/top",
    "rebase -u -b base -F qcow2 @/top",
    "commit @/top",
    "amend -o lazy_refcounts=on @/base",
  ])("of %s shows it as qemu-img does, and nothing with -q", async (line) => {
    const at = folders();
    for (const name of ["base", "same"]) at.make("create", "-q", "-f", "qcow2", `@/${name}`, "1M");
    at.make("create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", "@/top");
    const [command, ...rest] = line.split(" ");
    for (const quiet of [["-q", "-p"], ["-pq"]]) {
      const { ours, theirs } = await at.both(command!, ...quiet, ...rest);
      expect(theirs).toEqual({ status: 0, stdout: "", stderr: "" });
      expect(ours).toEqual(theirs);
    }
    const shown = await at.both(command!, "-p", ...rest);
    for (const { status, stdout } of [shown.ours, shown.theirs]) {
      expect(status).toBe(0);
      expect(stdout).toMatch(
        /^ {4}\(0\.00\/100%\)\r(?:.*\r)* {4}\(100\.00\/100%\)\r(?:Images are identical\.\n)?\n/,
      );
    }
  });
});
