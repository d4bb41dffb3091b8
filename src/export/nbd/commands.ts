/** What each command of the transmission does: a table by number. All throw BlockError. */

import type { Clock } from "../../base/clock.ts";
import { BlockError } from "../../base/errors.ts";
import type { BackendRequestOptions, BlockBackend } from "../../block/backend.ts";
import type { NbdExport } from "./export.ts";
import { allocationExtents, bitmapExtents, depthExtents, type Extent } from "./extents.ts";
import { ALLOCATION_ID, DEPTH_ID, FIRST_BITMAP_ID } from "./meta-contexts.ts";
import { Command, CommandFlag } from "./protocol.ts";
import type { Replies } from "./replies.ts";
import type { Request } from "./request.ts";

/** By which a request is called off. */
export interface Signals {
  /** The client is gone: nobody wants to read any more. */
  readonly unwanted: AbortSignal;
  /** The export goes away: nothing more is done on it. */
  readonly cut: AbortSignal;
}

export interface CommandContext extends Signals {
  readonly exported: NbdExport;
  readonly backend: BlockBackend;
  readonly replies: Replies;
  readonly clock: Clock;
}

/** Answers the request, unless it throws. */
export async function run(request: Request, context: CommandContext): Promise<void> {
  const { type, offset, bytes } = request;
  const { trace } = context.backend.node.world;
  trace.nbd_receive_request?.(context.exported.name, type, offset, bytes);
  const command = COMMANDS.get(type);
  if (!command) throw new BlockError("EINVAL", `There is no command ${request.type}`);
  await command(request, context);
}

const COMMANDS: ReadonlyMap<number, (request: Request, context: CommandContext) => Promise<void>> =
  new Map([
    [Command.read, read],
    [Command.write, write],
    [Command.flush, flush],
    [Command.trim, trim],
    [Command.cache, cache],
    [Command.writeZeroes, writeZeroes],
    [Command.blockStatus, blockStatus],
  ]);

const has = ({ flags }: Request, flag: number): boolean => (flags & flag) !== 0;

async function read(request: Request, context: CommandContext): Promise<void> {
  const { backend, replies, unwanted: signal } = context;
  const { offset, bytes } = request;
  if (has(request, CommandFlag.fua)) await backend.flush({ signal });
  if (!replies.isStructured) {
    return replies.simpleRead(request, (data) => backend.read(data, offset, { signal }));
  }
  if (bytes === 0) return replies.none(request);
  if (!has(request, CommandFlag.dontFragment)) return sparseRead(request, context);
  return replies.data(request, offset, bytes, true, (data) =>
    backend.read(data, offset, { signal }),
  );
}

/** Zeroes are told, not sent. */
async function sparseRead(request: Request, context: CommandContext): Promise<void> {
  const { backend, replies, unwanted: signal } = context;
  const end = request.offset + request.bytes;
  for (let at = request.offset; at < end; ) {
    const run = await backend.status(at, end - at, { signal });
    const isLast = at + run.bytes === end;
    const offset = at;
    if (run.zero) await replies.hole(request, offset, run.bytes, isLast);
    else {
      await replies.data(request, offset, run.bytes, isLast, (data) =>
        backend.read(data, offset, { signal }),
      );
    }
    at += run.bytes;
  }
}

async function write(request: Request, { backend, replies, cut }: CommandContext): Promise<void> {
  const options = changeOptions(request, cut);
  await backend.write(request.data ?? new Uint8Array(0), request.offset, options);
  await replies.done(request);
}

async function writeZeroes(
  request: Request,
  { backend, replies, cut }: CommandContext,
): Promise<void> {
  await backend.writeZeroes(request.offset, request.bytes, {
    ...changeOptions(request, cut),
    mayUnmap: !has(request, CommandFlag.noHole),
    noFallback: has(request, CommandFlag.fastZero),
  });
  await replies.done(request);
}

async function flush(request: Request, { backend, replies, cut }: CommandContext): Promise<void> {
  await backend.flush({ signal: cut });
  await replies.done(request);
}

async function trim(request: Request, { backend, replies, cut }: CommandContext): Promise<void> {
  await backend.discard(request.offset, request.bytes, { signal: cut });
  if (has(request, CommandFlag.fua)) await backend.flush({ signal: cut });
  await replies.done(request);
}

/** Brings near what is far, where the image takes it. */
async function cache(
  request: Request,
  { exported, backend, replies, unwanted: signal }: CommandContext,
): Promise<void> {
  const { allocate } = backend.node.state;
  if (exported.isWritable && allocate) {
    await backend.copyUp(request.offset, request.bytes, { signal });
  }
  await replies.done(request);
}

async function blockStatus(request: Request, context: CommandContext): Promise<void> {
  const { contexts } = request;
  if (contexts.length === 0) throw new BlockError("EINVAL", "No context has been selected");
  if (request.bytes === 0) throw new BlockError("EINVAL", "A status is that of some bytes");
  for (const [index, { id }] of contexts.entries()) {
    const extents = await extentsOf(id, request, context);
    await context.replies.extents(request, id, extents, index === contexts.length - 1);
  }
}

async function extentsOf(
  id: number,
  request: Request,
  { exported, backend, replies, clock, unwanted }: CommandContext,
): Promise<readonly Extent[]> {
  const wanted = {
    offset: request.offset,
    bytes: request.bytes,
    isOne: has(request, CommandFlag.oneExtent),
    isWide: replies.isExtended,
    clock,
    signal: unwanted,
  };
  if (id === ALLOCATION_ID) return allocationExtents(backend, wanted);
  if (id === DEPTH_ID) return depthExtents(backend, wanted);
  return bitmapExtents(exported.bitmaps[id - FIRST_BITMAP_ID]!, wanted);
}

function changeOptions(request: Request, signal: AbortSignal): BackendRequestOptions {
  return { signal, fua: has(request, CommandFlag.fua) };
}
