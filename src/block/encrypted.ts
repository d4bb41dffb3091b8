/**
 * Where data meets the cipher of an encrypted image (BlockState.cipher), right before it goes to the
 * store and right after it came from there. All other layers, and all other parts of this one, see what
 * guests see: copies, zero runs and comparisons need not know.
 *
 *     guest ── plain ──▶ locked.ts ── plain ──▶ here ── encrypted, whole sectors ──▶ child
 */

import { alignDown, alignUp } from "../base/bytes.ts";
import type { BlockChild } from "./child.ts";
import type { Mapping, RequestOptions } from "./driver.ts";
import type { BlockNode } from "./node.ts";
import { COPY_BYTES, childOf, withBuffer } from "./request.ts";

/** What a cipher works on. Clusters are multiples of it: whole in a disk, whole in its file. */
export const CIPHER_SECTOR_BYTES = 512;

export function isWholeSectors(buf: Uint8Array, offset: number): boolean {
  return offset % CIPHER_SECTOR_BYTES === 0 && buf.length % CIPHER_SECTOR_BYTES === 0;
}

/** Reads a run that map() called data. */
export async function readData(
  node: BlockNode,
  { role, offset }: Mapping & { readonly kind: "data" },
  buf: Uint8Array,
  options: RequestOptions,
): Promise<void> {
  const { cipher } = node.state;
  const child = childOf(node, role);
  if (!cipher) return child.read(buf, offset, options);
  if (isWholeSectors(buf, offset)) {
    await child.read(buf, offset, options);
    return cipher.decrypt(buf, offset);
  }
  const start = alignDown(offset, CIPHER_SECTOR_BYTES);
  const whole = new Uint8Array(alignUp(offset + buf.length, CIPHER_SECTOR_BYTES) - start);
  await child.read(whole, start, options);
  cipher.decrypt(whole, start);
  buf.set(whole.subarray(offset - start, offset - start + buf.length));
}

/** Writes a guest's buffer, which stays as it is, to where allocate() said. */
export async function writeData(
  node: BlockNode,
  child: BlockChild,
  data: Uint8Array,
  offset: number,
  options: RequestOptions,
): Promise<void> {
  if (!node.state.cipher) return child.write(data, offset, options);
  for (let done = 0; done < data.length; done += COPY_BYTES) {
    const piece = data.subarray(done, done + COPY_BYTES);
    await withBuffer(node, piece.length, (buf) => {
      buf.set(piece);
      return writeOwn(node, child, buf, offset + done, options);
    });
  }
}

/** The same for a buffer that nobody needs afterwards. */
export async function writeOwn(
  node: BlockNode,
  child: BlockChild,
  buf: Uint8Array,
  offset: number,
  options: RequestOptions,
): Promise<void> {
  node.state.cipher?.encrypt(buf, offset);
  return child.write(buf, offset, options);
}
