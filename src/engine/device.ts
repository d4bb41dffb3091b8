/**
 * An opened export: the bytes of a disk, for the page.
 *
 * Requests run side by side and in any order: who wants a write before a read awaits the write. Long
 * ones are split, so a failed long write may have been done in part. All methods throw QmpError with
 * an errno: EINVAL past the end, EACCES for writes to a read-only export, ENOMEDIUM once the export
 * has been taken away, ECANCELED, and what the disk says, such as EIO and ENOSPC.
 */

import { settleAll } from "../base/settle.ts";
import type { DataRequester } from "./data-client.ts";
import { type OpenedDevice, REQUEST_BYTES_MAX } from "./protocol.ts";

export interface DeviceRequestOptions {
  /** Raised when nobody wants the answer any more. A write may be done all the same. */
  readonly signal?: AbortSignal;
}

export class Device {
  /** Id of the export. */
  readonly id: string;
  /** Length of the disk in bytes, as it was when the device was opened. */
  readonly size: number;
  readonly writable: boolean;
  readonly #client: DataRequester;
  readonly #device: number;

  constructor(id: string, client: DataRequester, { device, size, writable }: OpenedDevice) {
    this.id = id;
    this.size = size;
    this.writable = writable;
    this.#client = client;
    this.#device = device;
  }

  /** @returns a buffer of its own, `bytes` long */
  async read(
    offset: number,
    bytes: number,
    options: DeviceRequestOptions = {},
  ): Promise<Uint8Array<ArrayBuffer>> {
    if (bytes <= REQUEST_BYTES_MAX) return this.#readPiece(offset, bytes, options);
    const data = new Uint8Array(bytes);
    await settleAll(
      pieces(bytes).map(async ({ at, length }) => {
        data.set(await this.#readPiece(offset + at, length, options), at);
      }),
    );
    return data;
  }

  /** @param data copied before the call returns; the caller's to change again */
  async write(
    offset: number,
    data: Uint8Array,
    { signal }: DeviceRequestOptions = {},
  ): Promise<void> {
    await settleAll(
      pieces(data.length).map(({ at, length }) => {
        const piece = data.slice(at, at + length).buffer as ArrayBuffer;
        return this.#client.request(
          { op: "write", device: this.#device, offset: offset + at, data: piece },
          [piece],
          signal,
        );
      }),
    );
  }

  /** @param options.mayUnmap the space may be given back to the store */
  async writeZeroes(
    offset: number,
    bytes: number,
    { signal, mayUnmap = false }: DeviceRequestOptions & { readonly mayUnmap?: boolean } = {},
  ): Promise<void> {
    await this.#client.request(
      { op: "write-zeroes", device: this.#device, offset, bytes, mayUnmap },
      [],
      signal,
    );
  }

  /** After it, a crash takes nothing back that was written before it was called. */
  async flush(): Promise<void> {
    await this.#client.request({ op: "flush", device: this.#device });
  }

  /** Does not flush. The export stays, and may be opened again. */
  async close(): Promise<void> {
    await this.#client.request({ op: "close", device: this.#device });
  }

  async #readPiece(
    offset: number,
    bytes: number,
    { signal }: DeviceRequestOptions,
  ): Promise<Uint8Array<ArrayBuffer>> {
    const request = { op: "read", device: this.#device, offset, bytes } as const;
    return new Uint8Array(await this.#client.request(request, [], signal));
  }
}

function pieces(bytes: number): { at: number; length: number }[] {
  return Array.from({ length: Math.max(1, Math.ceil(bytes / REQUEST_BYTES_MAX)) }, (_, index) => {
    const at = index * REQUEST_BYTES_MAX;
    return { at, length: Math.min(REQUEST_BYTES_MAX, bytes - at) };
  });
}
