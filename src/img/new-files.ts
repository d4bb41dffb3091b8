/**
 * The files that a new image is made in: its own, and one for its data if it has one. What was there
 * under their names is lost, so it must be nothing that the image is to stand on:
 *
 *     create -b top base      base ◀── mid ◀── top      refused: `base` is in the chain of `top`
 *
 * Names tell nothing of that, a file can have many: what the files are is compared.
 */

import { BlockError } from "../base/errors.ts";
import type { BlockdevOptions } from "../block/options.ts";
import { CHAIN_IMAGES_MAX } from "./chain.ts";
import type { OptionValues } from "./create-options.ts";
import { findFile } from "./find-file.ts";
import { formatDriver } from "./image-name.ts";
import { peek, storeNameOf } from "./peek.ts";
import type { Session } from "./session.ts";

/**
 * @param names of the files that are made
 * @param values of the image's options: what it stands on
 * @throws BlockError EINVAL if it is to stand on one of them; EPERM if that cannot be seen because a name
 *   in the chain is not followed
 */
export async function checkApart(
  session: Session,
  names: readonly string[],
  values: OptionValues,
): Promise<void> {
  const backing = values.get("backing_file");
  const [image] = names;
  if (backing === undefined || image === undefined) return;
  const lost = new Map<unknown, string>();
  for (const name of names) {
    const found = await findFile(session, session.host.store(name));
    if (found && found.identity !== undefined) lost.set(found.identity, name);
  }
  if (lost.size === 0) return;
  const from = { image, role: "backing", trusted: true } as const;
  for await (const store of filesBelow(session, backing, from, values.get("backing_fmt"))) {
    const found = await findFile(session, store);
    const name = found && lost.get(found.identity);
    if (typeof name !== "string") continue;
    throw new BlockError(
      "EINVAL",
      `'${name}' cannot be made anew: it is '${storeNameOf(store)}', which the new image would stand on`,
    );
  }
}

/** Of the chain, from the top, with data files. What cannot be opened has nothing below it. */
async function* filesBelow(
  session: Session,
  backing: string,
  from: Parameters<Session["host"]["follow"]>[1],
  backingFormat: string | undefined,
): AsyncGenerator<BlockdevOptions> {
  const { host, trustsNames } = session;
  let file = await placeOf(session, backing, from);
  let format = backingFormat;
  for (let i = 0; i < CHAIN_IMAGES_MAX && file; i++) {
    yield file;
    if (format === undefined || !("backing" in formatDriver(session, format).roles)) return;
    const info = await infoOf(session, { driver: format, file });
    if (!info) return;
    const image = storeNameOf(file);
    const data = info["format-specific"]?.data as { readonly "data-file"?: string } | undefined;
    const label = data?.["data-file"];
    const trusted = trustsNames;
    if (label !== undefined) {
      yield host.store(await host.follow(label, { image, role: "data-file", trusted }));
    }
    const next = info["backing-filename"];
    if (next === undefined) return;
    file = host.store(await host.follow(next, { image, role: "backing", trusted }));
    format = info["backing-filename-format"];
  }
}

/** null for what is no file: with -u, anything may be written into an image. */
async function placeOf(
  { host }: Session,
  label: string,
  from: Parameters<Session["host"]["follow"]>[1],
): Promise<BlockdevOptions | null> {
  try {
    return host.store(await host.follow(label, from));
  } catch (error) {
    if (error instanceof BlockError) return null;
    throw error;
  }
}

async function infoOf(session: Session, options: BlockdevOptions) {
  try {
    return (await peek(session, options)).info;
  } catch (error) {
    if (error instanceof BlockError) return null;
    throw error;
  }
}
