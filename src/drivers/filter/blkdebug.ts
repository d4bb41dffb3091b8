/**
 * blkdebug: a disk that fails, stops and is awkward on demand. Rules (blkdebug-rules.ts) say which
 * requests fail; limits make the layers above split and align what they ask for.
 *
 *     [qcow2] ──▶ [blkdebug] ──▶ image
 *              events, requests
 *
 * With opt-write-zero or opt-discard only whole granules are passed on as what they are: the rest of
 * a zero write becomes data, the rest of a discard is dropped (QEMU: block/blkdebug.c).
 */

import * as v from "valibot";
import { alignDown, alignUp } from "../../base/bytes.ts";
import { size } from "../../base/check.ts";
import { assert, BlockError, type Errno } from "../../base/errors.ts";
import type { BlockChild } from "../../block/child.ts";
import { DEBUG_EVENTS, type DebugEvent } from "../../block/debug.ts";
import type { BlockState, RequestOptions } from "../../block/driver.ts";
import type { TypedDriver } from "../../block/option-types.ts";
import { defaultChildPermissions, Perm } from "../../block/permissions.ts";
import { BlkdebugRules, IO_TYPES } from "./blkdebug-rules.ts";

const SECTOR_BYTES = 512;
const ALIGN_MAX = 2 ** 31;

const PERMISSIONS = {
  "consistent-read": Perm.consistentRead,
  write: Perm.write,
  "write-unchanged": Perm.writeUnchanged,
  resize: Perm.resize,
} as const;
const permissions = v.exactOptional(
  v.array(v.picklist(["consistent-read", "write", "write-unchanged", "resize"])),
);

const event = v.picklist(DEBUG_EVENTS);
const openOptions = {
  /** Granule of all requests, a power of two. */
  align: v.exactOptional(size),
  /** Most bytes of one read or write that is passed on. This and all below: multiples of align. */
  "max-transfer": v.exactOptional(size),
  "opt-write-zero": v.exactOptional(size),
  "max-write-zero": v.exactOptional(size),
  "opt-discard": v.exactOptional(size),
  "max-discard": v.exactOptional(size),
  "inject-error": v.exactOptional(
    v.array(
      v.strictObject({
        event,
        state: v.exactOptional(size),
        iotype: v.exactOptional(v.picklist(IO_TYPES)),
        /** As Linux numbers them; 5 (EIO) unless given. */
        errno: v.exactOptional(size),
        /** Of 512 bytes. */
        sector: v.exactOptional(v.pipe(v.number(), v.safeInteger(), v.minValue(-1))),
        once: v.exactOptional(v.boolean()),
        immediately: v.exactOptional(v.boolean()),
      }),
    ),
  ),
  "set-state": v.exactOptional(
    v.array(v.strictObject({ event, state: v.exactOptional(size), new_state: size })),
  ),
  "take-child-perms": permissions,
  "unshare-child-perms": permissions,
};
type OpenOptions = v.InferOutput<v.ObjectSchema<typeof openOptions, undefined>>;

/** Linux's numbers, which QEMU's options are in. */
const ERRNOS: Readonly<Record<number, Errno>> = {
  1: "EPERM",
  2: "ENOENT",
  5: "EIO",
  12: "ENOMEM",
  13: "EACCES",
  16: "EBUSY",
  17: "EEXIST",
  22: "EINVAL",
  27: "EFBIG",
  28: "ENOSPC",
  30: "EROFS",
  95: "ENOTSUP",
  110: "ETIMEDOUT",
  116: "ESTALE",
  123: "ENOMEDIUM",
  125: "ECANCELED",
};

/** What types are made of: see src/block/option-types.ts. */
interface Types {
  readonly name: "blkdebug";
  readonly kind: "filter";
  readonly roles: { readonly file: true };
  readonly roleMembers: { readonly file: "image" };
  readonly openOptions: typeof openOptions;
}

export const blkdebug: TypedDriver<Types, OpenOptions> = {
  name: "blkdebug",
  kind: "filter",
  roles: { file: true },
  roleMembers: { file: "image" },
  openOptions,
  reopenOptions: [],

  childPermissions(role, above, readOnly, options) {
    const { take, share } = defaultChildPermissions("filter", role, above, readOnly);
    return {
      take: take | maskOf(options["take-child-perms"]),
      share: share - (share & maskOf(options["unshare-child-perms"])),
    };
  },

  async open({ world, options, children }) {
    const { file } = children;
    assert(file, "blockdev-add gives blkdebug an image");
    checkSizes(options);
    return stateOf(
      file,
      options,
      rulesOf(options, () => world.clock.yield()),
    );
  },
};

function rulesOf(options: OpenOptions, yieldTurn: () => Promise<void>): BlkdebugRules {
  const inject = (options["inject-error"] ?? []).map((rule) => ({
    event: rule.event,
    state: rule.state ?? 0,
    iotype: rule.iotype ?? null,
    errno: errnoOf(rule.errno ?? 5),
    offset: rule.sector === undefined || rule.sector < 0 ? null : rule.sector * SECTOR_BYTES,
    once: rule.once ?? false,
    immediately: rule.immediately ?? false,
  }));
  const setState = (options["set-state"] ?? []).map((rule) => ({
    event: rule.event,
    state: rule.state ?? 0,
    newState: rule.new_state,
  }));
  return new BlkdebugRules(inject, setState, yieldTurn);
}

