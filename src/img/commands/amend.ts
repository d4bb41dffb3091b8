/** `amend`: changes an image's own properties in place. */

import { BlockError } from "../../base/errors.ts";
import { skipFilters } from "../../block/status.ts";
import { type CacheMode, cacheMode } from "../cache-mode.ts";
import {
  type Arguments,
  CACHE,
  FORMAT,
  IMAGE_OPTS,
  type ImgCommand,
  OBJECT,
  PROGRESS,
  QUIET,
  showsProgress,
} from "../command.ts";
import {
  amendOptionsOf,
  asksForHelp,
  createOptionsOf,
  describeCreateOptions,
  joinLists,
  parseOptions,
} from "../create-options.ts";
import { formatDriver } from "../image-name.ts";
import { membersOf } from "../members.ts";
import { openImage } from "../open.ts";
import { Progress } from "../progress.ts";
import type { Session } from "../session.ts";

export const amend: ImgCommand = {
  name: "amend",
  summary: "Changes an image's own properties",
  operands: "FILENAME",
  options: [
    QUIET,
    PROGRESS,
    FORMAT,
    IMAGE_OPTS,
    {
      name: "options",
      short: "o",
      value: "OPTION=VALUE,…",
      help: "what to change; -o help lists them",
    },
    { name: "force", help: "also what could lock the image's user out" },
    CACHE,
    OBJECT,
  ],
  run,
};

async function run(session: Session, args: Arguments): Promise<number> {
  const list = joinLists(args.all("options"));
  if (list === "")
    throw new BlockError("EINVAL", "Option '--options' says what to change: give it");
  const format = args.last("format");
  if (asksForHelp(list) && format !== undefined) return help(session, format);
  const cache = cacheMode(args.last("cache") ?? "writeback");
  const [name] = args.operands;
  if (asksForHelp(list) && name === undefined) {
    throw new BlockError("EINVAL", "Help needs a format, by '--format' or from an image");
  }
  return change(session, args, list, cache);
}

async function help(session: Session, format: string): Promise<number> {
  formatDriver(session, format);
  await session.print(
    describeCreateOptions(`Amend options for '${format}'`, amendOptionsOf(format)),
  );
  return 0;
}

async function change(
  session: Session,
  args: Arguments,
  list: string,
  cache: CacheMode,
): Promise<number> {
  // Only another size has to do with what is in a backing file.
  const noBacking = !/(?:^|,)size=/.test(list);
  const { node } = await openImage(session, args.theImage(), { writable: true, noBacking, cache });
  const { state, driver } = skipFilters(node);
  if (asksForHelp(list)) return help(session, driver.name);
  const table = amendOptionsOf(driver.name);
  const values = parseOptions(list, table, createOptionsOf(driver.name));
  const progress = new Progress(session, showsProgress(args));
  await progress.report(0);
  try {
    if (!state.amend) {
      throw new BlockError("ENOTSUP", `Format '${driver.name}' has nothing that could be amended`);
    }
    const { signal } = session;
    const { secrets } = session.graph;
    const request = { force: args.has("force"), secrets, ...(signal && { signal }) };
    // How an image is encrypted it says by itself.
    const members = membersOf(values, { format: "luks" });
    await session.graph.drained([node], () => state.amend?.(members, request));
    await progress.report(100);
  } finally {
    await progress.end();
  }
  return 0;
}
