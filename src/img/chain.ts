/**
 * What stands below an image: the files that it names, found by looking into one image after the other,
 * before any is opened for good.
 *
 *     top.qcow2 ──"mid.qcow2", qcow2──▶ mid.qcow2 ──"base.raw", raw──▶ base.raw
 *
 * A name comes through the host, which decides whether it is followed, and its format has to be
 * recorded: what a guest wrote into a raw disk must not make it another format. A chain that comes back
 * to itself, or has no end, is an error.
 */

import { BlockError } from "../base/errors.ts";
import type { BlockdevOptions } from "../block/options.ts";
import type { Naming } from "./host.ts";
import { formatDriver } from "./image-name.ts";
import { peek, storeNameOf } from "./peek.ts";
import type { Session } from "./session.ts";

/** Images of one chain. A node for each and one for its file have to fit into what a graph nests. */
export const CHAIN_IMAGES_MAX = 200;

/** What has been passed on the way down. */
interface Way {
  readonly images: number;
  readonly identities: ReadonlySet<unknown>;
}

/**
 * The same options with all that stands below them.
 *
 * @param noBacking without backing files: what shows through from them is left out
 * @throws BlockError ELOOP-like EINVAL for a chain without an end; EPERM for a name that is not followed;
 *   what opening an image throws
 */
export async function withChain(
  session: Session,
  options: BlockdevOptions,
  { noBacking = false }: { readonly noBacking?: boolean } = {},
): Promise<BlockdevOptions> {
  return follow(session, options, noBacking, { images: 1, identities: new Set() });
}

async function follow(
  session: Session,
  options: BlockdevOptions,
  noBacking: boolean,
  way: Way,
): Promise<BlockdevOptions> {
  const driver = session.graph.driver(options.driver);
  if (driver.kind === "filter") {
    const { file } = options;
    if (typeof file !== "object") return options;
    return { ...options, file: await follow(session, file, noBacking, way) };
  }
  const { file } = options;
  if (driver.kind === "protocol" || typeof file !== "object") return options;
  const below = await follow(session, file, noBacking, way);
  const whole = { ...options, file: below };
  if (!("backing" in driver.roles) && !("data-file" in driver.roles)) return whole;

  const { info, identity } = await glimpse(session, whole, way);
  if (way.images > CHAIN_IMAGES_MAX) {
    throw new BlockError("EINVAL", `The chain has more than ${CHAIN_IMAGES_MAX} images`);
  }
  const name = storeNameOf(below);
  if (way.identities.has(identity)) {
    throw new BlockError(
      "EINVAL",
      `The backing files of '${name}' lead back to it: they have no end`,
    );
  }
  const dataFile = info["format-specific"]?.data as { readonly "data-file"?: string } | undefined;
  const label = dataFile?.["data-file"];
  const isDataFileOpen = options["data-file"] !== undefined || label === undefined;
  const data = isDataFileOpen
    ? {}
    : { "data-file": await storeOf(session, label, name, "data-file") };
  if (options.backing !== undefined) {
    const { backing } = options;
    if (typeof backing !== "object" || backing === null || noBacking) return { ...whole, ...data };
    return {
      ...whole,
      ...data,
      backing: await follow(session, backing, false, further(way, identity)),
    };
  }
  const backingLabel = info["backing-filename"];
  if (backingLabel === undefined) return { ...whole, ...data };
  if (noBacking) return { ...whole, ...data, backing: null };
  const format = info["backing-filename-format"];
  if (format === undefined) throw unrecordedFormat(name, backingLabel);
  const backing = {
    driver: formatDriver(session, format).name,
    file: await storeOf(session, backingLabel, name, "backing"),
  };
  return {
    ...whole,
    ...data,
    backing: await follow(session, backing, false, further(way, identity)),
  };
}

/** What is wrong with an image below is told with that one's name. */
async function glimpse(session: Session, options: BlockdevOptions, { images }: Way) {
  try {
    return await peek(session, options);
  } catch (error) {
    if (images === 1 || !(error instanceof BlockError)) throw error;
    throw error.prepend(`Its backing file '${storeNameOf(options)}'`);
  }
}

function further({ images, identities }: Way, identity: unknown): Way {
  return { images: images + 1, identities: new Set([...identities, identity]) };
}

async function storeOf(
  session: Session,
  label: string,
  image: string,
  role: Naming["role"],
): Promise<BlockdevOptions> {
  const { host, trustsNames } = session;
  const place = await host.follow(label, { image, role, trusted: trustsNames });
  const store = host.store(place);
  await checkThere(session, store, place, { label, image, role });
  return store;
}

/** The user may record any name; that it is not followed later should be no surprise. */
export async function warnOfName(session: Session, label: string, image: string): Promise<void> {
  if (session.trustsNames) return;
  try {
    await session.host.follow(label, { image, role: "backing", trusted: false });
  } catch (error) {
    if (!(error instanceof BlockError) || error.errno !== "EPERM") throw error;
    await session.complain(
      `warning: '${image}' names '${label}', which is not in its folder or below it: other commands ` +
        "follow it only with --trust-names in front",
    );
  }
}

/** What an image stands on may have been moved: who only knows the image is told what is missing. */
async function checkThere(
  { graph, signal }: Session,
  store: BlockdevOptions,
  place: string,
  { label, image, role }: { label: string; image: string; role: Naming["role"] },
): Promise<void> {
  try {
    await graph.closeUnused(await graph.addForUsers({ ...store, "read-only": true }, signal));
  } catch (error) {
    if (!(error instanceof BlockError) || error.errno === "ECANCELED") throw error;
    const [what, record] =
      role === "backing"
        ? ["backing file", `'rebase -u -b FILENAME -F FORMAT ${image}'`]
        : ["data file", `'amend -o data_file=FILENAME ${image}'`];
    const again = `Opening '${place}' failed: `;
    const { message } = error;
    const reason = message.startsWith(again) ? message.slice(again.length) : message;
    const context = `The ${what} '${label}' of '${image}' cannot be opened: ${reason}`;
    const advice = `; if it is elsewhere, record that with ${record}, or name it with --image-opts`;
    const text = error.errno === "ENOENT" ? context + advice : context;
    throw new BlockError(error.errno, text, { cause: error });
  }
}

function unrecordedFormat(image: string, label: string): BlockError {
  return new BlockError(
    "EINVAL",
    `'${image}' does not say which format its backing file '${label}' has, and that is not guessed: ` +
      `record it with 'rebase -u -b ${label} -F FORMAT', or give it with --image-opts`,
  );
}
