/**
 * Node's zlib for packed clusters. Packing takes a millisecond and more for a cluster, so it goes to the
 * thread pool, where several are packed at once. Unpacking takes a tenth of that, which is less than the way there and
 * back: that is done here.
 */

import { constants, deflateRaw, inflateRawSync } from "node:zlib";
import { BlockError } from "../base/errors.ts";
import type { HostZlib } from "../base/zlib.ts";

/** QEMU unpacks with 4 KiB. */
const PACK_WINDOW_BITS = 12;
const UNPACK_WINDOW_BITS = constants.Z_MAX_WINDOWBITS;
const MEMORY_LEVEL = 9;
const CHUNK_BYTES_MIN = constants.Z_MIN_CHUNK;

export const nodeZlib: HostZlib = {
  deflate(data) {
    const options = {
      windowBits: PACK_WINDOW_BITS,
      memLevel: MEMORY_LEVEL,
      chunkSize: Math.max(CHUNK_BYTES_MIN, data.length),
    };
    return new Promise((resolve, reject) => {
      deflateRaw(data, options, (cause, packed) => {
        if (!cause) resolve(packed);
        else reject(new BlockError("ENOMEM", `Packing failed: ${cause.message}`, { cause }));
      });
    });
  },

  inflate(packed, target) {
    const options = {
      windowBits: UNPACK_WINDOW_BITS,
      chunkSize: Math.max(CHUNK_BYTES_MIN, target.length),
      // What would unpack to more is not made.
      maxOutputLength: target.length,
    };
    let data: Uint8Array;
    try {
      data = inflateRawSync(packed, options);
    } catch (error) {
      if (!(error instanceof Error && "code" in error)) throw error;
      return false;
    }
    if (data.length !== target.length) return false;
    target.set(data);
    return true;
  },
};
