/** What makes a fresh clone ready looks before it does anything. */

import { spawn, spawnSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { dependenciesReason, ensureCli, isOlder, newestMs, ROOT } from "../../scripts/setup.mjs";

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "blocktab-setup-"));
});

afterEach(() => {
  rmSync(folder, { recursive: true });
});

describe("dependenciesReason", () => {
  it("finds nothing to do in this checkout", () => {
    expect(dependenciesReason(ROOT)).toBeNull();
  });

  it("finds that there are none", () => {
    locks({ a: "1.0.0" }, null);
    expect(dependenciesReason(folder)).toMatch(/none yet/);
  });

  it("finds a version that is not the lock file's", () => {
    locks({ a: "1.0.1" }, { a: "1.0.0" });
    expect(dependenciesReason(folder)).toMatch(/a 1\.0\.1/);
  });

  it("finds a package that is not installed", () => {
    locks({ a: "1.0.0", "@b/c": "2.0.0" }, { a: "1.0.0" });
    expect(dependenciesReason(folder)).toMatch(/@b\/c 2\.0\.0/);
  });

  it("finds a package whose folder somebody has removed", () => {
    locks({ a: "1.0.0" }, { a: "1.0.0" });
    rmSync(join(folder, "node_modules", "a"), { recursive: true });
    expect(dependenciesReason(folder)).toMatch(/a is not there/);
  });

  it("lets optional packages of other systems be missing", () => {
    locks({ a: "1.0.0", "b-win32": "1.0.0" }, { a: "1.0.0" }, ["b-win32"]);
    expect(dependenciesReason(folder)).toBeNull();
  });
});

describe("newestMs", () => {
  it("is the youngest file's, however deep", () => {
    mkdirSync(join(folder, "a", "b"), { recursive: true });
    writeFileSync(join(folder, "a", "b", "c"), "");
    const later = Date.now() / 1000 + 1000;
    utimesSync(join(folder, "a", "b", "c"), later, later);
    expect(newestMs([folder, join(folder, "nowhere")])).toBeCloseTo(later * 1000, -1);
  });

  it("is of no time where there is nothing", () => {
    expect(newestMs([join(folder, "nowhere")])).toBe(Number.NEGATIVE_INFINITY);
  });
});

describe("isOlder", () => {
  it.each([
    ["20.18.9", "20.19", true],
    ["20.19.0", "20.19", false],
    ["18.20.0", "20.19", true],
    ["22.0.0", "20.19", false],
    ["20.2.0", "20.19", true],
  ])("of %s than %s is %s", (a, b, expected) => {
    expect(isOlder(a, b)).toBe(expected);
  });
});

