/** `blocktab img` as a process among others: it ends when it is told to, and when nobody listens. */

import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ROOT } from "../../scripts/setup.mjs";

const IMG = [join(ROOT, "bin", "blocktab.mjs"), "img"];
const shellCommand = `'${process.execPath}' '${IMG[0]}' img`;

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "blocktab-cli-img-"));
  // As it is in a checkout: what it runs is made ready by the first.
  spawnSync(process.execPath, [...IMG, "--version"]);
}, 120_000);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function bash(script: string) {
  const { status, stdout, stderr } = spawnSync("bash", ["-c", script], {
    cwd: folder,
    encoding: "utf8",
  });
  return { status, stdout, stderr };
}

describe("a signal", () => {
  it.each(["SIGINT", "SIGTERM", "SIGHUP"] as const)(
    "%s ends it by that signal, without a word",
    async (signal) => {
      const big = join(folder, "big");
      writeFileSync(big, "");
      truncateSync(big, 2 ** 40);
      const words = [...IMG, "convert", "-p", "-f", "raw", "-O", "qcow2", big, join(folder, "out")];
      const child = spawn(process.execPath, words, { stdio: ["ignore", "pipe", "pipe"] });
      let stderr = "";
      child.stderr.on("data", (piece) => {
        stderr += piece;
      });
      const ended = once(child, "close");
      // It is under way.
      await once(child.stdout, "data");
      child.stdout.resume();
      child.kill(signal);
      expect(await ended).toEqual([null, signal]);
      expect(stderr).toBe("");
    },
  );
});

describe("a reader that is gone", () => {
  it("of a long map ends it without a word", () => {
    const made = bash(`${shellCommand} create -q -f qcow2 -o preallocation=full m 1M &&
      ${shellCommand} map m | true; echo "\${PIPESTATUS[@]}"`);
    expect(made).toEqual({ status: 0, stdout: "141 0\n", stderr: "" });
  });

  it("of what it complains of ends it, too", () => {
    // Opened for both, so that nobody waits; then there is no reader left.
    const { stdout } = bash(`mkfifo p; exec 4<>p 3>p; exec 4<&-
      ${shellCommand} info nowhere 2>&3; echo $?`);
    expect(stdout).toBe("141\n");
  });

  it.runIf(existsSync("/dev/full"))("is another thing than one that takes no more", () => {
    const { stdout, stderr } = bash(`${shellCommand} --help >/dev/full; echo $?`);
    expect(stdout).toBe("1\n");
    expect(stderr).toMatch(/^blocktab img: Writing the output failed: ENOSPC/);
    expect(stderr.split("\n")).toHaveLength(2);
  });
});

describe("an image by its name alone, in the folder where one is", () => {
  it("does not have a link in the folder followed that leads out of it", () => {
    mkdirSync(join(folder, "own"));
    writeFileSync(join(folder, "secret"), "s".repeat(512));
    symlinkSync("../secret", join(folder, "own", "base"));
    const { stdout, stderr } = bash(`cd own
      ${shellCommand} create -q -u -f qcow2 -b base -F raw top 1M
      ${shellCommand} convert -O raw top copy; echo $?
      test -e copy; echo $?`);
    expect(stdout).toBe("1\n1\n");
    expect(stderr).toContain("--trust-names");
  });

  it("has a file in the folder followed, though its name is one letter", () => {
    const made = bash(`${shellCommand} create -q -f raw b 1M &&
      ${shellCommand} create -q -f qcow2 -b b -F raw t && ${shellCommand} map t`);
    expect(made).toMatchObject({ status: 0, stderr: "" });
  });
});