function errnoOf(number: number): Errno | null {
  if (number === 0) return null;
  const errno = ERRNOS[number];
  if (errno) return errno;
  const known = Object.entries(ERRNOS).map(([other, name]) => `${other} (${name})`);
  throw new BlockError("EINVAL", `No error has the number ${number}; it takes ${known.join(", ")}`);
}

/** @throws BlockError EINVAL: align is no power of two, or another size no multiple of it */
function checkSizes(options: OpenOptions): void {
  const align = options.align ?? 1;
  const valid = align === 0 || (align < ALIGN_MAX && Number.isInteger(Math.log2(align)));
  if (!valid) throw sizeError("align", align);
  const granule = Math.max(1, align);
  const check = (member: keyof OpenOptions & string, unit: number): number => {
    const value = (options[member] as number | undefined) ?? 0;
    if (value >= ALIGN_MAX || value % unit !== 0) throw sizeError(member, value);
    return value;
  };
  check("max-transfer", granule);
  check("max-write-zero", Math.max(check("opt-write-zero", granule), granule));
  check("max-discard", Math.max(check("opt-discard", granule), granule));
}

function sizeError(member: string, value: number): BlockError {
  return new BlockError("EINVAL", `Parameter '${member}' cannot be ${value} here`);
}

function stateOf(file: BlockChild, options: OpenOptions, rules: BlkdebugRules): BlockState {
  const transferMax = options["max-transfer"] || Number.POSITIVE_INFINITY;

  async function write(buf: Uint8Array, offset: number, request: RequestOptions): Promise<void> {
    for (const { at, bytes } of pieces(buf.length, transferMax)) {
      await rules.check("write", offset + at, bytes);
      await file.write(buf.subarray(at, at + bytes), offset + at, request);
    }
  }

  async function writeZeroes(
    offset: number,
    bytes: number,
    request: RequestOptions,
  ): Promise<void> {
    const { start, end } = wholeGranules(offset, bytes, options["opt-write-zero"] ?? 0);
    if (start > offset) await write(new Uint8Array(start - offset), offset, request);
    const most = options["max-write-zero"] || Number.POSITIVE_INFINITY;
    for (const piece of pieces(end - start, most)) {
      await rules.check("write-zeroes", start + piece.at, piece.bytes);
      await file.writeZeroes(start + piece.at, piece.bytes, request);
    }
    const tail = offset + bytes - end;
    if (tail > 0) await write(new Uint8Array(tail), end, request);
  }

  return {
    limits: { requestAlignment: options.align || 1, clusterSize: 0, growable: true },
    getLength: () => file.length,
    debug: rules,

    async pread(buf, offset, request) {
      for (const { at, bytes } of pieces(buf.length, transferMax)) {
        await rules.check("read", offset + at, bytes);
        await file.read(buf.subarray(at, at + bytes), offset + at, request);
      }
    },
    pwrite: (buf, offset, request) =>
      between(rules, "pwritev", request, () => write(buf, offset, request)),
    pwriteZeroes: (offset, bytes, request) =>
      between(rules, "pwritev_zero", request, () => writeZeroes(offset, bytes, request)),
    async pdiscard(offset, bytes, request) {
      const { start, end } = wholeGranules(offset, bytes, options["opt-discard"] ?? 0);
      const most = options["max-discard"] || Number.POSITIVE_INFINITY;
      for (const piece of pieces(end - start, most)) {
        await rules.check("discard", start + piece.at, piece.bytes);
        await file.discard(start + piece.at, piece.bytes, request);
      }
    },
    checkStatus: (offset, bytes) => rules.check("block-status", offset, bytes),
    async flush() {
      await rules.check("flush", 0, 0);
      await file.flush();
    },
  };
}

/** A write with the events that its own node has, before it and behind it however it ends. */
async function between(
  rules: BlkdebugRules,
  before: DebugEvent,
  { signal }: RequestOptions,
  work: () => Promise<void>,
): Promise<void> {
  await rules.event(before, signal);
  try {
    await work();
  } finally {
    await rules.event("pwritev_done", signal);
  }
}

function* pieces(bytes: number, most: number): Generator<{ at: number; bytes: number }> {
  for (let at = 0; at < bytes; at += most) yield { at, bytes: Math.min(most, bytes - at) };
}

/** The part of a range made of whole granules; nothing, at its end, if there is none. */
function wholeGranules(
  offset: number,
  bytes: number,
  granule: number,
): { start: number; end: number } {
  if (granule <= 1) return { start: offset, end: offset + bytes };
  const start = alignUp(offset, granule);
  const end = alignDown(offset + bytes, granule);
  return start < end ? { start, end } : { start: offset + bytes, end: offset + bytes };
}

function maskOf(names: readonly (keyof typeof PERMISSIONS)[] | undefined): number {
  return (names ?? []).reduce((mask: number, name) => mask | PERMISSIONS[name], Perm.none);
}
