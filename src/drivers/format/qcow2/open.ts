/**
 * Opening: the header is believed field by field, then the features decide what may be done.
 *
 *     file ─▶ header.ts ─▶ extensions.ts ─▶ features ─▶ where the tables lie ─▶ Image
 *
 * Nothing is written here but to an image that is marked dirty, and nothing is allocated that a number in
 * the file decides the size of, but one cluster (2 MiB at most).
 */

import { assert, BlockError } from "../../../base/errors.ts";
import type { CheckRequest } from "../../../block/check.ts";
import type { BlockChild } from "../../../block/child.ts";
import type { Children, OpenContext } from "../../../block/driver.ts";
import { checkImage } from "./check/check.ts";
import { type Encryption, openEncryption } from "./encryption.ts";
import { parseExtensions } from "./extensions.ts";
import { scanGuard } from "./guard-scan.ts";
import {
  checkFeatures,
  HEAD_BYTES,
  type Header,
  Incompatible,
  invalid,
  parseHeader,
} from "./header.ts";
import { Image } from "./image.ts";
import { loadInflater } from "./inflate.ts";
import { SECTOR_BYTES } from "./layout.ts";
import {
  cacheBytesOf,
  checkOpenOptions,
  type OpenOptions,
  passesDiscardOf,
} from "./open-options.ts";
import { readSnapshots } from "./snapshot-table.ts";

/**
 * @param before of the same node, reopened: see encryption.ts
 * @throws BlockError EINVAL that names the field, ENOTSUP that names the feature, EPERM for images
 *   that may only be read, EACCES for a wrong passphrase
 */
export async function openImage(
  context: OpenContext<OpenOptions>,
  before: Encryption | null = null,
): Promise<Image> {
  const image = await readImage(context, before);
  try {
    if (!context.noIo) checkDataFile(image, context.children);
  } catch (error) {
    image.pages.close();
    throw error;
  }
  return image;
}

/** openImage() that does not ask for the data file: enough to change tables. */
export async function readImage(
  context: OpenContext<OpenOptions>,
  before: Encryption | null = null,
): Promise<Image> {
  const { children, readOnly, nodeName, world, options, forCheck = false } = context;
  const { file } = children;
  assert(file, "a qcow2 node has a file");
  const header = parseHeader(await readHead(file, HEAD_BYTES));
  const head = await readHead(file, header.layout.clusterBytes);
  const extensions = parseExtensions(head, header);
  checkFeatures(header, (bit) => extensions.featureName(0, bit));
  if (!forCheck) checkPlaces(header, file, readOnly);
  if (!readOnly && !forCheck) {
    checkWritable(header);
    if (header.incompatible.lo & Incompatible.dirty) {
      await repairDirty(context);
      return readImage(context, before);
    }
  }
  checkOpenOptions(options, header.version, header.layout);

  const inflate = await loadInflater(header.compression, world.zlib);
  const image = new Image({
    header,
    extensions,
    world,
    nodeName,
    readOnly,
    children,
    inflate,
    cacheBytes: cacheBytesOf(options),
    keepsDiscarded: options["discard-no-unref"] ?? false,
    passesDiscard: passesDiscardOf(options),
  });
  // Who checks reads everything himself, and believes nothing.
  if (forCheck) return image;
  try {
    image.encryption = await openEncryption(image, context, before);
    await readStructures(image);
  } catch (error) {
    image.pages.close();
    throw error;
  }
  return image;
}

async function readHead(file: BlockChild, bytes: number): Promise<Uint8Array> {
  const head = new Uint8Array(Math.min(bytes, file.length));
  await file.read(head, 0);
  return head;
}

function checkDataFile({ externalData: needed, extensions }: Image, children: Children): void {
  const given = children["data-file"] !== undefined;
  if (needed && !given) {
    const name = extensions.dataFileName;
    throw new BlockError(
      "EINVAL",
      `The image keeps its data in another file${name === null ? "" : `, '${name}'`}. Names inside ` +
        "images are not followed: give 'data-file' as a node or its options",
    );
  }
  if (!needed && given) {
    throw new BlockError("EINVAL", "'data-file' is given, but the image keeps its data in itself");
  }
}

/** A table that the file does not hold cannot be read as zeroes: those would be lost clusters. */
function checkPlaces(header: Header, file: BlockChild, readOnly: boolean): void {
  const { length } = file;
  const check = (name: string, offset: number, bytes: number) => {
    if (bytes === 0 || offset + bytes <= length) return;
    throw invalid(
      `${name} is ${offset} and the table ends at ${offset + bytes}, past the file's end at ${length}`,
    );
  };
  check("l1_table_offset", header.l1Offset, header.l1Entries * 8);
  // Reading needs no refcounts, nor snapshots.
  if (readOnly) return;
  const refcountBytes = header.refcountTableClusters * header.layout.clusterBytes;
  if (refcountBytes === 0) throw invalid("refcount_table_clusters is 0");
  if (header.refcountTableOffset === 0) throw invalid("refcount_table_offset is 0");
  check("refcount_table_offset", header.refcountTableOffset, refcountBytes);
}

/** @throws BlockError EPERM with what to do instead */
function checkWritable(header: Header): void {
  const { lo } = header.incompatible;
  if (lo & Incompatible.corrupt) {
    throw new BlockError(
      "EPERM",
      "The image is marked corrupt. It can be opened with 'read-only': true; to write to it, " +
        "repair it first (blocktab img check -r all)",
    );
  }
  if (header.size % SECTOR_BYTES !== 0) {
    throw new BlockError(
      "EPERM",
      `The disk's size of ${header.size} is not a multiple of ${SECTOR_BYTES}. It can be opened ` +
        "with 'read-only': true; the rest of its last sector then reads as zeroes",
    );
  }
}

/**
 * Somebody died while he wrote to the image and its refcounts were not right. They are made right before
 * anything is handed out by them, as QEMU does.
 *
 * @throws BlockError EIO if something is left that cannot be repaired
 */
async function repairDirty(context: OpenContext<OpenOptions>): Promise<void> {
  const image = await readImage({ ...context, forCheck: true });
  try {
    const { signal, world } = context;
    const request: CheckRequest = { fix: "all", ...(signal && { signal }) };
    const result = await image.mutex.run(() => checkImage(image, request, world.clock));
    const left = result.corruptions + result["check-errors"];
    if (left === 0) return;
    throw new BlockError(
      "EIO",
      `The image was not closed cleanly, and could not be repaired: ${left} errors are left. It can ` +
        "be opened with 'read-only': true; 'blocktab img check' tells what is wrong",
    );
  } finally {
    image.pages.close();
  }
}

/**
 * The snapshots, and for writing where everything lies. Of an image that is only read nobody needs the
 * snapshots: then what is wrong with them is told to whoever asks.
 */
async function readStructures(image: Image): Promise<void> {
  const { file, header, readOnly } = image;
  try {
    image.snapshots = await readSnapshots(file, header);
  } catch (error) {
    if (!readOnly || !(error instanceof BlockError)) throw error;
    image.snapshotError = error;
  }
  if (!readOnly) image.guard = await scanGuard(image, header, image.snapshots);
}
