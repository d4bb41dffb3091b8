/**
 * The drivers that work in a browser: the one place where a new one is listed. The file driver is
 * for Node only and is added by src/engine/node.ts.
 */

import type { BlockDriver } from "../block/driver.ts";
import type { AmendOptions, BlockdevOptions, CreateOptions } from "../block/option-types.ts";
import { blkdebug } from "./filter/blkdebug.ts";
import { blklogwrites } from "./filter/blklogwrites.ts";
import { copyBeforeWriteDriver } from "./filter/copy-before-write.ts";
import { copyOnRead } from "./filter/copy-on-read.ts";
import { snapshotAccess } from "./filter/snapshot-access.ts";
import { throttle } from "./filter/throttle.ts";
import { qcow2Driver } from "./format/qcow2/index.ts";
import { rawDriver } from "./format/raw.ts";
import { blobDriver } from "./protocol/blob.ts";
import type { fileDriver } from "./protocol/file.ts";
import { httpDriver } from "./protocol/http.ts";
import { indexeddbDriver } from "./protocol/indexeddb.ts";
import { memoryDriver } from "./protocol/memory.ts";
import { nullDriver } from "./protocol/null.ts";
import { opfsDriver } from "./protocol/opfs.ts";

/** A list for one engine. @param blobs where the blob driver finds what clients hand over */
export function browserDrivers(blobs: ReadonlyMap<string, Blob>) {
  return [
    memoryDriver(),
    opfsDriver(),
    indexeddbDriver(),
    blobDriver(blobs),
    httpDriver(),
    nullDriver("null-co"),
    nullDriver("null-aio"),
    rawDriver(),
    qcow2Driver(),
    copyOnRead,
    copyBeforeWriteDriver(),
    snapshotAccess,
    throttle,
    blkdebug,
    blklogwrites,
  ] satisfies BlockDriver[];
}

/** Every driver there is; which of them an engine has depends on where it runs. */
type AnyDriver = ReturnType<typeof browserDrivers>[number] | ReturnType<typeof fileDriver>;

/** What blockdev-add takes, by driver: see src/block/option-types.ts. */
export type AnyBlockdevOptions = BlockdevOptions<AnyDriver>;
/** What blockdev-create takes as `options`. */
export type AnyCreateOptions = CreateOptions<AnyDriver>;
/** What x-blockdev-amend takes as `options`. */
export type AnyAmendOptions = AmendOptions<AnyDriver>;
