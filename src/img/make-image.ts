/**
 * Making an image from qemu-img's options: a file, and in it what the format's driver makes. Shared by
 * all subcommands that make one.
 */

import * as v from "valibot";
import { alignUp } from "../base/bytes.ts";
import { check } from "../base/check.ts";
import { assert, BlockError } from "../base/errors.ts";
import type { BlockBackend } from "../block/backend.ts";
import type { BlockDriver } from "../block/driver.ts";
import type { BlockdevOptions } from "../block/options.ts";
import { Perm } from "../block/permissions.ts";
import type { OptionValues } from "./create-options.ts";
import { formatDriver } from "./image-name.ts";
import { checkApart, find } from "./new-files.ts";
import type { Session } from "./session.ts";

const SECTOR_BYTES = 512;

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
    if (!(await find(session, store))) made.push(name);
    return makeStore(session, store, {
      size,
      ...(preallocation !== undefined && { preallocation }),
    });
  }
  const own = qcow2Options(values, size);
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
    let found = await find(session, store);
    if (!found) {
      made.push(name);
      await makeStore(session, store, { size: 0 });
      found = await find(session, store);
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

const VERSIONS: ReadonlyMap<string, string> = new Map([
  ["0.10", "v2"],
  ["v2", "v2"],
  ["1.1", "v3"],
  ["v3", "v3"],
]);

/** What an image's driver takes to change it: qemu-img's names as those of ImageAmend. */
export function amendMembers(values: OptionValues): Record<string, unknown> {
  const all = {
    version: versionOf(values),
    size: numberOf(values.get("size")),
    "refcount-bits": numberOf(values.get("refcount_bits")),
    "backing-file": values.get("backing_file"),
    "backing-fmt": values.get("backing_fmt"),
    "lazy-refcounts": booleanOf(values.get("lazy_refcounts")),
    "data-file": values.get("data_file"),
    "data-file-raw": booleanOf(values.get("data_file_raw")),
    // How an image is encrypted it says by itself.
    encrypt: encryptOptions(values, { format: "luks" }),
  };
  return withoutMissing(all);
}

function withoutMissing(all: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined));
}

/** @throws BlockError EINVAL */
function versionOf(values: OptionValues): string | undefined {
  const compat = values.get("compat");
  const version = compat === undefined ? undefined : VERSIONS.get(compat);
  if (compat === undefined || version !== undefined) return version;
  throw new BlockError("EINVAL", `Parameter 'compat' takes v2 (0.10) or v3 (1.1), not '${compat}'`);
}

/** qemu-img's names as those of blockdev-create. */
function qcow2Options(values: OptionValues, size: number): Record<string, unknown> {
  const version = versionOf(values);
  const number = (name: string) => numberOf(values.get(name));
  const flag = (name: string) => booleanOf(values.get(name));
  const all = {
    size,
    version,
    "cluster-size": number("cluster_size"),
    "refcount-bits": number("refcount_bits"),
    "extended-l2": flag("extended_l2"),
    "compression-type": values.get("compression_type"),
    "backing-file": values.get("backing_file"),
    "backing-fmt": values.get("backing_fmt"),
    "lazy-refcounts": flag("lazy_refcounts"),
    "data-file": values.get("data_file"),
    "data-file-raw": flag("data_file_raw"),
    preallocation: values.get("preallocation"),
    encrypt: encryptOptions(values),
  };
  return withoutMissing(all);
}

const NUMBERS = ["iter-time", "keyslot"];

function encryptOptions(values: OptionValues, implied: object = {}): object | undefined {
  if (values.get("encryption") === "on") return { format: "qcow" };
  const members: [string, unknown][] = [];
  for (const [name, value] of values) {
    const [, member] = /^encrypt\.(.*)$/.exec(name) ?? [];
    if (member === undefined) continue;
    // As drivers call it where images are made.
    const known = member === "format" && value === "aes" ? "qcow" : value;
    members.push([member, NUMBERS.includes(member) ? Number(known) : known]);
  }
  return members.length > 0 ? { ...implied, ...Object.fromEntries(members) } : undefined;
}

function numberOf(text: string | undefined): number | undefined {
  return text === undefined ? undefined : Number(text);
}

function booleanOf(text: string | undefined): boolean | undefined {
  return text === undefined ? undefined : text === "on";
}
