/** The log of blklogwrites below a qcow2 image, of QEMU's and of ours: it makes the image again, and its crashes. */

import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { KiB, MiB } from "../../src/base/bytes.ts";
import { seededRandom } from "../../src/base/random.ts";
import { filled, filterRig } from "../drivers/filter/rig.ts";
import { differs, readLog, replay } from "../drivers/filter/write-log.ts";
import { hasQemu, qemuCheck, qemuImg, testFolder, writeRaw } from "../drivers/format/rig.ts";
import { Content } from "./log.ts";
import { choicesOf, StateMaker } from "./states.ts";
import { entriesOf } from "./written-log.ts";

const folder = testFolder();
const CLUSTER = 4 * KiB;
const REQUESTS = 60;
const LEAKS = 3;

interface Request {
  readonly verb: "write" | "write -z -u" | "discard" | "flush";
  readonly offset: number;
  readonly bytes: number;
  readonly value: number;
}

/** Writes, zeroes and discards of whole clusters: then both drop the same ones. */
function requestsOf(seed: number): Request[] {
  const random = seededRandom(seed);
  const verbs = ["write", "write", "write", "write -z -u", "discard", "flush"] as const;
  return Array.from({ length: REQUESTS }, () => ({
    verb: verbs[random.below(verbs.length)]!,
    offset: CLUSTER * random.below(MiB / CLUSTER),
    bytes: CLUSTER * (1 + random.below(12)),
    value: 1 + random.below(255),
  }));
}

type Writer = (options: object, requests: readonly Request[]) => Promise<void>;

const WRITERS: Record<string, Writer> = {
  async QEMU(options, requests) {
    const commands = requests.flatMap(({ verb, offset, bytes, value }) => {
      if (verb === "flush") return ["-c", verb];
      return ["-c", `${verb}${verb === "write" ? ` -P ${value}` : ""} ${offset} ${bytes}`];
    });
    const image = `json:${JSON.stringify(options)}`;
    execFileSync("qemu-io", ["-t", "writeback", ...commands, image]);
  },
  async blocktab(options, requests) {
    const rig = await filterRig();
    const disk = await rig.open(options as { driver: string });
    for (const { verb, offset, bytes, value } of requests) {
      if (verb === "write") await disk.write(filled(bytes, value), offset);
      if (verb === "write -z -u") await disk.writeZeroes(offset, bytes, { mayUnmap: true });
      if (verb === "discard") await disk.discard(offset, bytes);
      if (verb === "flush") await disk.flush();
    }
    await rig.close(disk);
  },
};

describe.skipIf(!hasQemu)("the log that blklogwrites writes below a qcow2 image", () => {
  it.each(Object.keys(WRITERS))(
    "of %s makes the image again, and what crashes leave",
    async (who) => {
      for (let seed = 1; seed <= 3; seed++) {
        const what = `seed ${seed}`;
        const { start, bytes, end } = await logged(WRITERS[who]!, seed);
        const written = readLog(bytes);
        // The log does not know how long the file has become.
        const before = new Content(start.slice());
        before.resize(end.length);
        const replayed = replay(written, written.entries.length, before.bytes);
        expect(differs(replayed, end), what).toBe(-1);

        const log = entriesOf(bytes, "image");
        const maker = new StateMaker(new Map([["image", start]]), log);
        const random = seededRandom(seed);
        for (const choice of choicesOf(log, random)) {
          if (random.below(20) > 0) continue;
          writeRaw(folder, "crashed.qcow2", maker.make(choice).get("image")!);
          const { status, text } = qemuCheck(folder, "crashed.qcow2");
          expect([0, LEAKS], `${what}, cut at ${choice.cut}: ${text}`).toContain(status);
        }
      }
    },
  );
});

interface Logged {
  readonly start: Uint8Array<ArrayBuffer>;
  /** The log's file. */
  readonly bytes: Uint8Array;
  readonly end: Uint8Array;
}

async function logged(write: Writer, seed: number): Promise<Logged> {
  const [image, log] = ["image.qcow2", "image.log"].map((name) => join(folder, name));
  qemuImg(folder, "create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", image!, "2M");
  writeFileSync(log!, "");
  const start = new Uint8Array(readFileSync(image!));
  const file = { driver: "file", filename: image, discard: "unmap" };
  const options = {
    driver: "qcow2",
    discard: "unmap",
    file: {
      driver: "blklogwrites",
      discard: "unmap",
      file,
      log: { driver: "file", filename: log },
    },
  };
  await write(options, requestsOf(seed));
  return { start, bytes: readFileSync(log!), end: readFileSync(image!) };
}
