/** The commands as programs: what they print, what they serve, how they end. */

import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ensureDemoTemplate } from "../../scripts/demo-template.ts";
import { checkImage } from "../../scripts/qemu.ts";
import { ROOT } from "../../scripts/setup.mjs";
import { seededRandom } from "../../src/base/random.ts";

let folder: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "blocktab-commands-"));
});

afterAll(() => {
  rmSync(folder, { recursive: true });
});

describe("npm start", () => {
  it("serves the page and the image with its chain, says where, and stops at Ctrl-C", async () => {
    const top = makeChain();
    const start = run("start", [top, "--port", "0"]);
    const url = await start.sees(/blocktab is at\s+(http:\S+)/);
    await start.sees(/\[base\.raw\] <── \[top\.qcow2\]/);
    expect(await (await fetch(url)).text()).toContain('<div id="root">');
    const template = await (await fetch(`${url}template.json`)).json();
    expect(template).toMatchObject({ name: "top.qcow2", demo: false });
    for (const image of template.chain) {
      const answer = await fetch(new URL(image.url, url), { headers: { range: "bytes=0-3" } });
      expect(answer.status).toBe(206);
    }
    start.child.kill("SIGINT");
    expect(await start.ended).toBe(0);
    await expect(fetch(url)).rejects.toThrow();
  });

  it("takes a path as the shell that calls it means it", async () => {
    writeFileSync(join(folder, "here.raw"), "a disk");
    const start = run("start", ["here.raw", "--port=0"], { INIT_CWD: folder });
    await start.sees(/here\.raw, a disk of 6 B/);
    start.child.kill("SIGTERM");
    expect(await start.ended).toBe(0);
  });

  it.each([
    ["an image that is not there", ["nowhere.qcow2"], /there is no file '.*nowhere\.qcow2'$/],
    ["two images", ["a", "b"], /serves one image; got 2: a, b$/],
    ["a port that is none", ["--port", "http"], /a port is a number from 0 to 65535; got 'http'$/],
  ])("refuses %s in one line", async (_name, args, message) => {
    const start = run("start", args);
    expect(await start.ended).toBe(1);
    expect(start.text.trim()).toMatch(/^blocktab start: [^\n]+$/);
    expect(start.text.trim()).toMatch(message);
  });
});

describe("npm run demo", () => {
  it("streams an image, shows bar, rate and time, and ends with the verdicts of qemu-img", async () => {
    const demo = run("demo", [makeRandom("demo.raw", 24), "--speed", "8M"]);
    expect(await demo.ended, demo.text).toBe(0);
    expect(demo.text).toMatch(/[█░]{10,} +\d+ % {2}[\d.]+ \w+ of 24 MiB/);
    expect(demo.text).toMatch(/ MiB\/s /);
    expect(demo.text).toMatch(/the page wrote sector \d+ with the job at/);
    expect(demo.text.match(/^ok {6}/gm)).toHaveLength(4);
    expect(leftovers()).toEqual([]);
  });

  it("cleans up after itself at Ctrl-C, too", async () => {
    const demo = run("demo", [makeRandom("stopped.raw", 24), "--speed", "1M"]);
    await demo.sees(/of 24 MiB/);
    demo.child.kill("SIGINT");
    expect(await demo.ended).toBe(130);
    expect(demo.text).not.toMatch(/Error/);
    expect(leftovers()).toEqual([]);
  });

  it("refuses a speed that is none", async () => {
    const demo = run("demo", ["--speed", "fast"]);
    expect(await demo.ended).toBe(1);
    expect(demo.text).toMatch(/^blocktab demo: a speed is written like .*got 'fast'$/m);
  });
});

