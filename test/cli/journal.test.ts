/** A daemon that is killed in the middle of a job, on real files; the next one goes on. */

import {
  copyFileSync,
  lstatSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { ensureCli, ensureWasm } from "../../scripts/setup.mjs";
import { seededRandom } from "../../src/base/random.ts";
import { runWell } from "../spawn.ts";
import { BLOCKTAB, Running } from "./running.ts";

/** Kills of each job. */
const KILLS = Number(process.env["JOURNAL_KILLS"] ?? 3);
const MIB = 8;

interface Case {
  readonly command: string;
  readonly args: object;
  /** The image that has the disk in the end. */
  readonly image: string;
  readonly outcome: string;
}

const CASES: Record<string, Case> = {
  stream: { command: "block-stream", args: {}, image: "top", outcome: "completed" },
  commit: {
    command: "block-commit",
    args: { "top-node": "mid" },
    image: "top",
    outcome: "completed",
  },
  "active commit": { command: "block-commit", args: {}, image: "base", outcome: "completed" },
  mirror: {
    command: "blockdev-mirror",
    args: { target: "target", sync: "full" },
    image: "target",
    outcome: "completed",
  },
  backup: {
    command: "blockdev-backup",
    args: { target: "target", sync: "full" },
    // Nobody writes: the moment of the backup is still there after each kill.
    image: "target",
    outcome: "completed",
  },
};

let folder: string;
const running: Running[] = [];

beforeAll(async () => {
  await ensureWasm();
  await ensureCli();
});

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "blocktab-journal-"));
});

afterEach(async () => {
  for (const daemon of running.splice(0)) await killed(daemon);
  rmSync(folder, { recursive: true });
});

const run = (program: string, ...args: string[]) => runWell(program, args, { cwd: folder });

/** base ← mid ← top with a pattern of its own in each. */
function makeImages(): void {
  const make = (...args: string[]) => run("qemu-img", "create", "-q", "-f", "qcow2", ...args);
  const write = (image: string, ...patterns: string[]) =>
    run("qemu-io", ...patterns.flatMap((pattern) => ["-c", `write ${pattern}`]), image);
  make("base", `${MIB}M`);
  make("-b", "base", "-F", "qcow2", "mid");
  make("-b", "mid", "-F", "qcow2", "top");
  make("target", `${MIB}M`);
  write("base", `-P 1 0 ${MIB}M`);
  write("mid", "-P 2 1M 2M", "-z 4M 1M");
  write("top", "-P 3 2M 2M");
}

/**
 * Named members, and a node for each file.
 *
 * @param monitor what is spoken to, after everything else
 */
/** @param files where an image is in another file than its name says */
function start(
  monitor = "stdio,id=c",
  journal = "journal.json",
  files: Readonly<Record<string, string>> = {},
): Running {
  const image = (name: string, backing: string | null) => [
    "--blockdev",
    JSON.stringify({
      driver: "qcow2",
      "node-name": name,
      file: { driver: "file", filename: files[name] ?? name },
      backing,
    }),
  ];
  const daemon = new Running(
    BLOCKTAB,
    [
      "--journal",
      journal,
      ...image("base", null),
      ...image("mid", "base"),
      ...image("top", "mid"),
      ...image("target", null),
      "--chardev",
      monitor,
      "--monitor",
      "c",
    ],
    folder,
  );
  running.push(daemon);
  return daemon;
}

async function killed(daemon: Running): Promise<void> {
  daemon.kill("SIGKILL");
  await daemon.ended;
}

interface Told {
  readonly status: string;
  readonly outcome: string;
}

async function ask(daemon: Running, name: string): Promise<readonly Told[]> {
  return (await daemon.talk.execute(name))["return"] as readonly Told[];
}

