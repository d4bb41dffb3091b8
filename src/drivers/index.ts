/**
 * The drivers that work in a browser: the one place where a new one is listed. The file driver is
 * for Node only and is added by src/engine/node.ts.
 */

import type { BlockDriver } from "../block/driver.ts";
import { blkdebug } from "./filter/blkdebug.ts";
import { blklogwrites } from "./filter/blklogwrites.ts";
import { copyBeforeWriteDriver } from "./filter/copy-before-write.ts";
import { copyOnRead } from "./filter/copy-on-read.ts";
import { snapshotAccess } from "./filter/snapshot-access.ts";
import { throttle } from "./filter/throttle.ts";
import { qcow2Driver } from "./format/qcow2/index.ts";
import { rawDriver } from "./format/raw.ts";
import { blobDriver } from "./protocol/blob.ts";
import { httpDriver } from "./protocol/http.ts";
import { indexeddbDriver } from "./protocol/indexeddb.ts";
import { memoryDriver } from "./protocol/memory.ts";
import { opfsDriver } from "./protocol/opfs.ts";

/** A list for one engine. @param blobs where the blob driver finds what clients hand over */
export function browserDrivers(blobs: ReadonlyMap<string, Blob>): BlockDriver[] {
  return [
    memoryDriver(),
    opfsDriver(),
    indexeddbDriver(),
    blobDriver(blobs),
    httpDriver(),
    rawDriver(),
    qcow2Driver(),
    copyOnRead,
    copyBeforeWriteDriver(),
    snapshotAccess,
    throttle,
    blkdebug,
    blklogwrites,
  ];
}
