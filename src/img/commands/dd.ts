/**
 * `dd`: copies blocks of an image into a new one. As qemu-img's it counts `count` from the start of the
 * input, and blocks that are skipped are part of it.
 */

import { alignUp, MiB, SECTOR_BYTES } from "../../base/bytes.ts";
import { BlockError, throwIfAborted } from "../../base/errors.ts";
import type { BlockBackend } from "../../block/backend.ts";
import { withBuffer } from "../../block/request.ts";
import { chainOf } from "../../block/status.ts";
import { checkSources } from "../../blockjob/preflight.ts";
import { cacheMode } from "../cache-mode.ts";
import {
  type Arguments,
  FORCE_SHARE,
  FORMAT,
  IMAGE_OPTS,
  type ImgCommand,
  OBJECT,
} from "../command.ts";
import { makeTarget } from "../copy-target.ts";
import { openImage } from "../open.ts";
import type { Session } from "../session.ts";
import { parseSize } from "../size.ts";

const BLOCK_BYTES_MAX = 2 ** 31 - 1;
/** What is written does not depend on the size of a block: all go in pieces of this. */
const BUFFER_BYTES = 1 * MiB;

export const dd: ImgCommand = {
  name: "dd",
  summary: "Copies blocks of an image into a new one",
  operands: "[bs=BYTES] [count=N] [skip=N] if=INPUT of=OUTPUT",
  options: [
    FORMAT,
    IMAGE_OPTS,
    { ...FORMAT, name: "output-format", short: "O", help: "the output's format; raw unless given" },
    FORCE_SHARE,
    OBJECT,
  ],
  run,
};

interface Operands {
  readonly input: string;
  readonly output: string;
  readonly block: number;
  readonly count: number | undefined;
  readonly skip: number;
}

async function run(session: Session, args: Arguments): Promise<number> {
  const { input, output, block, count, skip } = parse(args.operands);
  const isOptions = args.has("image-opts");
  const source = await openImage(session, { name: input, format: args.last("format"), isOptions });
  await checkSources(chainOf(source.node));
  const length = alignUp(source.length, SECTOR_BYTES);
  const end = count === undefined ? length : Math.min(length, count * block);
  const start = skip * block;
  const isBeyond = end < start;
  const format = args.last("output-format") ?? "raw";
  const target = await makeTarget(session, {
    name: output,
    format,
    values: new Map([["size", String(isBeyond ? 0 : end - start)]]),
    cache: cacheMode("writeback"),
  });
  if (isBeyond) await session.complain(`${input}: cannot skip to specified offset`);
  else await copy(session, source, target, { start, end });
  await target.flush();
  await session.release(target);
  return 0;
}

async function copy(
  { signal }: Session,
  source: BlockBackend,
  target: BlockBackend,
  { start, end }: { readonly start: number; readonly end: number },
): Promise<void> {
  const options = signal ? { signal } : {};
  for (let at = start; at < end; ) {
    throwIfAborted(signal);
    const bytes = Math.min(BUFFER_BYTES, end - at);
    await withBuffer(source.node, bytes, async (buf) => {
      const there = Math.max(0, Math.min(bytes, source.length - at));
      buf.fill(0, there);
      if (there > 0) await source.read(buf.subarray(0, there), at, options);
      await target.write(buf, at - start, options);
    });
    at += bytes;
  }
}

function parse(operands: readonly string[]): Operands {
  const values = new Map<string, string>();
  for (const operand of operands) {
    const [, key, value] = /^([^=]*)=?(.*)$/s.exec(operand)!;
    if (!["if", "of", "bs", "count", "skip"].includes(key!)) {
      throw new BlockError("EINVAL", `Unrecognized operand '${key}'`);
    }
    values.set(key!, value!);
  }
  const [input, output] = [values.get("if"), values.get("of")];
  const number = (key: string) => {
    const text = values.get(key);
    return text === undefined ? undefined : parseSize(text, `Operand '${key}'`);
  };
  const block = number("bs") ?? SECTOR_BYTES;
  if (block < 1 || block > BLOCK_BYTES_MAX) {
    throw new BlockError("EINVAL", `Operand 'bs' takes 1 to ${BLOCK_BYTES_MAX} bytes`);
  }
  const count = number("count");
  const skip = number("skip") ?? 0;
  if (input === undefined || output === undefined) {
    throw new BlockError("EINVAL", "Expected an input and an output: if=… of=…");
  }
  return { input, output, block, count, skip };
}
