/**
 * A look at what an image says about itself, with nothing opened but its own file: no backing file, no
 * data file, no key. This is all that `info` needs, and where names are read before they are followed.
 */

import { assert } from "../base/errors.ts";
import type { SnapshotInfo, StateInfo, StoredBitmap } from "../block/driver.ts";
import { snapshotsOf } from "../block/image-info.ts";
import { type BlockdevOptions, checkOptions } from "../block/options.ts";
import { Perm } from "../block/permissions.ts";
import type { Session } from "./session.ts";

export interface Glimpse {
  /** Of the disk, in bytes. */
  readonly length: number;
  readonly info: StateInfo;
  readonly snapshots: readonly SnapshotInfo[];
  /** If they were asked for. */
  readonly bitmaps: readonly StoredBitmap[];
  /** Of the image's file. */
  readonly file: { readonly driver: string; readonly length: number; readonly info: StateInfo };
  /** What the bytes are: the same for two names of one file. */
  readonly identity: unknown;
}

/**
 * @param options of a format's node whose `file` is nested in them
 * @param withBitmaps asks for them, too; an image in which they are broken cannot tell
 * @throws BlockError what opening it throws
 */
export async function peek(
  session: Session,
  options: BlockdevOptions,
  withBitmaps = false,
): Promise<Glimpse> {
  const { graph, signal } = session;
  const { world, throttleGroups } = graph;
  const driver = graph.driver(options.driver);
  const { file } = options;
  assert(
    driver.kind === "format" && typeof file === "object",
    "a format's options are looked into",
  );
  const { own } = checkOptions(driver, options);
  const node = await graph.addForUsers({ ...file, "read-only": true }, signal);
  const backend = await session.hold(node, {
    description: "looking into an image",
    permissions: { take: Perm.consistentRead, share: Perm.all },
  });
  try {
    const state = await driver.open({
      world,
      throttleGroups,
      options: own as never,
      nodeName: storeNameOf(file),
      readOnly: true,
      noIo: true,
      children: { file: backend.edge },
      ...(signal && { signal }),
    });
    try {
      return {
        length: state.getLength?.() ?? backend.length,
        info: state.info?.() ?? {},
        snapshots: snapshotsOf(state),
        bitmaps: (withBitmaps && (await state.bitmapStore?.list())) || [],
        file: {
          driver: node.driver.name,
          length: backend.length,
          info: node.state.info?.() ?? {},
        },
        identity: node.state.identity ?? storeNameOf(file),
      };
    } finally {
      await state.close?.();
    }
  } finally {
    await session.release(backend);
  }
}

/** The store's name for what is at the bottom of these options. */
export function storeNameOf(options: BlockdevOptions): string {
  const { file, filename, name } = options as Readonly<Record<string, unknown>>;
  if (typeof filename === "string") return filename;
  if (typeof name === "string") return name;
  if (typeof file === "object" && file !== null) return storeNameOf(file as BlockdevOptions);
  return `json:${JSON.stringify(options)}`;
}
