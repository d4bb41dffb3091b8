/**
 * `npm run demo [-- path/to/image] [--speed 8M]`: the main job from end to end, without a hand on
 * the mouse, and with QEMU's own tools as judges of what comes out.
 */

import { mkdirSync, mkdtempSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { seededRandom } from "../src/base/random.ts";
import { formatBytes, formatSeconds, formatSpeed, parseSpeed } from "../web/format.ts";
import { ensurePage } from "./page.ts";
import { launchChromium, PageDriver, PageError, type ShownJob } from "./page-driver.ts";
import { checkImage, compareImages, diskSha256, type GuestWrite, makeExpected } from "./qemu.ts";
import { chooseTemplate } from "./serve.ts";
import { type RunningServer, startServer } from "./server.ts";
import { ROOT, UserError } from "./setup.mjs";
import { drawChain, type Template } from "./template.ts";
import { ProgressLine } from "./terminal.ts";

const USAGE = `Usage: npm run demo -- [path/to/image] [--speed BYTES]

Streams the image (raw or qcow2, backing chain included; without one a demo disk) from a web server
into a headless Chromium, writes to the disk meanwhile, and lets qemu-img judge the result.
--speed takes 500k, 8M, 8 MiB/s or unlimited; without it the demo disk comes at 32 MiB/s.`;

const DEMO_SPEED = 32 * 2 ** 20;
const SECTOR = 512;
/** The exit status of a program that Ctrl-C has ended. */
const INTERRUPTED = 130;
/** Where on the disk the page writes while the job runs: parts of its size, in this order. */
const WRITES_AT = [0.95, 0.02, 0.5, 0.3, 0.75];

interface Verdict {
  readonly title: string;
  /** null: all is well. */
  readonly problem: string | null;
}

export async function main(args: string[]): Promise<number> {
  const { values, positionals } = parse(args);
  if (values.help) {
    console.log(USAGE);
    return 0;
  }
  const given = values.speed === undefined ? undefined : speedOf(values.speed);
  const template = await chooseTemplate(positionals);
  const speed = given ?? (template.demo ? DEMO_SPEED : 0);
  const page = await ensurePage();

  mkdirSync(join(ROOT, ".blocktab"), { recursive: true });
  const folder = mkdtempSync(join(ROOT, ".blocktab", "run-"));
  const cleaning = new Cleaning();
  cleaning.add(() => rmSync(folder, { recursive: true, force: true, maxRetries: 5 }));
  try {
    const server = await startServer({ page, template, port: 0 });
    cleaning.add(() => server.close());
    const chromium = await launchChromium(join(folder, "profile"));
    cleaning.add(() => chromium.close());
    const driver = new PageDriver(chromium.pages()[0] ?? (await chromium.newPage()));
    const verdicts = await play({ driver, server, template, speed, folder });
    return report(verdicts);
  } catch (error) {
    // The browser went away under the play.
    if (cleaning.isInterrupted) return INTERRUPTED;
    if (!(error instanceof PageError)) throw error;
    throw new UserError(`the page says: ${error.message}`);
  } finally {
    await cleaning.run();
  }
}

interface Stage {
  readonly driver: PageDriver;
  readonly server: RunningServer;
  readonly template: Template;
  readonly speed: number;
  readonly folder: string;
}

async function play(stage: Stage): Promise<Verdict[]> {
  const { driver, server, template, folder } = stage;
  const size = formatBytes(template.virtualSize);
  console.log(`\n1. Template ${template.name}, a disk of ${size}, served at ${server.url}`);
  console.log(`   ${drawChain(template)}`);
  await driver.goto(server.url);

  console.log('\n2. "Try it"');
  await driver.tryIt();
  console.log(`   ${await driver.chain()}`);
  const first = await driver.readSector(0);
  console.log(`   reads at once; sector 0 begins with ${preview(first)}`);

  console.log(
    `\n3. block-stream, limit ${formatSpeed(stage.speed)} (holes and zeroes cost nothing)`,
  );
  const { writes, job, seconds } = await stream(stage);
  await driver.until("the chain is one local image", async () => (await driver.images()) === 1);
  console.log(`   ${job.outcome} after ${formatSeconds(seconds)}: ${await driver.chain()}`);

  console.log(
    "\n4. The server drops the template; the page is loaded anew and reads its whole disk",
  );
  server.templateUp = false;
  await driver.reload();
  await driver.waitForDisk();
  const line = new ProgressLine();
  const whole = await driver.verify((offset) => line.show({ offset, len: template.virtualSize }));
  line.end();
  console.log(`   ${formatBytes(whole.bytes)}, SHA-256 ${whole.sha256}`);

  console.log("\n5. Download");
  const downloaded = join(folder, "disk.qcow2");
  await driver.download(downloaded);
  console.log(`   disk.qcow2, ${formatBytes(statSync(downloaded).size)}\n`);

  const expected = join(folder, "expected.qcow2");
  const [top] = template.chain;
  await makeExpected(expected, top!, writes);
  const sum = await diskSha256(expected);
  return [
    {
      title: `block-stream ${job.outcome}, ${formatBytes(job.len)}`,
      problem: job.outcome === "completed" ? null : `the job was ${job.outcome}`,
    },
    {
      title: `the page reads the template plus its ${writes.length} writes`,
      problem: whole.sha256 === sum ? null : `QEMU's SHA-256 of that is ${sum}`,
    },
    { title: "qemu-img check: no errors, no leaks", problem: await checkImage(downloaded) },
    {
      title: "qemu-img compare: identical to the template plus the writes",
      problem: await compareImages(downloaded, expected),
    },
  ];
}

/** Lets the job run to its end, and writes to the disk on the way. */
async function stream({ driver, template, speed }: Stage) {
  const startMs = performance.now();
  const plan = planWrites(template.virtualSize);
  const writes: GuestWrite[] = [];
  const line = new ProgressLine();
  const write = async (when: string) => {
    const next = plan.shift();
    if (next === undefined) return;
    await driver.writeSector(next.offset, next.bytes);
    writes.push(next);
    line.say(`the page wrote sector ${next.offset / SECTOR} ${when}`);
  };
  let isLimited = false;
  const job: ShownJob = await driver.waitForOutcome(async (now) => {
    line.show({ ...now, notes: notesOf(now) });
    if (now.outcome !== "") return;
    // The first write before the job goes faster: small disks are done in no time.
    await write(`with the job at ${Math.floor((now.offset / now.len) * 100)} %`);
    if (!isLimited && (await driver.job())?.status === "running") {
      await driver.setSpeed(speed === 0 ? "unlimited" : String(speed));
      isLimited = true;
    }
  });
  line.end();
  if (job.outcome !== "completed") await driver.throwIfError();
  while (plan.length > 0) await write("after the job");
  return { writes, job, seconds: (performance.now() - startMs) / 1000 };
}

/** Rate and time left, where the page knows them. */
function notesOf({ rate, eta }: ShownJob): string[] {
  return [rate, eta === "–" ? "–" : `${eta} left`].filter((note) => note !== "–");
}

function planWrites(size: number): GuestWrite[] {
  const random = seededRandom(size % 2 ** 32);
  const sectors = Math.floor(size / SECTOR);
  if (sectors === 0) return [];
  return WRITES_AT.map((part) => {
    const bytes = new Uint8Array(SECTOR);
    random.fill(bytes);
    return { offset: Math.floor(part * sectors) * SECTOR, bytes };
  });
}

function report(verdicts: readonly Verdict[]): number {
  for (const { title, problem } of verdicts) {
    console.log(problem === null ? `ok      ${title}` : `FAILED  ${title}\n        ${problem}`);
  }
  return verdicts.every(({ problem }) => problem === null) ? 0 : 1;
}

/** The first bytes as text where they are text, else as hex. */
function preview(bytes: Uint8Array): string {
  const text = Buffer.from(bytes.subarray(0, 32)).toString("latin1");
  if (/^[\x20-\x7e]+/.test(text)) return `"${/^[\x20-\x7e]+/.exec(text)![0]}"`;
  return Buffer.from(bytes.subarray(0, 16)).toString("hex");
}

function parse(args: string[]) {
  try {
    return parseArgs({
      args,
      allowPositionals: true,
      options: { speed: { type: "string" }, help: { type: "boolean", short: "h" } },
    });
  } catch (error) {
    throw new UserError(`${(error as Error).message}\n\n${USAGE}`);
  }
}

function speedOf(text: string): number {
  const speed = parseSpeed(text);
  if (speed !== undefined) return speed;
  throw new UserError(`a speed is written like 500k, 8M, 8 MiB/s or unlimited; got '${text}'`);
}

/** What has to be undone at the end, last first; also when somebody presses Ctrl-C. */
class Cleaning {
  isInterrupted = false;
  readonly #steps: (() => unknown)[] = [];
  #running: Promise<void> | undefined;

  constructor() {
    const stop = () => {
      this.isInterrupted = true;
      void this.run().finally(() => process.exit(INTERRUPTED));
    };
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.once(signal, stop);
  }

  add(step: () => unknown): void {
    this.#steps.push(step);
  }

  /** Does it once, however often it is called. */
  run(): Promise<void> {
    this.#running ??= this.#runAll();
    return this.#running;
  }

  async #runAll(): Promise<void> {
    for (const step of this.#steps.reverse()) await step();
  }
}
