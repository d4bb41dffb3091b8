/**
 * What names an image on a command line, as options for blockdev-add:
 *
 *     disk.qcow2                                  a file, whose format is given or looked for
 *     --image-opts driver=qcow2,file.filename=…   options, with dots for what is nested
 *     json:{"driver": "qcow2", "file": …}         the same as JSON
 *
 * The format is looked for only in what the user named, never in what an image names.
 */

import * as v from "valibot";
import { BlockError } from "../base/errors.ts";
import { fromKeyval } from "../base/from-keyval.ts";
import { type KeyvalTree, parseKeyval } from "../base/keyval.ts";
import type { BlockDriver, ChildRole } from "../block/driver.ts";
import { type BlockdevOptions, COMMON_OPTIONS, openEntries, roleMember } from "../block/options.ts";
import { Perm } from "../block/permissions.ts";
import type { Session } from "./session.ts";

export interface ImageName {
  readonly name: string;
  /** Without it the format is looked for. */
  readonly format?: string | undefined;
  /** The name is a list of options. */
  readonly isOptions?: boolean;
}

/** What is read to find out a format. */
const HEAD_BYTES = 2048;

/**
 * Options without the chain below: see chain.ts.
 *
 * @throws BlockError EINVAL, and what opening the file to look at it throws
 */
export async function optionsOf(session: Session, image: ImageName): Promise<BlockdevOptions> {
  const { name, format, isOptions = false } = image;
  if (isOptions && format !== undefined) {
    throw new BlockError("EINVAL", "Options '--image-opts' and '--format' exclude each other");
  }
  if (isOptions) return completed(session, parseKeyval(name, "file").tree, undefined);
  if (name.startsWith("json:")) return completed(session, parseJson(name), format);
  return {
    driver: await formatOf(session, session.host.store(name), format),
    file: session.host.store(name),
  };
}

/** The driver that is given, or the one that is surest of what the file begins with. */
async function formatOf(
  session: Session,
  store: BlockdevOptions,
  given: string | undefined,
): Promise<string> {
  if (given !== undefined) return formatDriver(session, given).name;
  const head = await readHead(session, store);
  let best: { readonly name: string; readonly score: number } = { name: "raw", score: 0 };
  for (const { name, kind, probe } of session.graph.drivers.values()) {
    if (kind !== "format" || !probe) continue;
    const score = probe(head);
    if (score > best.score) best = { name, score };
  }
  return best.name;
}

/** What an image can be; views of another node are none. */
export function formatNames(drivers: Iterable<BlockDriver>): string[] {
  const formats = [...drivers].filter(({ kind, probe }) => kind === "format" && probe);
  return formats.map(({ name }) => name).sort();
}

/** @throws BlockError EINVAL if there is no such format */
export function formatDriver(session: Session, name: string): BlockDriver {
  const driver = session.graph.drivers.get(name);
  if (driver?.kind === "format") return driver;
  const known = formatNames(session.graph.drivers.values());
  throw new BlockError("EINVAL", `Unknown file format '${name}'; there are: ${known.join(", ")}`);
}

async function readHead(session: Session, store: BlockdevOptions): Promise<Uint8Array> {
  const node = await session.graph.addForUsers({ ...store, "read-only": true }, session.signal);
  const backend = await session.hold(node, {
    description: "finding out the format",
    permissions: { take: Perm.consistentRead, share: Perm.all },
  });
  try {
    const head = new Uint8Array(Math.min(HEAD_BYTES, backend.length));
    await backend.read(head, 0);
    return head;
  } finally {
    await session.release(backend);
  }
}

function parseJson(name: string): KeyvalTree {
  try {
    const value: unknown = JSON.parse(name.slice("json:".length));
    if (typeof value === "object" && value !== null && !Array.isArray(value)) {
      return value as KeyvalTree;
    }
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
  }
  throw new BlockError("EINVAL", `'${name}' is not 'json:' and a JSON object`);
}

type Tree = { readonly [member: string]: unknown };

/** Options of a root as somebody wrote them: some things may be left out. */
async function completed(
  session: Session,
  tree: Tree,
  format: string | undefined,
): Promise<BlockdevOptions> {
  const { driver = format, file, filename, ...others } = tree;
  if (typeof driver === "string" && filename !== undefined && !takesFilename(session, driver)) {
    return typed(session, { driver, file: { filename }, ...others });
  }
  if (driver !== undefined)
    return typed(session, tree.driver === undefined ? { driver, ...tree } : tree);
  // What is looked at is only ever a store's file.
  const store = typed(session, storeTree(session, filename === undefined ? file : { filename }));
  return typed(session, {
    driver: await formatOf(session, store, undefined),
    file: store,
    ...others,
  });
}

function takesFilename(session: Session, driver: string): boolean {
  return "filename" in session.graph.driver(driver).openOptions;
}

function storeTree(session: Session, file: unknown): Tree {
  if (typeof file !== "object" || file === null || Array.isArray(file)) {
    const problem = file === undefined ? "No file is named" : `Cannot find node '${String(file)}'`;
    throw new BlockError("ENOENT", `${problem}: give 'file.filename', or 'driver' and its members`);
  }
  const tree = file as Tree;
  if (tree["driver"] !== undefined || typeof tree["filename"] !== "string") return tree;
  return { ...tree, ...session.host.store(tree["filename"]) };
}

/** Strings become what the drivers' options want; so it goes on below. */
function typed(session: Session, tree: Tree): BlockdevOptions {
  const name = tree["driver"];
  if (typeof name !== "string") throw new BlockError("EINVAL", "Parameter 'driver' is missing");
  const driver = session.graph.driver(name);
  const members = new Map(
    Object.keys(driver.roles).map((role) => [roleMember(driver, role as ChildRole), role]),
  );
  const schema = v.looseObject({
    driver: v.string(),
    ...COMMON_OPTIONS,
    ...openEntries(driver, v.any()),
  });
  const flat: Record<string, unknown> = {};
  const nested: Record<string, unknown> = {};
  for (const [member, value] of Object.entries(tree)) {
    const role = members.get(member);
    if (role === undefined) flat[member] = value;
    // A backing file that is given as "" or null: there is to be none.
    else if (role === "backing" && (value === "" || value === null)) nested[member] = null;
    else nested[member] = typed(session, storeTree(session, value));
  }
  // The image says by itself how it is encrypted; who gives a key need not.
  const encrypt = flat["encrypt"];
  if (typeof encrypt === "object") flat["encrypt"] = { format: "luks", ...encrypt };
  const own = fromKeyval(schema, flat as KeyvalTree);
  return { ...(own as { driver: string }), ...nested };
}
