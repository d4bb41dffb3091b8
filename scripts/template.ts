/**
 * Which files make up a template: the image that the user named, and what its chain of backing files
 * leads to.
 *
 *     [base.raw] <── [mid.qcow2] <── [top.qcow2]       top first in Template.chain
 *
 * A name inside an image is only a label, and the engine follows none. Here the user has said on
 * the command line "serve this image with its chain", so labels are mapped to files as QEMU does:
 * relative to the image that holds the label, plain file names only. Whatever is served can be read
 * by the page, so where a label or a format is in doubt this refuses, and says what to do.
 */

import { type FileHandle, open, stat } from "node:fs/promises";
import { basename, dirname, isAbsolute, join, resolve } from "node:path";
import { BlockError } from "../src/base/errors.ts";
import { parseExtensions } from "../src/drivers/format/qcow2/extensions.ts";
import {
  checkFeatures,
  Incompatible,
  looksLikeQcow2,
  parseHeader,
} from "../src/drivers/format/qcow2/header.ts";
import { UserError } from "./setup.mjs";

/** As deep as the engine opens (src/block/opener.ts). */
const CHAIN_IMAGES_MAX = 200;

/** An image's header and what follows it lie in the first cluster, of 2 MiB at most. */
const HEAD_BYTES = 2 * 1024 * 1024;

export type ImageFormat = "raw" | "qcow2";

export interface TemplateImage {
  readonly path: string;
  readonly format: ImageFormat;
  /** Where the guest's data is, if not in the image. */
  readonly dataFile?: string;
}

export interface Template {
  readonly name: string;
  /** Bytes. */
  readonly virtualSize: number;
  /** Top first, at least one. */
  readonly chain: readonly TemplateImage[];
  /** Made by scripts/demo-template.ts. */
  readonly demo: boolean;
}

/** An image to look at. */
interface Next {
  readonly path: string;
  /** null: nobody has said. */
  readonly format: ImageFormat | null;
  /** The image above; null for the one that the user named. */
  readonly namedBy: string | null;
}

/** What an image says of itself. Names are labels, as they stand in it. */
interface Labels {
  /** Byte behind the table that leads to everything else. */
  readonly tablesEnd: number;
  readonly virtualSize: number;
  readonly backing: { readonly name: string; readonly format: string | null } | null;
  readonly dataFile: string | null;
}

/** Beginnings of formats that would make no sense as the bytes of a disk. */
const FOREIGN: readonly (readonly [name: string, magic: string, offset: number])[] = [
  ["VMDK", "KDMV", 0],
  ["VMDK", "# Disk DescriptorFile", 0],
  ["VHDX", "vhdxfile", 0],
  ["VHD", "conectix", 0],
  ["VDI", "\x7f\x10\xda\xbe", 64],
  ["QED", "QED\0", 0],
  ["LUKS", "LUKS\xba\xbe", 0],
];

/**
 * Follows the chain from the top image to its base.
 *
 * @param path the top image, relative to the working directory
 * @throws UserError that names the image and the label if the chain cannot or should not be followed
 */
export async function resolveTemplate(path: string): Promise<Template> {
  const top = resolve(path);
  const chain: TemplateImage[] = [];
  const seen = new Set<string>();
  let virtualSize: number | null = null;
  let next: Next | null = { path: top, format: null, namedBy: null };
  while (next !== null) {
    const { path, namedBy } = next;
    const head = await readHead(path, namedBy);
    if (seen.has(head.identity)) {
      throw new UserError(
        `the chain of '${basename(top)}' goes in a circle: '${path}', named by '${namedBy}', is above it already`,
      );
    }
    seen.add(head.identity);
    if (seen.size > CHAIN_IMAGES_MAX) {
      throw new UserError(
        `the chain of '${basename(top)}' has more than ${CHAIN_IMAGES_MAX} images`,
      );
    }
    const format = decideFormat(next, head);
    const labels = format === "qcow2" ? readLabels(path, head.bytes) : null;
    if (labels !== null && labels.tablesEnd > head.length) {
      throw new UserError(
        `'${path}' is cut off: its tables end at ${labels.tablesEnd}, and the file is ${head.length} ` +
          "bytes long. Copy it again",
      );
    }
    virtualSize ??= labels?.virtualSize ?? head.length;
    const dataFile = labels?.dataFile ? followed(labels.dataFile, path, "data file") : null;
    if (dataFile !== null) await readHead(dataFile, path);
    chain.push({ path, format, ...(dataFile !== null && { dataFile }) });
    next = nextOf(path, labels);
  }
  return { name: basename(top), virtualSize: virtualSize ?? 0, chain, demo: false };
}

function nextOf(path: string, labels: Labels | null): Next | null {
  if (!labels?.backing) return null;
  const { name, format } = labels.backing;
  if (format !== null && format !== "raw" && format !== "qcow2") {
    throw new UserError(
      `'${path}' says that its backing file '${name}' is ${format}; only raw and qcow2 can be served`,
    );
  }
  return { path: followed(name, path, "backing file"), format, namedBy: path };
}

/**
 * The file that a label means, as in QEMU: relative to the folder of the image that holds it, after
 * an optional "file:".
 */
