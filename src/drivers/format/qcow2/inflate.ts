/**
 * Unpacking one cluster. What follows a packed stream in its last sector is other data: it is
 * neither looked at nor an error.
 *
 * Whatever goes wrong inside the libraries is the image's fault, never ours: hence `false`, from
 * which compressed.ts makes an error that names the guest range.
 */

import {
  Z_BUF_ERROR,
  Z_FINISH,
  Z_OK,
  Z_STREAM_END,
  ZStream,
  zlibInflate,
  zlibInflateInit2,
} from "pako";
import { BlockError } from "../../../base/errors.ts";
import type { HostZlib } from "../../../base/zlib.ts";

/** Fills `target` from the start of `packed`. @returns false if that is not to be had */
export type Inflater = (packed: Uint8Array, target: Uint8Array) => boolean;

/** Raw deflate. QEMU writes with a 4 KiB window, others with the full one: so we read with that. */
const WINDOW_BITS = -15;

/** @throws BlockError ENOTSUP if the unpacker does not run here */
export async function loadInflater(
  compression: "zlib" | "zstd",
  host: HostZlib | undefined,
): Promise<Inflater> {
  if (compression === "zstd") return loadZstd();
  if (!host) return inflateZlib;
  // What the host says no to may still have filled the cluster: in what it takes, pako has the last word.
  return (packed, target) => host.inflate(packed, target) || inflateZlib(packed, target);
}

function inflateZlib(packed: Uint8Array, target: Uint8Array): boolean {
  const stream = new ZStream();
  if (zlibInflateInit2(stream, WINDOW_BITS) !== Z_OK) return false;
  stream.input = packed;
  stream.next_in = 0;
  stream.avail_in = packed.length;
  // Its type asks for memory that is not shared, its code does not care.
  stream.output = target as Uint8Array<ArrayBuffer>;
  stream.next_out = 0;
  stream.avail_out = target.length;
  const status = zlibInflate(stream, Z_FINISH);
  // A full buffer is all we want: whether the stream goes on does not matter (as in QEMU).
  return (
    stream.avail_out === 0 && (status === Z_STREAM_END || status === Z_OK || status === Z_BUF_ERROR)
  );
}

/** libzstd itself, as wasm; loaded when the first image needs it, and kept. */
let zstd: Promise<Inflater> | null = null;

async function loadZstd(): Promise<Inflater> {
  zstd ??= makeZstd();
  try {
    return await zstd;
  } catch (cause) {
    // The next one may have more luck.
    zstd = null;
    throw new BlockError("ENOTSUP", "The image is packed with zstd, whose unpacker does not load", {
      cause,
    });
  }
}

async function makeZstd(): Promise<Inflater> {
  const { ZSTDDecoder } = await import("zstddec");
  const decoder = new ZSTDDecoder();
  await decoder.init();
  return (packed, target) => {
    let from = 0;
    for (let done = 0; done < target.length; ) {
      const bytes = zstdFrameBytes(packed.subarray(from));
      if (bytes === 0) return false;
      const frame = packed.subarray(from, from + bytes);
      const out = decoder.decode(frame, target.length - done);
      // An error code comes back as no bytes at all, or as more than there can be.
      if (out.length === 0 || out.length > target.length - done) return false;
      target.set(out, done);
      done += out.length;
      from += bytes;
    }
    return true;
  };
}

const ZSTD_MAGIC = 0xfd2fb528;
const ZSTD_BLOCK_RLE = 1;
const ZSTD_BLOCK_RESERVED = 3;

/**
 * Length of the zstd frame at the start, 0 if there is no whole one.
 *
 * The decoder wants exactly one frame, but the entry tells its end only to a sector. The blocks'
 * headers are enough to find it (RFC 8878, section 3.1.1).
 *
 *     magic 4 │ descriptor 1 │ window 0-1 │ dictionary 0-4 │ size 0-8 │ blocks … │ checksum 0-4
 */
export function zstdFrameBytes(packed: Uint8Array): number {
  const view = new DataView(packed.buffer, packed.byteOffset, packed.byteLength);
  if (packed.length < 6 || view.getUint32(0, true) !== ZSTD_MAGIC) return 0;
  const descriptor = view.getUint8(4);
  const singleSegment = (descriptor >> 5) & 1;
  const dictionaryBytes = [0, 1, 2, 4][descriptor & 3]!;
  const sizeBytes = [singleSegment, 2, 4, 8][descriptor >> 6]!;
  const checksumBytes = ((descriptor >> 2) & 1) * 4;
  for (let at = 5 + (1 - singleSegment) + dictionaryBytes + sizeBytes; at + 3 <= packed.length; ) {
    const header = view.getUint16(at, true) + view.getUint8(at + 2) * 0x10000;
    const kind = (header >> 1) & 3;
    if (kind === ZSTD_BLOCK_RESERVED) return 0;
    at += 3 + (kind === ZSTD_BLOCK_RLE ? 1 : header >> 3);
    if ((header & 1) === 0) continue;
    const end = at + checksumBytes;
    return end <= packed.length ? end : 0;
  }
  return 0;
}
