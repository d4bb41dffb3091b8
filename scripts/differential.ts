/** `npm run differential`: the same words to the real qemu-storage-daemon and to ours. */

import { parseArgs } from "node:util";
import { type Daemon, HOW_TO_INSTALL, isBefore, realDaemons } from "../test/differential/daemon.ts";
import { ImageStock } from "../test/differential/images.ts";
import { RECORDED_SINCE, readRecordings, writeRecordings } from "../test/differential/record.ts";
import { AREAS, SCRIPTS } from "../test/differential/scripts/index.ts";
import { judge, listen } from "../test/differential/suite.ts";
import type { Transcript } from "../test/differential/transcript.ts";
import { UserError } from "./setup.mjs";

const USAGE = `Usage: npm run differential -- [--only NAME] [--repeat N] [--list | --record]

Runs each script of test/differential/scripts/ on the real qemu-storage-daemon and on blocktab's, and
shows where they differ; docs/differential.md tells how to read it. With QEMU_STORAGE_DAEMON_10 in
the environment, the path of a qemu-storage-daemon of QEMU 10, on that one as well.

  --only NAME   only scripts that have this in their names
  --repeat N    each of them N times
  --list        names the scripts, and counts them by area
  --record      keeps what QEMU 10 says in test/differential/recorded/`;

export async function main(args: string[]): Promise<number> {
  const values = parse(args);
  if (values.help) {
    console.log(USAGE);
    return 0;
  }
  const isChosen = (title: string) => title.includes(values.only);
  if (values.list) return list(isChosen);
  const daemons = realDaemons();
  if (daemons.length === 0) throw new UserError(HOW_TO_INSTALL);
  if (!SCRIPTS.some(({ title }) => isChosen(title))) {
    throw new UserError(`no script has '${values.only}' in its name; --list shows them all`);
  }
  const stock = new ImageStock();
  try {
    if (values.record) return await record(daemons, stock, isChosen);
    return await run(daemons, stock, isChosen, Number(values.repeat));
  } finally {
    await stock.end();
  }
}

function parse(args: string[]) {
  try {
    return parseArgs({
      args,
      options: {
        only: { type: "string", default: "" },
        repeat: { type: "string", default: "1" },
        list: { type: "boolean" },
        record: { type: "boolean" },
        help: { type: "boolean", short: "h" },
      },
    }).values;
  } catch (error) {
    throw new UserError((error as Error).message);
  }
}

function list(isChosen: (title: string) => boolean): number {
  for (const { title, script } of SCRIPTS.filter((one) => isChosen(one.title))) {
    const { open } = script.options;
    console.log(open === undefined ? title : `${title}  (not right yet: ${open})`);
  }
  console.log("");
  for (const { title, scripts } of AREAS)
    console.log(`${`${scripts.length}`.padStart(4)}  ${title}`);
  console.log(`${`${SCRIPTS.length}`.padStart(4)}  in all`);
  return 0;
}

async function run(
  daemons: readonly Daemon[],
  stock: ImageStock,
  isChosen: (title: string) => boolean,
  times: number,
): Promise<number> {
  let [agreed, differed] = [0, 0];
  for (const { title, script } of SCRIPTS.filter((one) => isChosen(one.title))) {
    for (let i = 0; i < times; i++) {
      const { verdicts } = await judge(script, daemons, stock);
      for (const { title: from, report } of verdicts) {
        const agrees = report.length === 0;
        if (agrees) agreed++;
        else differed++;
        console.log(`${agrees ? "ok    " : "FAILED"}  ${title}  (${from})`);
        for (const line of report) console.log(`        ${line}`);
      }
    }
  }
  console.log(`${agreed} agree, ${differed} differ`);
  return differed === 0 ? 0 : 1;
}

/** Also where ours differs: what QEMU does is a fact. */
async function record(
  daemons: readonly Daemon[],
  stock: ImageStock,
  isChosen: (title: string) => boolean,
): Promise<number> {
  const daemon = daemons.find((one) => !isBefore(one, RECORDED_SINCE));
  if (!daemon) throw new UserError("--record needs QEMU_STORAGE_DAEMON_10 in the environment");
  for (const { title, scripts } of AREAS) {
    const before = readRecordings(title);
    const now: [string, string, Transcript][] = [];
    for (const script of scripts) {
      const old = before.get(script.name);
      if (old && !isChosen(`${title}: ${script.name}`)) {
        now.push([script.name, old.daemon.version!, old.transcript]);
        continue;
      }
      now.push([script.name, daemon.version!, await listen(script, daemon, stock)]);
      console.log(`recorded  ${title}: ${script.name}`);
    }
    writeRecordings(title, now);
  }
  return 0;
}
