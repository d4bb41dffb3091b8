/**
 * Packing one cluster, so that QEMU can unpack it: inflate.ts is the way back.
 *
 *   zlib   raw deflate with a window of 4 KiB, which is all that QEMU unpacks with
 *   zstd   one frame at the library's own level: libzstd itself as wasm, loaded by the first write
 *
 * zstd is unpacked by another library than this one: that one is told how much may come out, where this
 * one would believe the frame.
 */

import {
  Z_DEFAULT_STRATEGY,
  Z_FINISH,
  Z_OK,
  Z_STREAM_END,
  ZStream,
  zlibDeflate,
  zlibDeflateInit2,
  zlibDeflateReset,
} from "pako";
import { assert, BlockError } from "../../../base/errors.ts";
import type { HostZlib } from "../../../base/zlib.ts";

/** @returns null if the cluster does not get smaller */
export type Packer = (cluster: Uint8Array) => Promise<Uint8Array | null>;

const LEVEL_DEFAULT = -1;
const METHOD_DEFLATE = 8;
const WINDOW_BITS = -12;
/** Not QEMU's 9: pako would spend half its time on a hash table 16 times the window, for 0.1 % less. */
const MEMORY_LEVEL = 8;

/** @throws BlockError ENOTSUP if the packer does not run here */
export async function loadPacker(
  compression: "zlib" | "zstd",
  host: HostZlib | undefined,
): Promise<Packer> {
  if (compression === "zstd") return loadZstd();
  return host ? (cluster) => packBy(host, cluster) : async (cluster) => packZlib(cluster);
}

async function packBy(host: HostZlib, cluster: Uint8Array): Promise<Uint8Array | null> {
  const packed = await host.deflate(cluster);
  return packed.length < cluster.length ? packed : null;
}

/** Its tables take longer to make than most clusters to pack. Used in one turn, so one does for all. */
let deflater: ZStream | null = null;

function packZlib(cluster: Uint8Array): Uint8Array | null {
  deflater ??= newDeflater();
  const stream = deflater;
  zlibDeflateReset(stream);
  const target = new Uint8Array(cluster.length);
  // Its type asks for memory that is not shared, its code does not care.
  stream.input = cluster as Uint8Array<ArrayBuffer>;
  stream.next_in = 0;
  stream.avail_in = cluster.length;
  stream.output = target;
  stream.next_out = 0;
  stream.avail_out = target.length - 1;
  const status = zlibDeflate(stream, Z_FINISH);
  return status === Z_STREAM_END ? target.subarray(0, stream.next_out) : null;
}

function newDeflater(): ZStream {
  const stream = new ZStream();
  const status = zlibDeflateInit2(
    stream,
    LEVEL_DEFAULT,
    METHOD_DEFLATE,
    WINDOW_BITS,
    MEMORY_LEVEL,
    Z_DEFAULT_STRATEGY,
  );
  assert(status === Z_OK, "these are settings that zlib has");
  return stream;
}

async function loadZstd(): Promise<Packer> {
  try {
    const { Zstd } = await import("@hpcc-js/wasm-zstd");
    const zstd = await Zstd.load();
    copyAtOnce(zstd);
    return async (cluster) => {
      const packed = zstd.compress(cluster);
      return packed.length < cluster.length ? packed : null;
    };
  } catch (cause) {
    throw new BlockError("ENOTSUP", "The image is packed with zstd, whose packer does not load", {
      cause,
    });
  }
}

interface ZstdHeap {
  heapView(place: unknown): Uint8Array;
  heapToUint8Array(place: unknown): Uint8Array;
}

/**
 * The library spreads what it has packed into a list of numbers before it copies it, which takes longer
 * than packing. A version without these members keeps its own way.
 */
function copyAtOnce(zstd: object): void {
  const { _mainModule: heap } = zstd as { readonly _mainModule?: Partial<ZstdHeap> };
  if (!heap?.heapView || !heap.heapToUint8Array) return;
  heap.heapToUint8Array = (place) => heap.heapView!(place).slice();
}
