/**
 * `check`: what is wrong with an image, and mending it. Opens no file that the image names.
 *
 *     exit   0 nothing   1 the check itself failed   2 corruptions   3 leaks   63 no check for the format
 */

import { BlockError } from "../../base/errors.ts";
import {
  type CheckFix,
  type CheckOutcome,
  type CheckResult,
  checkNode,
} from "../../block/check.ts";
import type { BlockNode } from "../../block/node.ts";
import { cacheMode } from "../cache-mode.ts";
import {
  type Arguments,
  FORCE_SHARE,
  FORMAT,
  IMAGE_OPTS,
  type ImgCommand,
  OBJECT,
  OUTPUT,
  QUIET,
  SOURCE_CACHE,
  wantsJson,
} from "../command.ts";
import { optionsOf } from "../image-name.ts";
import { prettyJson } from "../json.ts";
import { notOpened } from "../open.ts";
import type { Session } from "../session.ts";

const NO_CHECK_STATUS = 63;

export const check: ImgCommand = {
  name: "check",
  summary: "Looks for what is wrong with an image, and mends it",
  operands: "FILENAME",
  options: [
    QUIET,
    FORMAT,
    IMAGE_OPTS,
    SOURCE_CACHE,
    {
      name: "repair",
      short: "r",
      value: "leaks|all",
      help: "mends clusters that are lost, or all",
    },
    FORCE_SHARE,
    OBJECT,
    OUTPUT,
  ],
  run,
};

async function run(session: Session, args: Arguments): Promise<number> {
  const json = wantsJson(args);
  const fix = fixOf(args);
  const image = args.theImage();
  const node = await open(session, args, fix !== "none");
  if (!node.state.check) {
    await session.complain(`Images of format '${node.driver.name}' cannot be checked`);
    return NO_CHECK_STATUS;
  }
  const print = (text: string) => (args.has("quiet") ? Promise.resolve() : session.print(text));
  const { result, repair } = await attempt(session, node, fix);
  if (repair && !json) await print(describeRepair(repair));
  await print(json ? prettyJson(asJson(result, image.name, node.driver.name)) : describe(result));
  if (result["check-errors"] > 0) {
    await session.complain("The check failed: not all could be looked at");
    return 1;
  }
  if (result.corruptions > 0) return 2;
  return result.leaks > 0 ? 3 : 0;
}

function fixOf(args: Arguments): CheckFix {
  const repair = args.last("repair");
  if (repair === undefined) return "none";
  if (repair !== "leaks" && repair !== "all") {
    throw new BlockError("EINVAL", `Option '--repair' takes 'leaks' or 'all', not '${repair}'`);
  }
  if (!args.has("force-share")) return repair;
  throw new BlockError(
    "EINVAL",
    "Option '--force-share' is only for reading: it excludes '--repair'",
  );
}

async function open(session: Session, args: Arguments, writable: boolean): Promise<BlockNode> {
  const image = args.theImage();
  const { direct, noFlush } = cacheMode(args.last("cache") ?? "writeback");
  try {
    const options = await optionsOf(session, image);
    const manner = { "read-only": !writable, cache: { direct, "no-flush": noFlush } };
    const named = { ...manner, ...options, "node-name": "checked" };
    return session.keep(await session.graph.addForCheck(named, session.signal));
  } catch (error) {
    throw notOpened(error, image.name);
  }
}

/** What is found is told one by one, and counted in the end. */
async function attempt(session: Session, node: BlockNode, fix: CheckFix): Promise<CheckOutcome> {
  const { signal, host } = session;
  const told: Promise<void>[] = [];
  const tell = (text: string) => void told.push(host.complain(`${text}\n`));
  try {
    return await session.graph.drained([node], () =>
      checkNode(
        node,
        {
          fix,
          report: ({ kind, fixed, text }) =>
            tell(`${fixed ? "Repaired" : kind === "leak" ? "Leak" : "Error"}: ${text}`),
          ...(signal && { signal }),
        },
        () => tell("Checking once more what has been repaired"),
      ),
    );
  } catch (error) {
    throw error instanceof BlockError ? error.prepend("The check failed") : error;
  } finally {
    await Promise.all(told);
  }
}

/** Counts that are zero are left out, but for one. */
function asJson(result: CheckResult, filename: string, format: string): object {
  const counts = Object.entries(result).filter(
    ([name, count]) => count > 0 || name === "check-errors",
  );
  return { filename, format, ...Object.fromEntries(counts) };
}

function describeRepair(repair: CheckResult): string {
  return `The following inconsistencies were found and repaired:

    ${repair["leaks-fixed"]} leaked clusters
    ${repair["corruptions-fixed"]} corruptions

Double checking the fixed image now...
`;
}

/** To the letter what qemu-img prints: it is looked for by scripts. */
function describe(result: CheckResult): string {
  const { corruptions, leaks, "check-errors": errors } = result;
  const parts: string[] = [];
  if (corruptions + leaks + errors === 0) parts.push("No errors were found on the image.\n");
  if (corruptions > 0) {
    parts.push(
      `\n${corruptions} errors were found on the image.\n` +
        "Data may be corrupted, or further writes to the image may corrupt it.\n",
    );
  }
  if (leaks > 0) {
    parts.push(
      `\n${leaks} leaked clusters were found on the image.\n` +
        "This means waste of disk space, but no harm to data.\n",
    );
  }
  if (errors > 0) parts.push(`\n${errors} internal errors have occurred during the check.\n`);
  const total = result["total-clusters"];
  const allocated = result["allocated-clusters"];
  if (total > 0 && allocated > 0) {
    const percent = (part: number, whole: number) => ((part * 100) / whole).toFixed(2);
    parts.push(
      `${allocated}/${total} = ${percent(allocated, total)}% allocated, ` +
        `${percent(result["fragmented-clusters"], allocated)}% fragmented, ` +
        `${percent(result["compressed-clusters"], allocated)}% compressed clusters\n`,
    );
  }
  const end = result["image-end-offset"];
  if (end > 0) parts.push(`Image end offset: ${end}\n`);
  return parts.join("");
}
