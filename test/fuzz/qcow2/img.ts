/**
 * An image on the command line: what `img` does with it, in memory. Beside what abuse.ts holds all to:
 *
 *     a status, and no other error       what only reads changes nothing       no name is followed
 *     a clean image stays clean, and what is made of one is clean and the same
 *     who is told to stop does: a command that asks for much is, and may ask for little more then
 */

import { BlockError } from "../../../src/base/errors.ts";
import type { VirtualClock } from "../../../src/base/virtual-clock.ts";
import type { World } from "../../../src/block/driver.ts";
import { qcow2Driver } from "../../../src/drivers/format/qcow2/index.ts";
import { rawDriver } from "../../../src/drivers/format/raw.ts";
import type { ImgHost } from "../../../src/img/host.ts";
import { img } from "../../../src/img/img.ts";
import type { Dice } from "../../model/dice.ts";
import { judge } from "./judge.ts";
import { PASSPHRASE, SECRET } from "./luks.ts";
import { type FuzzStores, traps } from "./store.ts";

/** Requests after which a command is told to stop, and how many more it may need to do so. */
const REQUESTS = 1500;
const REQUESTS_TO_END = 3000;
/** At the clock, after which it is told to stop, too. */
const LOOKS = 6000;
const BYTES = 2 ** 31;
/** Of the event loop: keys are derived by another thread, which may have to wait for a processor. */
const TURNS = 5_000_000;

const IMAGE = "driver=qcow2,file.driver=fuzz-store,file.name=image,backing=";
const OVER_BASE =
  "driver=qcow2,file.driver=fuzz-store,file.name=image,backing.driver=raw," +
  "backing.file.driver=fuzz-store,backing.file.name=base";

export type FuzzWorld = World & { readonly clock: VirtualClock };

interface Command {
  readonly argv: readonly string[];
  /** All but the image that may be changed. */
  readonly makes?: readonly string[];
  readonly changesImage?: boolean;
}

const NODE = { driver: "qcow2", backing: null, file: { driver: "fuzz-store", name: "image" } };
const json = `json:${JSON.stringify(NODE)}`;

/** The same command for one who knows the passphrase, where a command line has room for it. */
function unlocking([name, ...args]: readonly string[]): readonly string[] {
  const encrypt = { format: "luks", "key-secret": SECRET };
  const words = args.map((arg) => {
    if (arg === json) return `json:${JSON.stringify({ ...NODE, encrypt })}`;
    if (arg !== IMAGE && arg !== OVER_BASE) return arg;
    return arg.replace(
      "driver=qcow2,",
      `driver=qcow2,encrypt.format=luks,encrypt.key-secret=${SECRET},`,
    );
  });
  return [name!, "--object", `secret,id=${SECRET},data=${PASSPHRASE}`, ...words];
}

const READING: readonly Command[] = [
  { argv: ["info", "--output=json", "image"] },
  { argv: ["info", "--backing-chain", "image"] },
  { argv: ["map", "--output=json", json] },
  { argv: ["map", "image"] },
  { argv: ["measure", "-O", "qcow2", json] },
  { argv: ["measure", "-O", "raw", "-l", "1", "image"] },
  { argv: ["check", "--output=json", "image"] },
  { argv: ["snapshot", "-l", "image"] },
  { argv: ["compare", json, "base"] },
  {
    argv: ["dd", "-f", "qcow2", "-O", "raw", "if=image", "of=out", "bs=64k", "count=9"],
    makes: ["out"],
  },
];

const CONVERTING: readonly Command[] = [
  ["-O", "raw"],
  ["-O", "qcow2"],
  ["-O", "qcow2", "-c"],
  ["-O", "qcow2", "-o", "cluster_size=512,compat=0.10", "-S", "0"],
  ["-O", "qcow2", "-l", "1"],
  ["-O", "raw", "--salvage"],
].map((options) => ({ argv: ["convert", ...options, json, "out"], makes: ["out"] }));

