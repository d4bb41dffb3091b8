/**
 * `convert`: what one or several images read as, in an image of another format, packed, on another
 * backing file; the copying itself is in convert-loop.ts.
 *
 * Whatever can be refused is refused before the target is made. A target that could not be finished
 * stays, as qemu-img's does, and it is said that it is not whole.
 */

import { SECTOR_BYTES } from "../../base/bytes.ts";
import { BlockError } from "../../base/errors.ts";
import type { BlockBackend } from "../../block/backend.ts";
import * as io from "../../block/io.ts";
import { backingOf, chainOf } from "../../block/status.ts";
import { checkSources } from "../../blockjob/preflight.ts";
import { cacheMode } from "../cache-mode.ts";
import {
  type Arguments,
  FORCE_SHARE,
  FORMAT,
  IMAGE_OPTS,
  type ImgCommand,
  OBJECT,
  PROGRESS,
  QUIET,
  RATE,
  SOURCE_CACHE,
  showsProgress,
} from "../command.ts";
import { type ConversionFailure, convertDisk } from "../convert-loop.ts";
import { type ConvertPlan, planConvert } from "../convert-plan.ts";
import { checkBitmaps, checkBitmapsFit, copyBitmaps } from "../copy-bitmaps.ts";
import { makeTarget } from "../copy-target.ts";
import { asksForHelp, describeNewImage, joinLists } from "../create-options.ts";
import { formatDriver } from "../image-name.ts";
import { openImage } from "../open.ts";
import { Progress } from "../progress.ts";
import type { Session } from "../session.ts";
import { loadSnapshot } from "../snapshot-source.ts";
import { Sources } from "../sources.ts";

export const convert: ImgCommand = {
  name: "convert",
  summary: "Copies images into another, of another format",
  operands: "SOURCE… TARGET",
  options: [
    QUIET,
    PROGRESS,
    {
      ...FORMAT,
      name: "source-format",
      help: "the sources' format, which is looked for otherwise",
    },
    IMAGE_OPTS,
    {
      name: "source-snapshot",
      short: "l",
      value: "SNAPSHOT",
      help: "reads an internal snapshot, by id or name, or\nas snapshot.id=…,snapshot.name=…",
    },
    { ...SOURCE_CACHE, name: "source-cache" },
    { ...FORMAT, name: "target-format", short: "O", help: "the target's format; raw unless given" },
    { name: "target-image-opts", help: "the target is named by options; needs -n" },
    {
      name: "target-options",
      short: "o",
      value: "OPTION=VALUE,…",
      help: "of the new image; -o help lists them",
    },
    { name: "compress", short: "c", help: "packs the target's clusters" },
    {
      ...SOURCE_CACHE,
      name: "target-cache",
      short: "t",
      help: "the same for the target; unsafe unless given",
    },
    { name: "backing", short: "B", value: "FILENAME", help: "the new image's backing file" },
    { ...FORMAT, name: "backing-format", short: "F", help: "the backing file's format" },
    { name: "no-create", short: "n", help: "the target is there already" },
    { name: "target-is-zero", help: "and reads as zeroes; needs -n" },
    {
      name: "sparse-size",
      short: "S",
      value: "BYTES",
      help: "zeroes shorter than this between data are\nwritten; 0: all are. 4k unless given",
    },
    { name: "bitmaps", help: "takes persistent bitmaps over" },
    { name: "skip-broken-bitmaps", help: "and leaves inconsistent ones out" },
    FORCE_SHARE,
    RATE,
    {
      name: "parallel",
      short: "m",
      value: "N",
      help: "reads this many runs side by side: 1 to 16;\n8 unless given",
    },
    { name: "copy-range-offloading", short: "C", help: "taken, without effect" },
    { name: "salvage", help: "takes for zeroes what cannot be read" },
    { name: "oob-writes", short: "W", help: "writes out of order" },
    OBJECT,
  ],
  run,
};

async function run(session: Session, args: Arguments): Promise<number> {
  const list = joinLists(args.all("target-options"));
  const format = args.last("target-format") ?? "raw";
  if (asksForHelp(list)) {
    formatDriver(session, format);
    await session.print(describeNewImage(format, args.operands.length > 1));
    return 0;
  }
  const plan = planConvert(args, format, list);
  const progress = new Progress(session, showsProgress(args));
  try {
    await progress.report(0);
    await convertPlanned(session, args, plan, progress);
    await progress.report(100);
  } finally {
    await progress.end();
  }
  return 0;
}

