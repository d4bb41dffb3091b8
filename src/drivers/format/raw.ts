/**
 * Raw: the disk is the file, or a window of it. No metadata; the smallest format there can be.
 *
 *     file   │<── offset ──>│<──────── size ────────>│
 *                           └──────── the disk ──────┘
 */

import * as v from "valibot";
import { size as bytesSchema } from "../../base/check.ts";
import { assert, BlockError } from "../../base/errors.ts";
import type { BlockChild } from "../../block/child.ts";
import type { BlockState, OpenContext } from "../../block/driver.ts";
import type { TypedDriver } from "../../block/option-types.ts";
import { Perm } from "../../block/permissions.ts";

const SECTOR_BYTES = 512;

const openOptions = { offset: v.optional(bytesSchema), size: v.optional(bytesSchema) };
const createOptions = { size: bytesSchema };

interface RawOptions {
  readonly offset?: number | undefined;
  readonly size?: number | undefined;
}

interface RawCreateOptions {
  readonly size: number;
}

/** What types are made of: see src/block/option-types.ts. */
interface Types {
  readonly name: "raw";
  readonly kind: "format";
  readonly roles: { readonly file: true };
  readonly openOptions: typeof openOptions;
  readonly createOptions: typeof createOptions;
}

export function rawDriver(): TypedDriver<Types, RawOptions, RawCreateOptions> {
  return {
    name: "raw",
    kind: "format",
    roles: { file: true },
    openOptions,
    createOptions,
    reopenOptions: ["offset", "size"],
    windowOptions: ["offset", "size"],

    /** The whole file is the disk: its users' permissions are theirs on the file. A window is data. */
    childPermissions(_role, above, _readOnly, options) {
      if (!isWindow(options)) return above;
      const { take, share } = above;
      const writes =
        take & (Perm.write | Perm.writeUnchanged) ? Perm.write | Perm.resize : Perm.none;
      return { take: take | writes, share: share & ~Perm.resize };
    },

    /** Any file is a raw image; whoever knows it better is surer than 1. */
    probe: () => 1,

    async open({ options, children }: OpenContext<RawOptions>): Promise<BlockState> {
      const { file } = children;
      assert(file, "a raw node has a file");
      checkWindow(file, options);
      return stateOf(file, options);
    },

    async create({ file, options }) {
      assert(file, "a raw image is made in a file");
      await file.truncate(0);
      await file.truncate(options.size);
      await file.flush();
    },
  };
}

function isWindow({ offset = 0, size }: RawOptions): boolean {
  return offset > 0 || size !== undefined;
}

/** @throws BlockError EINVAL if the window is not in the file, or ends within a sector */
function checkWindow(file: BlockChild, { offset = 0, size }: RawOptions): void {
  if (size !== undefined && size % SECTOR_BYTES !== 0) {
    throw new BlockError(
      "EINVAL",
      `Parameter 'size' takes a multiple of ${SECTOR_BYTES}, not ${size}`,
    );
  }
  if (offset <= file.length && (size === undefined || offset + size <= file.length)) return;
  const end = size === undefined ? "" : ` with size ${size}`;
  throw new BlockError(
    "EINVAL",
    `The raw disk at offset ${offset}${end} does not lie in its file of ${file.length} bytes`,
  );
}

function stateOf(file: BlockChild, options: RawOptions): BlockState {
  let { offset = 0, size } = options;
  return {
    limits: {
      requestAlignment: 1,
      clusterSize: 0,
      /** With its file, for an image that lies in it; if that cannot grow, it says so itself. */
      get growable() {
        return !isWindow({ offset, size });
      },
    },
    getLength: () => size ?? Math.max(0, file.length - offset),
    map: async (at, bytes) => ({ kind: "data", bytes, role: "file", offset: offset + at }),
    allocate: async (at, bytes) => ({
      bytes,
      role: "file",
      offset: offset + at,
      headBytes: 0,
      tailBytes: 0,
      commit: async () => {},
      abort: async () => {},
    }),
    pwriteZeroes: (at, bytes, options) => file.writeZeroes(offset + at, bytes, options),
    pdiscard: (at, bytes, options) => file.discard(offset + at, bytes, options),
    async truncate(length, options) {
      if (isWindow({ offset, size }))
        throw new BlockError("ENOTSUP", "A window of a file cannot change its size");
      await file.truncate(length, options);
    },
    flush: () => file.flush(),
    async reopen(_readOnly, changed) {
      if (changed === undefined) return;
      checkWindow(file, changed as RawOptions);
      ({ offset = 0, size } = changed as RawOptions);
    },
  };
}