const CHANGING: readonly Command[] = [
  { argv: ["commit", "--image-opts", OVER_BASE], makes: ["base"] },
  { argv: ["commit", "-d", "--image-opts", OVER_BASE], makes: ["base"] },
  { argv: ["rebase", "--image-opts", "-b", "", IMAGE] },
  { argv: ["rebase", "--image-opts", "-b", "", OVER_BASE] },
  { argv: ["rebase", "-f", "qcow2", "-b", "base", "-F", "raw", "image"] },
  { argv: ["rebase", "-f", "qcow2", "-u", "-b", "elsewhere", "-F", "raw", "image"] },
  { argv: ["snapshot", "-c", "new", "image"] },
  { argv: ["snapshot", "-a", "1", "image"] },
  { argv: ["snapshot", "-d", "1", "image"] },
  { argv: ["resize", "--shrink", "image", "64k"] },
  { argv: ["resize", "image", "+1M"] },
  { argv: ["amend", "-o", "compat=1.1", "image"] },
  { argv: ["bitmap", "--add", "image", "bitmap9"] },
  { argv: ["check", "-r", "leaks", "image"] },
].map((command) => ({ ...command, changesImage: true }));

/**
 * Does one command with what lies in `stores` as "image", which may be another one afterwards.
 *
 * @throws Error if anything of the above does not hold
 */
export async function abuseWithImg(
  world: FuzzWorld,
  stores: FuzzStores,
  { encrypted, isClean }: { readonly encrypted: boolean; readonly isClean: boolean },
  dice: Dice,
  story: string[],
  tell: (kind: string) => void,
): Promise<void> {
  const base = new Uint8Array(65536);
  dice.random.fill(base.subarray(20_000, 25_000));
  stores.put("base", base);
  const command = dice.pick(dice.pick([READING, CONVERTING, CHANGING]));
  const { argv, makes = [], changesImage = false } = command;
  const known = (words: readonly string[]) => (encrypted ? unlocking(words) : words);
  const status = await run(world, stores, known(argv), story);
  tell(`${status} of img ${argv[0]}`);
  for (const name of stores.changed) {
    if (makes.includes(name) || (changesImage && (name === "image" || name === "data"))) continue;
    throw new Error(`img ${argv.join(" ")} has changed '${name}'`);
  }
  if (!isClean) return;
  checkClean(stores, "image");
  if (argv[0] !== "convert" || status !== 0) return;
  if (argv[2] === "qcow2") checkClean(stores, "out");
  if (argv.includes("-l") || argv.includes("--salvage")) return;
  const compare = known(["compare", "-F", argv[2]!, json, "out"]);
  const same = await run(world, stores, compare, story);
  // Told to stop, it has no answer.
  if (stores.wasEnded) return;
  if (same !== 0) throw new Error(`compare says ${same} of what convert has made`);
  tell("converted and compared");
}

async function run(
  world: FuzzWorld,
  stores: FuzzStores,
  argv: readonly string[],
  story: string[],
): Promise<number> {
  story.push(`img ${argv.join(" ")}`);
  stores.expect(`img ${argv[0]}`, { requests: REQUESTS + REQUESTS_TO_END, bytes: BYTES });
  const host: ImgHost = {
    name: "img",
    version: "0",
    world,
    drivers: [qcow2Driver(), rawDriver(), stores.driver(), ...traps()] as never,
    signal: stores.endAfter(REQUESTS, LOOKS),
    store: (name) => ({ driver: "fuzz-store", name }) as never,
    async follow(label, { role, trusted }) {
      if (trusted || role === "data-file") return role === "data-file" ? "data" : label;
      throw new BlockError("EPERM", `'${label}' is not followed`);
    },
    fullName: (label) => label,
    // Whatever is left of a target that could not be made is judged, too.
    remove: async () => {},
    print: async () => {},
    complain: async (text) => void story.push(text.slice(0, 200)),
  };
  // Which also throws where nothing goes on any more.
  return world.clock.runUntil(img(argv, host), TURNS);
}

function checkClean(stores: FuzzStores, name: string): void {
  const { corruptions, passedOver } = judge(stores.source(name));
  const wrong = [...corruptions, ...passedOver];
  if (wrong.length > 0) throw new Error(`img leaves '${name}' corrupt: ${wrong.join("; ")}`);
}
