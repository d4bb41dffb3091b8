/**
 * `rebase`: an image gets another backing file, or none. Safe: what it reads as stays the same. Unsafe
 * (-u): only the name is written, for who has moved or renamed the old one.
 */

import { BlockError } from "../../base/errors.ts";
import type { BlockBackend } from "../../block/backend.ts";
import * as io from "../../block/io.ts";
import { chainOf, skipFilters } from "../../block/status.ts";
import { checkSources } from "../../blockjob/preflight.ts";
import { type CacheMode, cacheMode } from "../cache-mode.ts";
import {
  type Arguments,
  CACHE,
  FORCE_SHARE,
  FORMAT,
  IMAGE_OPTS,
  type ImgCommand,
  OBJECT,
  PROGRESS,
  QUIET,
  SOURCE_CACHE,
  showsProgress,
} from "../command.ts";
import { formatDriver } from "../image-name.ts";
import { findInChain } from "../in-chain.ts";
import { holdImage, openAs, openImage } from "../open.ts";
import { Progress } from "../progress.ts";
import { takeOverDifferences } from "../rebase-loop.ts";
import type { Session } from "../session.ts";

export const rebase: ImgCommand = {
  name: "rebase",
  summary: "Changes an image's backing file",
  operands: "FILENAME",
  options: [
    QUIET,
    PROGRESS,
    FORMAT,
    IMAGE_OPTS,
    CACHE,
    { name: "backing", short: "b", value: "FILENAME", help: 'the new backing file; "": none' },
    { ...FORMAT, name: "backing-format", short: "F", help: "the new backing file's format" },
    { ...SOURCE_CACHE, name: "backing-cache" },
    { name: "backing-unsafe", short: "u", help: "writes the name, and looks at nothing" },
    { name: "compress", short: "c", help: "packs the clusters that are copied" },
    FORCE_SHARE,
    OBJECT,
  ],
  run,
};

async function run(session: Session, args: Arguments): Promise<number> {
  const name = args.oneImage();
  const unsafe = args.has("backing-unsafe");
  const backing = args.last("backing");
  const format = args.last("backing-format");
  if (backing === undefined && !unsafe) {
    throw new BlockError("EINVAL", "Expected a backing file (-b), or -u to write a name only");
  }
  const cache = cacheMode(args.last("cache") ?? "writeback");
  const backingCache = cacheMode(args.last("backing-cache") ?? "writeback");
  const how = { writable: true, cache, noBacking: unsafe };
  const image = await openImage(session, args.theImage(name), how);
  if (format !== undefined) formatDriver(session, format);
  const wanted: NewBacking = { name, backing: backing ?? "", format, cache: backingCache };
  const progress = new Progress(session, showsProgress(args));
  try {
    await progress.report(0);
    if (!unsafe) await makeSafe(session, args, image, wanted, progress);
    await rename(session, image, wanted);
    await progress.report(100);
  } finally {
    await progress.end();
  }
  return 0;
}

interface NewBacking {
  readonly name: string;
  /** "": none. */
  readonly backing: string;
  readonly format: string | undefined;
  readonly cache: CacheMode;
}

async function makeSafe(
  session: Session,
  args: Arguments,
  image: BlockBackend,
  wanted: NewBacking,
  progress: Progress,
): Promise<void> {
  const compress = args.has("compress");
  if (compress && !io.canWriteCompressed(image.node)) {
    throw new BlockError("ENOTSUP", `Format '${image.node.driver.name}' packs no clusters`);
  }
  const { backing, name } = wanted;
  // Before anything is copied.
  checkRecordable(image, wanted);
  await checkSources(chainOf(image.node));
  const inChain =
    backing === "" ? undefined : await findInChain(session, image.node, name, backing);
  const next =
    backing === ""
      ? null
      : inChain
        ? await holdImage(session, inChain, backing, {})
        : await openBacking(session, wanted);
  await takeOverDifferences({
    image,
    backing: next,
    inChain: inChain ?? null,
    compress,
    progress: (done, total) => progress.report((done / total) * 100),
    ...(session.signal && { signal: session.signal }),
  });
  await image.flush();
  if (next) await session.release(next);
}

async function openBacking(
  session: Session,
  { name, backing, format, cache }: NewBacking,
): Promise<BlockBackend> {
  const { host } = session;
  // The user has named it: it is followed wherever it is.
  return openAs(session, backing, { cache }, async () => ({
    driver: formatDriver(session, format!).name,
    file: host.store(await host.follow(backing, { image: name, role: "backing", trusted: true })),
  }));
}

/** @throws BlockError ENOTSUP, EINVAL if the name could not be written at the end */
function checkRecordable(image: BlockBackend, { backing, format }: NewBacking): void {
  const { state, driver } = skipFilters(image.node);
  if (!state.changeBackingFile) {
    throw new BlockError("ENOTSUP", `Format '${driver.name}' keeps no name of a backing file`);
  }
  if (backing === "" || format !== undefined) return;
  throw new BlockError(
    "EINVAL",
    `The backing file '${backing}' is given without its format: give -F, too`,
  );
}

async function rename(session: Session, image: BlockBackend, wanted: NewBacking): Promise<void> {
  checkRecordable(image, wanted);
  const { backing, format } = wanted;
  const { state } = skipFilters(image.node);
  const [name, recorded] = backing === "" ? [null, null] : [backing, format ?? null];
  await session.graph.drained([image.node], async () => {
    await state.changeBackingFile?.(name, recorded);
  });
}
