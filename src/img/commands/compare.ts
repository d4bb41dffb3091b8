/** `compare`: do two images read the same? The exit status tells: see STATUS. */

import { BlockError } from "../../base/errors.ts";
import type { BlockBackend } from "../../block/backend.ts";
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
  SOURCE_CACHE,
  showsProgress,
} from "../command.ts";
import { compareDisks, type Verdict } from "../compare-loop.ts";
import { openImage } from "../open.ts";
import { Progress } from "../progress.ts";
import type { Session } from "../session.ts";

/** 1 is a mistake in the command line as well, as with qemu-img. */
const STATUS = { same: 0, differs: 1, notOpened: 2, statusFailed: 3, readFailed: 4 };

export const compare: ImgCommand = {
  name: "compare",
  summary: "Tells whether two images have the same content",
  operands: "FILENAME1 FILENAME2",
  options: [
    QUIET,
    PROGRESS,
    { ...FORMAT, name: "a-format", help: "the first image's format" },
    { ...FORMAT, name: "b-format", short: "F", help: "the second image's format" },
    IMAGE_OPTS,
    { name: "strict", short: "s", help: "compares sizes, and what is allocated, too" },
    SOURCE_CACHE,
    FORCE_SHARE,
    OBJECT,
  ],
  run,
};

async function run(session: Session, args: Arguments): Promise<number> {
  const [a, b, ...more] = args.operands;
  if (a === undefined || b === undefined || more.length > 0) {
    throw new BlockError("EINVAL", "Expected the names of two images");
  }
  const opened = await openBoth(session, args, [a, b]);
  if (!opened) return STATUS.notOpened;
  const progress = new Progress(session, showsProgress(args));
  const say = (text: string) =>
    args.has("quiet") ? Promise.resolve() : session.print(`${text}\n`);
  try {
    await progress.report(0);
    const verdict = await compareDisks({
      ...opened,
      strict: args.has("strict"),
      progress: (done, total) => progress.report((done / total) * 100),
      onLengths: () => say("Warning: Image size mismatch!"),
      ...(session.signal && { signal: session.signal }),
    });
    return await tell(session, verdict, { a, b }, say);
  } finally {
    await progress.end();
  }
}

async function openBoth(
  session: Session,
  args: Arguments,
  [a, b]: readonly [string, string],
): Promise<{ a: BlockBackend; b: BlockBackend } | null> {
  const isOptions = args.has("image-opts");
  try {
    const cache = cacheMode(args.last("cache") ?? "writeback");
    return {
      a: await openImage(session, { name: a, format: args.last("a-format"), isOptions }, { cache }),
      b: await openImage(session, { name: b, format: args.last("b-format"), isOptions }, { cache }),
    };
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    await session.complain(error.message);
    return null;
  }
}

async function tell(
  session: Session,
  verdict: Verdict,
  names: { readonly a: string; readonly b: string },
  say: (text: string) => Promise<void>,
): Promise<number> {
  switch (verdict.kind) {
    case "same":
      await say("Images are identical.");
      return STATUS.same;
    case "length":
      await say("Strict mode: Image size mismatch!");
      return STATUS.differs;
    case "status":
      await say(`Strict mode: Offset ${verdict.offset} block status mismatch!`);
      return STATUS.differs;
    case "content":
      await say(`Content mismatch at offset ${verdict.offset}!`);
      return STATUS.differs;
    case "status-failed":
    case "read-failed": {
      const { side, offset, error, kind } = verdict;
      const what = kind === "read-failed" ? "Reading" : "Finding out what is allocated";
      await session.complain(`${what} at offset ${offset} of ${names[side]}: ${error.message}`);
      return kind === "read-failed" ? STATUS.readFailed : STATUS.statusFailed;
    }
  }
}
