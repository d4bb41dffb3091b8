/**
 * zlib as a host may have it: machine code, and packing in other threads. Where there is none, pako does
 * the same in this one.
 */

export interface HostZlib {
  /** Raw deflate, in which no distance is longer than 4 KiB. @throws BlockError ENOMEM */
  deflate(data: Uint8Array): Promise<Uint8Array>;

  /**
   * Raw deflate with any window; bytes behind the stream are not looked at.
   *
   * @returns whether the stream fills `target` and ends there; if not, what `target` holds is open
   */
  inflate(packed: Uint8Array, target: Uint8Array): boolean;
}
