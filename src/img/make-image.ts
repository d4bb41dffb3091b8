/**
 * Making an image from qemu-img's options: a file, and in it what the format's driver makes. Shared by
 * all subcommands that make one.
 */

import * as v from "valibot";
import { alignUp, SECTOR_BYTES } from "../base/bytes.ts";
import { check } from "../base/check.ts";
import { assert, BlockError } from "../base/errors.ts";
import type { BlockBackend } from "../block/backend.ts";
import type { BlockDriver } from "../block/driver.ts";
import type { BlockdevOptions } from "../block/options.ts";
import { Perm } from "../block/permissions.ts";
import type { OptionValues } from "./create-options.ts";
import { findFile } from "./find-file.ts";
import { formatDriver } from "./image-name.ts";
import { membersOf } from "./members.ts";
import { checkApart } from "./new-files.ts";
import type { Session } from "./session.ts";

/**
 * @param values checked by parseOptions(), `size` among them
 * @throws BlockError EINVAL that names an option; what the drivers throw. Files that were not
 *   there before are gone again then
 */
export async function makeImage(
  session: Session,
  name: string,
  format: string,
  values: OptionValues,
): Promise<void> {
  const made: string[] = [];
  try {
    await makeFiles(session, { name, format, values }, made);
  } catch (error) {
    for (const one of made) await removeMade(session, one);
    throw error;
  }
}

interface Wanted {
  readonly name: string;
  readonly format: string;
  readonly values: OptionValues;
}

/** @param made gets the names of what was not there before */
async function makeFiles(
  session: Session,
  { name, format, values }: Wanted,
  made: string[],
): Promise<void> {
  const store = session.host.store(name);
  const driver = formatDriver(session, format);
  const size = alignUp(Number(values.get("size")), SECTOR_BYTES);
  if (!Number.isSafeInteger(size)) {
    throw new BlockError("EFBIG", `The disk's size of ${values.get("size")} bytes is too large`);
  }
  if (format === "raw") {
    const preallocation = values.get("preallocation");
    if (!(await findFile(session, store))) made.push(name);
    return makeStore(session, store, {
      size,
      ...(preallocation !== undefined && { preallocation }),
    });
  }
  const own = { ...membersOf(values), size };
  const checked = checkCreate(driver, own);
  const dataFile = values.get("data_file");
  const names = [name, ...(dataFile === undefined ? [] : [dataFile])];
  await checkApart(session, names, values);
  await makeMissing(session, names, made);
  const stores = names.map((one) => session.host.store(one));
  await makeIn(session, stores, driver, checked);
}

/** A file that is there stays as it is: the driver empties it when it has found nothing wrong. */
async function makeMissing(
  session: Session,
  names: readonly string[],
  made: string[],
): Promise<void> {
  const known = new Set<unknown>();
  for (const name of names) {
    const store = session.host.store(name);
    let found = await findFile(session, store);
    if (!found) {
      made.push(name);
      await makeStore(session, store, { size: 0 });
      found = await findFile(session, store);
    }
    const { identity } = found ?? {};
    if (identity !== undefined && known.has(identity)) {
      throw new BlockError("EINVAL", `'${name}' is the image's own file: its data needs another`);
    }
    known.add(identity);
  }
}

/** What made it necessary is what the user has to know: a failure here is told besides. */
async function removeMade(session: Session, name: string): Promise<void> {
  try {
    await session.host.remove(name);
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    await session.complain(`warning: '${name}' stays, unfinished: ${error.message}`);
  }
}

/** A file, empty or of zeroes; one that is there is emptied. */
async function makeStore(
  session: Session,
  store: BlockdevOptions,
  options: { readonly size: number; readonly preallocation?: string },
): Promise<void> {
  const { graph, signal } = session;
  const driver = graph.driver(store.driver);
  const { driver: _, ...place } = store;
  const { world } = graph;
  if (!driver.create) {
    throw new BlockError("ENOTSUP", `No files are made with driver '${driver.name}'`);
  }
  const checked = checkCreate(driver, { ...place, ...options });
  await driver.create({ world, options: checked as never, ...(signal && { signal }) });
}

/** @param stores the image's own file, and the one for its data if there is one */
async function makeIn(
  session: Session,
  stores: readonly BlockdevOptions[],
  driver: BlockDriver,
  options: object,
): Promise<void> {
  const { graph, signal } = session;
  const { world, secrets } = graph;
  const backends: BlockBackend[] = [];
  try {
    for (const store of stores) {
      const node = await graph.addForUsers(store, signal);
      const init = {
        description: "making an image",
        permissions: { take: Perm.all, share: Perm.consistentRead },
      };
      backends.push(await session.hold(node, init));
    }
    const [file, dataFile] = backends.map(({ edge }) => edge);
    assert(file, "an image is made in a file");
    await driver.create?.({
      world,
      secrets,
      options: options as never,
      file,
      ...(dataFile && { dataFile }),
      ...(signal && { signal }),
    });
  } finally {
    for (const backend of backends) await session.release(backend);
  }
}

function checkCreate(driver: BlockDriver, options: object): object {
  return check(v.strictObject({ ...driver.createOptions }), options) as object;
}