/** Completes it when it is ready. */
async function untilEnded(daemon: Running): Promise<void> {
  for (;;) {
    const [job] = await ask(daemon, "query-jobs");
    if (!job) return;
    if (job.status === "ready") await daemon.talk.execute("job-complete", { id: "j" });
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

describe.each(Object.entries(CASES))("a daemon killed during %s", (_name, wanted) => {
  it("is gone on from by the next one", async () => {
    makeImages();
    run("qemu-img", "convert", "-O", "raw", "top", "before");
    const random = seededRandom(1);
    let daemon = start();
    await daemon.talk.negotiate();
    const { command, args } = wanted;
    const job = { "job-id": "j", device: "top", speed: 2 ** 21, ...args };
    expect(await daemon.talk.execute(command, job)).toHaveProperty("return");
    for (let kill = 0; kill < KILLS; kill++) {
      await new Promise((resolve) => setTimeout(resolve, random.below(400)));
      await killed(daemon);
      daemon = start();
      await daemon.talk.negotiate();
    }
    await daemon.talk.execute("block-job-set-speed", { device: "j", speed: 0 });
    await untilEnded(daemon);
    const history = await ask(daemon, "x-query-job-history");
    expect(history).toEqual([expect.objectContaining({ id: "j", outcome: wanted.outcome })]);
    await daemon.talk.execute("quit");
    expect(await daemon.ended).toMatchObject({ status: 0 });
    run("qemu-img", "convert", "-O", "raw", wanted.image, "after");
    expect(readFileSync(join(folder, "after")).equals(readFileSync(join(folder, "before")))).toBe(
      true,
    );
    for (const name of ["base", "mid", "top", "target"]) {
      expect(run("qemu-img", "check", "-r", "leaks", name)).toContain("No errors were found");
    }
  });
});

describe("a second daemon with the same journal", () => {
  it("is refused before it touches anything, and told which process has it", async () => {
    makeImages();
    const first = start();
    await first.talk.negotiate();
    const before = readFileSync(join(folder, "journal.json"));
    const { status, stderr } = await start().ended;
    expect({ status, stderr }).toMatchObject({
      status: 1,
      stderr: expect.stringMatching(`journal 'journal.json'.*process ${first.child.pid} has it`),
    });
    expect(readFileSync(join(folder, "journal.json")).equals(before)).toBe(true);
    // One that stands still has its images open all the same.
    first.kill("SIGSTOP");
    expect(await start().ended).toMatchObject({
      status: 1,
      stderr: expect.stringContaining("a process that does not answer has it"),
    });
    first.kill("SIGCONT");
    expect(await ask(first, "query-jobs")).toEqual([]);
    await killed(first);
    const next = start();
    await next.talk.negotiate();
    await next.talk.execute("quit");
    expect(await next.ended).toMatchObject({ status: 0 });
    expect(readdirSync(folder).filter((name) => name.includes("lock"))).toEqual([]);
  });

  it("is refused also when both begin at once", async () => {
    makeImages();
    const both = [start(), start()];
    const greeted = await Promise.all(both.map(({ talk }) => talk.next()));
    expect(greeted.filter((message) => message !== null)).toHaveLength(1);
    const loser = both[greeted.indexOf(null)]!;
    expect(await loser.ended).toMatchObject({ status: 1, stderr: expect.stringMatching("has it") });
  });
});

describe("a daemon that cannot be set up", () => {
  async function withMirror(): Promise<void> {
    makeImages();
    const daemon = start();
    await daemon.talk.negotiate();
    const job = { "job-id": "j", device: "top", speed: 2 ** 20, target: "target", sync: "full" };
    expect(await daemon.talk.execute("blockdev-mirror", job)).toHaveProperty("return");
    await killed(daemon);
  }

  async function untilMirrored(): Promise<void> {
    const daemon = start();
    await daemon.talk.negotiate();
    expect(await ask(daemon, "query-jobs")).toEqual([expect.objectContaining({ id: "j" })]);
    await daemon.talk.execute("block-job-set-speed", { device: "j", speed: 0 });
    await untilEnded(daemon);
    await daemon.talk.execute("quit");
    expect(await daemon.ended).toMatchObject({ status: 0 });
    expect(run("qemu-img", "compare", "top", "target")).toContain("identical");
  }

  it("leaves what is on record to the next one, jobs and all", async () => {
    await withMirror();
    const { status, stderr } = await start("socket,path=nowhere/q,server=on,wait=off,id=c").ended;
    expect({ status, stderr }).toMatchObject({
      status: 1,
      stderr: expect.stringMatching("nowhere"),
    });
    await untilMirrored();
  });

  it("since an image is away does so, too: it goes on when that is back", async () => {
    await withMirror();
    renameSync(join(folder, "target"), join(folder, "elsewhere"));
    expect(await start().ended).toMatchObject({
      status: 1,
      stderr: expect.stringContaining("job 'j' (kept): Node 'target' has not come back"),
    });
    renameSync(join(folder, "elsewhere"), join(folder, "target"));
    await untilMirrored();
  });
});

it("says so of a node that it leaves in the file on record, where its options name another one", async () => {
  makeImages();
  const daemon = start();
  await daemon.talk.negotiate();
  await killed(daemon);
  copyFileSync(join(folder, "target"), join(folder, "other"));
  const next = start("stdio,id=c", "journal.json", { target: "other" });
  await next.talk.negotiate();
  await next.talk.execute("quit");
  const { stderr } = await next.ended;
  expect(stderr.match(/^.*on record with.*$/gm)).toEqual([
    expect.stringMatching(/'target' is on record with 'target' .* says 'other'/),
  ]);
});

it("says why it ends when its journal cannot be kept, and nothing of its own code", async () => {
  makeImages();
  const daemon = start();
  await daemon.talk.negotiate();
  const path = join(folder, "journal.json");
  const later = { ...JSON.parse(readFileSync(path, "utf8")), epoch: 99 };
  writeFileSync(path, JSON.stringify(later));
  const add = { driver: "null-co", "node-name": "n", "read-zeroes": true };
  expect(await daemon.talk.execute("blockdev-add", add)).toHaveProperty("error");
  const { status, stderr } = await daemon.ended;
  expect(status).toBe(1);
  expect(stderr).toMatch(/^blocktab daemon: The engine has stopped as its journal .* on record\n$/);
  expect(JSON.parse(readFileSync(path, "utf8"))).toEqual(later);
});

it("has one journal under a link and under the name that it leads to", async () => {
  makeImages();
  symlinkSync("journal.json", join(folder, "link"));
  const first = start(undefined, "link");
  await first.talk.negotiate();
  expect(await start().ended).toMatchObject({
    status: 1,
    stderr: expect.stringMatching(`process ${first.child.pid} has it`),
  });
  expect(lstatSync(join(folder, "link")).isSymbolicLink()).toBe(true);
  expect(readFileSync(join(folder, "journal.json"), "utf8")).toContain('"top"');
});

it("leaves a journal alone that a newer program has written, and says what to do", async () => {
  const newer = '{"version":2,"epoch":7,"disks":"in a new way"}';
  writeFileSync(join(folder, "journal.json"), newer);
  const { status, stderr } = await start().ended;
  expect(status).toBe(1);
  expect(stderr).toContain("'journal.json': it is of version 2, and this one knows version 1.");
  expect(stderr).toContain("Go on with that one, or with a journal in another file");
  expect(readdirSync(folder)).toEqual(["journal.json"]);
  expect(readFileSync(join(folder, "journal.json"), "utf8")).toBe(newer);
});

it("leaves a disk image alone that was given as a journal, and says so", async () => {
  makeImages();
  const before = readFileSync(join(folder, "top"));
  copyFileSync(join(folder, "top"), join(folder, "journal.json"));
  const { status, stderr } = await start().ended;
  expect({ status, stderr }).toMatchObject({
    status: 1,
    stderr: expect.stringContaining("'journal.json' is no journal"),
  });
  expect(readFileSync(join(folder, "journal.json")).equals(before)).toBe(true);
});

it("answers what was asked before quit, in one go with it, before it ends", async () => {
  makeImages();
  const { talk, ended } = start();
  talk.send(
    '{"execute":"qmp_capabilities"}{"execute":"query-jobs","id":1}{"execute":"quit","id":2}',
  );
  for (const reply of [{ return: {} }, { return: [], id: 1 }, { return: {}, id: 2 }]) {
    expect(await talk.until("return")).toEqual(reply);
  }
  expect((await ended).status).toBe(0);
});
