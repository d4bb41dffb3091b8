/**
 * Where `convert` and `dd` write to: a new image, or one that is there.
 *
 * A new one takes the place of what had its name, so nothing that is open may have it.
 */

import { BlockError } from "../base/errors.ts";
import type { BlockBackend } from "../block/backend.ts";
import type { BlockdevOptions } from "../block/options.ts";
import type { CacheMode } from "./cache-mode.ts";
import type { OptionValues } from "./create-options.ts";
import { findFile } from "./find-file.ts";
import { formatDriver } from "./image-name.ts";
import { makeImage } from "./make-image.ts";
import { openAs } from "./open.ts";
import type { Session } from "./session.ts";

export interface NewTarget {
  readonly name: string;
  readonly format: string;
  /** As for makeImage(). */
  readonly values: OptionValues;
  readonly cache: CacheMode;
}

/** @throws BlockError ENOTSUP, EINVAL for options that no new image of the format can have */
export function checkNewTarget(session: Session, format: string, values: OptionValues): void {
  const driver = formatDriver(session, format);
  const backing = values.get("backing_file");
  if (backing === undefined) return;
  if (!("backing" in driver.roles)) {
    throw new BlockError("ENOTSUP", `Format '${format}' has no backing files`);
  }
  if (values.has("backing_fmt")) return;
  throw new BlockError(
    "EINVAL",
    `The backing file '${backing}' is given without its format: give -F, too`,
  );
}

/** Makes it and opens it for writing. @throws BlockError as makeImage() */
export async function makeTarget(session: Session, target: NewTarget): Promise<BlockBackend> {
  const { name, format, values, cache } = target;
  try {
    await checkUnused(session, name);
    const dataFile = values.get("data_file");
    if (dataFile !== undefined) await checkUnused(session, dataFile);
    await makeImage(session, name, format, values);
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    throw error.prepend(`${name}: error while converting ${format}`);
  }
  return openAs(session, name, { writable: true, cache }, () => optionsOf(session, target));
}

/** What the user has named stands below it, wherever that is. */
async function optionsOf(session: Session, { name, format, values }: NewTarget) {
  const { host } = session;
  const options: BlockdevOptions = { driver: format, file: host.store(name) };
  const backing = values.get("backing_file");
  const dataFile = values.get("data_file");
  const secret = values.get("encrypt.key-secret");
  return {
    ...options,
    ...(backing !== undefined && {
      backing: {
        driver: values.get("backing_fmt"),
        file: host.store(
          await host.follow(backing, { image: name, role: "backing", trusted: true }),
        ),
      },
    }),
    ...(dataFile !== undefined && { "data-file": host.store(dataFile) }),
    ...(secret !== undefined && { encrypt: { format: "luks", "key-secret": secret } }),
  } as BlockdevOptions;
}

/** @throws BlockError EBUSY if something open is what would be made anew */
async function checkUnused(session: Session, name: string): Promise<void> {
  const { identity } = (await findFile(session, session.host.store(name))) ?? {};
  if (identity === undefined) return;
  if (!session.graph.nodes.some(({ state }) => state.identity === identity)) return;
  throw new BlockError("EBUSY", `'${name}' is in use: it cannot be made anew meanwhile`);
}