describe("npm run simulate", () => {
  it("does so many steps, and tells of what", async () => {
    const simulate = run("simulate", ["--steps", "800", "--seed", "3"]);
    expect(await simulate.ended, simulate.text).toBe(0);
    expect(simulate.text).toMatch(/^ok {5}800 steps from seed 3; jobs: \d+ backup/m);
  });

  it("shows all of one seed", async () => {
    const simulate = run("simulate", ["--seed", "3", "--trace"]);
    expect(await simulate.ended, simulate.text).toBe(0);
    expect(simulate.text).toMatch(/^m0 -> qmp_capabilities \{\}$/m);
    expect(simulate.text).toMatch(/^<- JOB_STATUS_CHANGE /m);
    expect(simulate.text.trim()).toMatch(/^ok {5}seed 3$/m);
  });

  it.each([
    [["--steps", "many"], /--steps takes a whole number up to \d+; got 'many'$/],
    [
      ["7"],
      /what is '7'\? it takes --steps, --seed, --trace, --breakages, --locks; --help tells more$/,
    ],
  ])("refuses %j in one line", async (args, message) => {
    const simulate = run("simulate", args);
    expect(await simulate.ended).toBe(1);
    expect(simulate.text.trim()).toMatch(/^blocktab simulate: [^\n]+$/);
    expect(simulate.text.trim()).toMatch(message);
  });
});

describe("npm test and npm run check", () => {
  it.each(["test", "check"])("%s refuses arguments, which would mean nothing", async (name) => {
    const command = run(name, ["--help"]);
    expect(await command.ended).toBe(1);
    expect(command.text.trim()).toBe(`blocktab ${name}: takes no arguments; got: --help`);
  });
});

describe("the demo template", () => {
  it("is clean, and has data, holes, packed clusters and both kinds of zeroes", async () => {
    const image = await ensureDemoTemplate();
    expect(await checkImage(image)).toBeNull();
    const map = JSON.parse(execFileSync("qemu-img", ["map", "--output=json", image], UTF8)) as {
      present: boolean;
      zero: boolean;
      data: boolean;
      offset?: number;
    }[];
    const kinds = map.map(({ present, zero, data, offset }) => {
      if (!present) return "hole";
      if (data) return offset === undefined ? "packed" : "data";
      return zero && offset !== undefined ? "zeroes in reserve" : "zeroes";
    });
    expect(new Set(kinds)).toEqual(
      new Set(["data", "hole", "packed", "zeroes in reserve", "zeroes"]),
    );
  });
});

const UTF8 = { encoding: "utf8" } as const;

class Run {
  readonly child: ChildProcess;
  text = "";
  /** The exit status. */
  readonly ended: Promise<number | null>;

  constructor(child: ChildProcess) {
    this.child = child;
    this.ended = new Promise((resolve) => child.on("close", (status) => resolve(status)));
    for (const stream of [child.stdout!, child.stderr!]) {
      stream.setEncoding("utf8").on("data", (text: string) => {
        this.text += text;
      });
    }
  }

  /** Waits until the output matches. @returns the first group */
  async sees(pattern: RegExp): Promise<string> {
    await expect.poll(() => this.text, { timeout: 60_000 }).toMatch(pattern);
    return pattern.exec(this.text)?.[1] ?? "";
  }
}

function run(command: string, args: string[], env: Record<string, string> = {}): Run {
  const { INIT_CWD: _cwd, ...rest } = process.env;
  const door = join(ROOT, "scripts", "run.mjs");
  return new Run(
    spawn(process.execPath, [door, command, ...args], { cwd: ROOT, env: { ...rest, ...env } }),
  );
}

/** Folders of demos that have not been cleaned away. */
function leftovers(): string[] {
  return readdirSync(join(ROOT, ".blocktab")).filter((name) => name.startsWith("run-"));
}

/** @returns the top's path */
function makeChain(): string {
  makeRandom("base.raw", 1);
  const top = join(folder, "top.qcow2");
  const backing = ["-b", "base.raw", "-F", "raw"];
  execFileSync("qemu-img", ["create", "-q", "-f", "qcow2", ...backing, top], { cwd: folder });
  return top;
}

function makeRandom(name: string, mebibytes: number): string {
  const bytes = new Uint8Array(mebibytes * 1024 * 1024);
  seededRandom(3).fill(bytes);
  writeFileSync(join(folder, name), bytes);
  return join(folder, name);
}
