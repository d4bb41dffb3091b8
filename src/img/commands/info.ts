/** `info`: what an image says of itself. Opens no file that an image names, but with --backing-chain. */

import { BlockError } from "../../base/errors.ts";
import type { BlockdevOptions } from "../../block/options.ts";
import { CHAIN_IMAGES_MAX } from "../chain.ts";
import {
  type Arguments,
  FORCE_SHARE,
  FORMAT,
  IMAGE_OPTS,
  type ImgCommand,
  OBJECT,
  OUTPUT,
  wantsJson,
} from "../command.ts";
import { describeImage, type LookedInto, lookInto } from "../image-info.ts";
import { formatDriver, type ImageName, optionsOf } from "../image-name.ts";
import { prettyJson } from "../json.ts";
import { notOpened } from "../open.ts";
import type { Session } from "../session.ts";

export const info: ImgCommand = {
  name: "info",
  summary: "Tells what an image says of itself",
  operands: "FILENAME",
  options: [
    FORMAT,
    IMAGE_OPTS,
    { name: "backing-chain", short: "b", help: "tells of its backing files, too" },
    FORCE_SHARE,
    OBJECT,
    OUTPUT,
  ],
  run,
};

async function run(session: Session, args: Arguments): Promise<number> {
  const json = wantsJson(args);
  const chain = await collect(session, args.theImage(), args.has("backing-chain"));
  if (!json) await session.print(chain.map(describeImage).join("\n"));
  else if (args.has("backing-chain")) await session.print(prettyJson(chain.map((one) => one.info)));
  else await session.print(prettyJson(chain[0]!.info));
  return 0;
}

async function collect(
  session: Session,
  image: ImageName,
  goesDown: boolean,
): Promise<LookedInto[]> {
  const chain: LookedInto[] = [];
  const seen = new Set<unknown>();
  let { name } = image;
  let options: BlockdevOptions | null = await attempt(name, () => optionsOf(session, image));
  while (options) {
    const here: BlockdevOptions = options;
    const looked = await attempt(name, () => lookInto(session, here));
    if (seen.has(looked.identity)) {
      throw new BlockError("EINVAL", `The chain has no end: it comes back to '${name}'`);
    }
    seen.add(looked.identity);
    if (chain.push(looked) > CHAIN_IMAGES_MAX) {
      throw new BlockError("EINVAL", `The chain has more than ${CHAIN_IMAGES_MAX} images`);
    }
    options = goesDown ? await below(session, here, looked) : null;
    name = looked.info["backing-filename"] ?? name;
  }
  return chain;
}

/** A backing file that the options name counts before what the image says. */
async function below(
  session: Session,
  { backing }: BlockdevOptions,
  { info: above }: LookedInto,
): Promise<BlockdevOptions | null> {
  if (backing === null) return null;
  if (typeof backing === "object") return backing;
  const label = above["backing-filename"];
  if (label === undefined) return null;
  const format = above["backing-filename-format"];
  if (format === undefined) {
    throw new BlockError(
      "EINVAL",
      `'${above.filename}' does not say which format its backing file '${label}' has`,
    );
  }
  const { host, trustsNames } = session;
  const from = { image: above.filename, role: "backing", trusted: trustsNames } as const;
  const place = await host.follow(label, from);
  return { driver: formatDriver(session, format).name, file: host.store(place) };
}

async function attempt<T>(name: string, step: () => Promise<T>): Promise<T> {
  try {
    return await step();
  } catch (error) {
    throw notOpened(error, name);
  }
}
