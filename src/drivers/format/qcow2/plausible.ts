/**
 * Images that are made to fill disks: a few hundred KiB that map half a TiB, because every L1 entry
 * leads to one and the same L2 table, whose entries all lead to one packed cluster.
 *
 *     L1 ─┬─▶ L2 ─┬─▶ 79 bytes          each way of sharing multiplies
 *         ├─▶ ·   ├─▶ ·
 *         └─▶ ·   └─▶ ·
 *
 * A whole image has room for every L2 table that its L1 table counts. One that has not is damaged or made
 * to hurt, and nobody wants a copy of all that it claims. What remains possible is what a whole image
 * could also have: one cluster of data for every 8 bytes of L2 table.
 */

import { readU32 } from "../../../base/bytes.ts";
import { BlockError } from "../../../base/errors.ts";
import type { Image } from "./image.ts";
import { L1_PIECE_BYTES } from "./l2-walk.ts";
import { hostOffsetOf } from "./layout.ts";

/**
 * Cost: the L1 table, and not even that where the file is longer than all tables could be.
 *
 * @throws BlockError EIO that says what the image claims
 */
export async function checkPlausible(image: Image): Promise<void> {
  const { file, header, layout } = image;
  const { l1Entries, l1Offset } = header;
  const room = Math.ceil(file.length / layout.clusterBytes);
  if (l1Entries <= room) return;
  let tables = 0;
  for (let at = 0; at < l1Entries * 8; at += L1_PIECE_BYTES) {
    const piece = new Uint8Array(Math.min(L1_PIECE_BYTES, l1Entries * 8 - at));
    await file.read(piece, l1Offset + at);
    for (let i = 0; i < piece.length; i += 8) {
      if (hostOffsetOf(readU32(piece, i), readU32(piece, i + 4)) !== 0) tables++;
    }
  }
  if (tables <= room) return;
  throw new BlockError(
    "EIO",
    `The image of node '${image.nodeName}' is not to be believed: its L1 table leads to ${tables} L2 ` +
      `tables, which map up to ${tables * layout.l2CoverBytes} bytes, and its file of ${file.length} ` +
      `bytes has room for ${room}. It is damaged, or made to fill disks; it can be looked into with ` +
      "reads, and repaired (blocktab img check -r all)",
  );
}