async function convertPlanned(
  session: Session,
  args: Arguments,
  plan: ConvertPlan,
  progress: Progress,
): Promise<void> {
  const cache = cacheMode(args.last("target-cache") ?? "unsafe");
  const backends = await openSources(session, args, plan);
  const sources = new Sources(backends);
  const [first] = backends as [BlockBackend];
  // Who salvages knows that the image is damaged.
  if (!args.has("salvage")) await checkSources(backends.flatMap(({ node }) => chainOf(node)));
  if (args.has("bitmaps")) checkBitmaps(first.node, args.has("skip-broken-bitmaps"));
  const warn = async (problem: string) => {
    if (!args.has("quiet")) await session.complain(problem);
  };

  const values = plan.targetValues(session, sources.length);
  const { target: name, format } = plan;
  const target = values
    ? await makeTarget(session, { name, format, values, cache })
    : await openImage(session, plan.targetName(), { writable: true, cache });
  // What was there is as it was until the copying begins.
  let isTouched = values !== null;
  try {
    if (args.has("bitmaps")) checkBitmapsFit(first.node, target.node);
    if (plan.compress && !io.canWriteCompressed(target.node)) {
      throw new BlockError("ENOTSUP", `Format '${target.node.driver.name}' packs no clusters`);
    }
    if (Math.ceil(target.length / SECTOR_BYTES) * SECTOR_BYTES < sources.length) {
      throw new BlockError(
        "EINVAL",
        `The target of ${target.length} bytes is smaller than the source of ${sources.length}`,
      );
    }
    isTouched = true;
    const problems: Promise<void>[] = [];
    const failure = await convertDisk({
      sources,
      target,
      length: sources.length,
      compress: plan.compress,
      sparse: plan.sparse,
      isZero: args.has("target-is-zero") || (values !== null && plan.readsAsZeroes(values)),
      backingLength: backingLength(target, args, values !== null),
      parallel: plan.parallel,
      outOfOrder: args.has("oob-writes") && !plan.compress,
      rate: plan.rate,
      ...(args.has("salvage") && {
        salvage: (problem: string) => void problems.push(warn(`warning: ${problem}`)),
      }),
      progress: (done, total) => progress.report((done / total) * 100),
      clock: session.graph.world.clock,
      ...(session.signal && { signal: session.signal }),
    });
    await Promise.all(problems);
    if (failure) throw failed(failure);
    if (args.has("bitmaps")) await copyBitmaps(session, first.node, target.node, warn);
    // Here, so that what cannot be written back is a failure of the command.
    await session.release(target);
  } catch (error) {
    if (!(error instanceof BlockError) || !isTouched) throw error;
    throw new BlockError(error.errno, `${error.message}; '${plan.target}' is not complete`, {
      cause: error,
    });
  }
}

async function openSources(
  session: Session,
  args: Arguments,
  { sources, snapshot }: ConvertPlan,
): Promise<BlockBackend[]> {
  const cache = cacheMode(args.last("source-cache") ?? "writeback");
  const isOptions = args.has("image-opts");
  const backends: BlockBackend[] = [];
  for (const name of sources) {
    const image = { name, format: args.last("source-format"), isOptions };
    backends.push(await openImage(session, image, { cache }));
  }
  if (snapshot !== undefined) loadSnapshot(backends[0]!.node, snapshot);
  return backends;
}

/**
 * null: nothing shows through in the target. Of one that was there nobody knows that it inherits the
 * same as the source where it ends, so that is taken to be at the target's end.
 */
function backingLength(target: BlockBackend, args: Arguments, isNew: boolean): number | null {
  const backing = backingOf(target.node);
  if (isNew && backing) return io.getLength(backing);
  return args.has("backing") ? target.length : null;
}

function failed({ stage, offset, error }: ConversionFailure): BlockError {
  const where = {
    status: `Finding out what is allocated at byte ${offset}`,
    read: `Reading at byte ${offset}`,
    write: `Writing at byte ${offset}`,
    flush: "Flushing the target",
  };
  return error.errno === "ECANCELED" ? error : error.prepend(where[stage]);
}