function followed(label: string, image: string, what: string): string {
  const name = label.replace(/^file:/, "");
  // As QEMU decides it: a colon before the first slash makes it a protocol.
  if (/^[^/]*:/.test(name)) {
    throw new UserError(
      `'${image}' names the ${what} '${label}'; only names of files on this machine are followed`,
    );
  }
  if (name === "" || name.includes("\0")) {
    throw new UserError(
      `'${image}' names a ${what} by what is no file name: ${JSON.stringify(label)}`,
    );
  }
  return isAbsolute(name) ? name : join(dirname(image), name);
}

/**
 * The format to open an image in. The user's own image is probed; a backing file is what the image
 * above says it is. Where that says nothing, bytes that look like qcow2 may still be a raw disk
 * whose guest has written them, with names of files of ours inside; so such a guess is only made if
 * there are none.
 */
function decideFormat(image: Next, head: Head): ImageFormat {
  if (image.format !== null) return image.format;
  if (!looksLikeQcow2(head.bytes)) {
    if (image.namedBy === null) refuseForeign(image.path, head);
    return "raw";
  }
  if (image.namedBy === null) return "qcow2";
  const { backing, dataFile } = readLabels(image.path, head.bytes);
  if (backing === null && dataFile === null) return "qcow2";
  throw new UserError(
    `'${image.namedBy}' does not say what format its backing file '${image.path}' has. It looks ` +
      `like a qcow2 that leads on to '${backing?.name ?? dataFile}', but a guest can have written ` +
      "that into a raw disk. If it is qcow2, record that first: " +
      `qemu-img rebase -u -F qcow2 -b '${image.path}' '${image.namedBy}'`,
  );
}

function refuseForeign(path: string, { bytes, length }: Head): void {
  if (length === 0) throw new UserError(`'${path}' is empty: that is no disk image`);
  const text = new TextDecoder("latin1").decode(bytes.subarray(0, 512));
  for (const [name, magic, offset] of FOREIGN) {
    if (!text.startsWith(magic, offset)) continue;
    throw new UserError(
      `'${path}' looks like ${name}; only raw and qcow2 can be served. ` +
        `Convert it first: qemu-img convert -O qcow2 '${path}' disk.qcow2`,
    );
  }
}

/** @throws UserError with the engine's reason if the header is broken or asks for what we lack */
function readLabels(path: string, bytes: Uint8Array): Labels {
  try {
    const header = parseHeader(bytes);
    if (header.crypt !== "none") {
      throw new UserError(
        `'${path}' is encrypted, and the page has no place to give a passphrase. Decrypt it first, with ` +
          "blocktab img convert --object secret,… --image-opts driver=qcow2,encrypt.key-secret=…",
      );
    }
    const extensions = parseExtensions(bytes.subarray(0, header.layout.clusterBytes), header);
    checkFeatures(header, (bit) => extensions.featureName(0, bit));
    const { backingName, backingFormat, dataFileName } = extensions;
    const external = (header.incompatible.lo & Incompatible.externalData) !== 0;
    if (external && dataFileName === null) {
      throw new UserError(`'${path}' keeps its data in another file and does not say in which`);
    }
    return {
      virtualSize: header.size,
      tablesEnd: header.l1Entries > 0 ? header.l1Offset + header.l1Entries * 8 : 0,
      backing: backingName === null ? null : { name: backingName, format: backingFormat },
      dataFile: dataFileName,
    };
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    throw new UserError(`'${path}' cannot be served: ${error.message}`);
  }
}

interface Head {
  readonly bytes: Uint8Array;
  /** Of the whole file. */
  readonly length: number;
  /** Equal for two names of one file. */
  readonly identity: string;
}

async function readHead(path: string, namedBy: string | null): Promise<Head> {
  let handle: FileHandle | undefined;
  try {
    // A pipe would let open() wait for ever, so look first.
    if (!(await stat(path)).isFile()) throw new UserError(`'${path}' is not a regular file`);
    handle = await open(path, "r");
    const { dev, ino, size } = await handle.stat();
    const bytes = new Uint8Array(Math.min(HEAD_BYTES, size));
    const { bytesRead } = await handle.read(bytes, 0, bytes.length, 0);
    return { bytes: bytes.subarray(0, bytesRead), length: size, identity: `${dev}:${ino}` };
  } catch (error) {
    if (error instanceof UserError) throw error;
    throw new UserError(unreadable(path, namedBy, error as NodeJS.ErrnoException));
  } finally {
    await handle?.close();
  }
}

function unreadable(path: string, namedBy: string | null, error: NodeJS.ErrnoException): string {
  const by = namedBy === null ? "" : `, which '${namedBy}' names,`;
  if (error.code === "ENOENT") return `there is no file '${path}'${by.replace(/,$/, "")}`;
  return `'${path}'${by} cannot be read: ${error.message}`;
}

/** "[base.raw] <── [mid.qcow2] <── [top.qcow2]" */
export function drawChain({ chain }: Template): string {
  return chain
    .map(({ path }) => `[${basename(path)}]`)
    .reverse()
    .join(" <── ");
}
