/** Images as subcommands use them: opened with all that stands below, and held. */

import { BlockError } from "../base/errors.ts";
import type { BlockBackend } from "../block/backend.ts";
import type { BlockNode } from "../block/node.ts";
import type { BlockdevOptions } from "../block/options.ts";
import { Perm } from "../block/permissions.ts";
import type { CacheMode } from "./cache-mode.ts";
import { withChain } from "./chain.ts";
import { type ImageName, optionsOf } from "./image-name.ts";
import type { Session } from "./session.ts";

export interface OpenImageOptions {
  readonly writable?: boolean;
  /** Written to, it stays as long as it is. */
  readonly keepsSize?: boolean;
  /** Its backing files are not opened: what shows through from them reads as zeroes. */
  readonly noBacking?: boolean;
  readonly cache?: CacheMode;
}

/**
 * @throws BlockError with the image's name in front; nothing is left open then
 */
export async function openImage(
  session: Session,
  image: ImageName,
  how: OpenImageOptions = {},
): Promise<BlockBackend> {
  return openAs(session, image.name, how, async () => {
    const named = await optionsOf(session, image);
    await warnOfGuess(session, image, named, how.writable ?? false);
    return named;
  });
}

/**
 * The same for an image that is named by options already.
 *
 * @param optionsOf of its node, without what stands below, as far as that is not another than it says
 */
export async function openAs(
  session: Session,
  name: string,
  how: OpenImageOptions,
  optionsOf: () => Promise<BlockdevOptions>,
): Promise<BlockBackend> {
  const { writable = false, cache, noBacking = false } = how;
  try {
    const named = await optionsOf();
    const options = await withChain(session, named, { noBacking });
    const node = await session.graph.addForUsers(
      withManner(options, writable, cache),
      session.signal,
    );
    return await holdImage(session, node, name, how);
  } catch (error) {
    throw notOpened(error, name);
  }
}

/** The failure with the image's name in front, said once. */
export function notOpened(error: unknown, name: string): unknown {
  if (!(error instanceof BlockError)) return error;
  const context = `Could not open '${name}'`;
  const again = `Opening '${name}' failed: `;
  if (!error.message.startsWith(again)) return error.prepend(context);
  const reason = error.message.slice(again.length);
  return new BlockError(error.errno, `${context}: ${reason}`, { cause: error });
}

/** Takes hold of an image's node to read it, or to do with it what one likes. */
export function holdImage(
  session: Session,
  node: BlockNode,
  name: string,
  { writable = false, keepsSize = false, cache }: OpenImageOptions,
): Promise<BlockBackend> {
  const { consistentRead, write, writeUnchanged, resize, all } = Perm;
  return session.hold(node, {
    description: `'${name}'`,
    permissions: {
      take:
        consistentRead |
        (writable ? write | writeUnchanged : 0) |
        (writable && !keepsSize ? resize : 0),
      share: all,
    },
    ...(cache?.writethrough && { writethrough: true }),
  });
}

function withManner(
  options: BlockdevOptions,
  writable: boolean,
  cache: CacheMode | undefined,
): BlockdevOptions {
  return {
    "read-only": !writable,
    ...(cache && { cache: { direct: cache.direct, "no-flush": cache.noFlush } }),
    ...options,
  };
}

/** A raw disk can begin like another format: who writes to it should say what it is. */
async function warnOfGuess(
  session: Session,
  { name, format, isOptions = false }: ImageName,
  { driver }: BlockdevOptions,
  writable: boolean,
): Promise<void> {
  if (!writable || format !== undefined || isOptions || driver !== "raw") return;
  await session.complain(
    `warning: '${name}' is taken for a raw image because it looks like nothing else; say so with -f raw`,
  );
}
