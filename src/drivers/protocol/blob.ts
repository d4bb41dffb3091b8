/**
 * A file that the user picked, or any other Blob: read only, and read in slices.
 *
 * The file on the user's disk may change under us. Browsers then refuse to read, which is an error
 * here too: half of the old file and half of the new one is neither.
 */

import * as v from "valibot";
import { MiB } from "../../base/bytes.ts";
import { BlockError, throwIfAborted } from "../../base/errors.ts";
import type { BlockState, RequestOptions, StateInfo } from "../../block/driver.ts";
import type { TypedDriver } from "../../block/option-types.ts";
import { storeError } from "./errors.ts";

/** Most that one slice brings into memory next to the caller's buffer. */
const SLICE_BYTES = 2 * MiB;

const openOptions = { name: v.string() };
type OpenOptions = v.InferOutput<v.ObjectSchema<typeof openOptions, undefined>>;

/** What types are made of: see src/block/option-types.ts. */
interface Types {
  readonly name: "blob";
  readonly kind: "protocol";
  readonly roles: Record<never, never>;
  readonly openOptions: typeof openOptions;
}

/** @param blobs what the page handed over, by name; may grow while the driver is in use */
export function blobDriver(blobs: ReadonlyMap<string, Blob>): TypedDriver<Types, OpenOptions> {
  return {
    name: "blob",
    kind: "protocol",
    roles: {},
    openOptions,
    reopenOptions: [],

    async open({ options: { name }, readOnly }) {
      const blob = blobs.get(name);
      if (blob === undefined) throw new BlockError("ENOENT", `No file '${name}' was handed over`);
      if (!readOnly) {
        throw new BlockError(
          "EACCES",
          `The file '${name}' was picked to be read ('read-only': true), and cannot be written: copy it ` +
            "into a file in OPFS or into memory",
        );
      }
      return new BlobState(blob, name);
    },
  };
}

class BlobState implements BlockState {
  readonly limits = { requestAlignment: 1, clusterSize: 0, growable: false };
  readonly #blob: Blob;
  readonly #name: string;

  constructor(blob: Blob, name: string) {
    this.#blob = blob;
    this.#name = name;
  }

  getLength(): number {
    return this.#blob.size;
  }

  async pread(buf: Uint8Array, offset: number, { signal }: RequestOptions = {}): Promise<void> {
    for (let done = 0; done < buf.length; done += SLICE_BYTES) {
      throwIfAborted(signal);
      const bytes = Math.min(SLICE_BYTES, buf.length - done);
      buf.set(await this.#slice(offset + done, bytes), done);
    }
  }

  async reopen(readOnly: boolean): Promise<void> {
    if (!readOnly) throw new BlockError("EROFS", `The file '${this.#name}' can only be read`);
  }

  info(): StateInfo {
    return { filename: this.#name };
  }

  async #slice(offset: number, bytes: number): Promise<Uint8Array> {
    const attempted = `Reading ${bytes} bytes at ${offset} of '${this.#name}'`;
    let slice: ArrayBuffer;
    try {
      slice = await this.#blob.slice(offset, offset + bytes).arrayBuffer();
    } catch (error) {
      const reason = storeError(error, attempted);
      // NotFoundError: the file was moved or deleted. It can not be read again either way.
      if (reason.errno !== "ESTALE" && reason.errno !== "ENOENT") throw reason;
      throw new BlockError(
        "ESTALE",
        `${attempted} failed: the file was changed, moved or deleted since it was picked; pick it again`,
        { cause: error },
      );
    }
    if (slice.byteLength !== bytes) {
      throw new BlockError("ESTALE", `${attempted} failed: the file has become shorter`);
    }
    return new Uint8Array(slice);
  }
}