describe("the programs that tests drive", () => {
  const tools = ["qemu-img", "qemu-io", "qemu-storage-daemon"];

  it("are left alone where they are", () => {
    for (const tool of tools) program(tool, "exit 9");
    program("apt-get", `touch ${folder}/called`);
    expect(ensure("ensureQemu")).toEqual({ status: 0, text: "" });
    expect(existsSync(join(folder, "called"))).toBe(false);
  });

  it("are named, with their packages, where they cannot be installed", () => {
    program("qemu-img", "exit 9");
    const { status, text } = ensure("ensureQemu");
    expect(status).toBe(1);
    expect(text).toMatch(/needs QEMU's tools: qemu-io, qemu-storage-daemon .*apt install/);
  });

  it("include libnbd's, which only tests need", () => {
    const { status, text } = ensure("ensureNbdClients");
    expect(status).toBe(1);
    expect(text).toMatch(/needs libnbd's tools: nbdinfo, .*apt install libnbd-bin python3-libnbd/);
    for (const tool of ["nbdinfo", "nbdcopy", "nbdsh"]) program(tool, "exit 9");
    expect(ensure("ensureNbdClients")).toEqual({ status: 0, text: "" });
  });

  it("include a Chromium", () => {
    const { status, text } = ensure("ensureChromium");
    expect(status).toBe(1);
    expect(text).toMatch(/needs Chromium: .*apt install chromium.*npx playwright install chromium/);
    program("chromium", "exit 9");
    expect(ensure("ensureChromium")).toEqual({ status: 0, text: "" });
  });

  // Only root may install.
  describe.skipIf(process.getuid?.() !== 0)("are installed with apt by root", () => {
    it("each package once, after the lists have been updated", () => {
      const install = tools.map((tool) => `cp $0 ${folder}/${tool}`).join("; ");
      program("apt-get", `echo "$@" >> ${folder}/log; [ $1 = update ] || { ${install}; }`);
      expect(ensure("ensureQemu").status).toBe(0);
      expect(readFileSync(join(folder, "log"), "utf8").trim().split("\n")).toEqual([
        "update -q",
        "install -q -y --no-install-recommends qemu-utils qemu-system-common",
      ]);
    });

    it("also when the lists could not be updated; apt's own words are shown if it fails", () => {
      program("apt-get", "echo no such package; exit 100");
      const { status, text } = ensure("ensureQemu");
      expect(status).toBe(1);
      expect(text).toMatch(/install failed \(status 100\):\nno such package/);
      expect(text).toMatch(/needs QEMU's tools/);
    });
  });
});

/** Puts a shell script on the path that ensure() searches, which has nothing else but sh and cp. */
function program(name: string, script: string): void {
  writeFileSync(join(folder, name), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
}

/** Calls a function of setup.mjs in a process of its own. */
function ensure(name: string): { status: number | null; text: string } {
  for (const tool of ["cp", "touch"]) {
    if (!existsSync(join(folder, tool))) symlinkSync(`/bin/${tool}`, join(folder, tool));
  }
  const setup = pathToFileURL(join(ROOT, "scripts", "setup.mjs")).href;
  const code = `import("${setup}").then((m) => m.${name}()).catch((e) => {
    console.error(e.message);
    process.exitCode = 1;
  })`;
  const { status, stdout, stderr } = spawnSync(process.execPath, ["-e", code], {
    encoding: "utf8",
    env: { PATH: folder, HOME: folder, PLAYWRIGHT_BROWSERS_PATH: folder },
  });
  return { status, text: stdout + stderr };
}

/** Writes package-lock.json and, unless null, what npm keeps of what it has installed. */
function locks(
  wanted: Record<string, string>,
  installed: Record<string, string> | null,
  optional: string[] = [],
): void {
  const packages = (versions: Record<string, string>) =>
    Object.fromEntries(
      Object.entries(versions).map(([name, version]) => [
        `node_modules/${name}`,
        { version, integrity: `sha512-${name}${version}`, optional: optional.includes(name) },
      ]),
    );
  const root = { "": { name: "test" } };
  write("package-lock.json", { packages: { ...root, ...packages(wanted) } });
  if (installed === null) return;
  for (const name of Object.keys(installed)) {
    mkdirSync(join(folder, "node_modules", name), { recursive: true });
  }
  write("node_modules/.package-lock.json", { packages: packages(installed) });
}

function write(name: string, value: object): void {
  writeFileSync(join(folder, name), JSON.stringify(value));
}

describe("the command line's bundle", () => {
  const bundle = join(ROOT, "build", "cli", "blocktab.mjs");

  it("is made once where several start at the same time, and each of them runs", async () => {
    await ensureCli();
    utimesSync(bundle, 1, 1);
    const started = await Promise.all([1, 2, 3, 4].map(() => runBlocktab("--version")));
    for (const { stdout, status } of started) {
      expect({ stdout, status }).toEqual({ stdout: "blocktab 0.1.0\n", status: 0 });
    }
    // Another test may have been first.
    const builds = started.filter(({ stderr }) => stderr.includes("done in"));
    expect(builds.length).toBeLessThanOrEqual(1);
    expect(statSync(bundle).mtimeMs).toBeGreaterThan(1000);
    expect(await runBlocktab("--version")).toMatchObject({ stderr: "", status: 0 });
  }, 120_000);

  it("says what there is when it is asked for nothing, or for what there is not", async () => {
    expect(await runBlocktab("--help")).toMatchObject({ status: 0, stderr: "" });
    expect(await runBlocktab()).toMatchObject({ status: 1, stdout: "" });
    const { status, stderr } = await runBlocktab("demon");
    expect(status).toBe(1);
    expect(stderr).toMatch(/no command 'demon'[\s\S]*blocktab daemon/);
  });
});

interface Ran {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

function runBlocktab(...args: string[]): Promise<Ran> {
  const child = spawn(process.execPath, [join(ROOT, "bin", "blocktab.mjs"), ...args]);
  const said = { stdout: "", stderr: "" };
  child.stdout.on("data", (piece) => {
    said.stdout += piece;
  });
  child.stderr.on("data", (piece) => {
    said.stderr += piece;
  });
  return new Promise((resolve) => child.once("close", (status) => resolve({ status, ...said })));
}
