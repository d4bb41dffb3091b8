/** A template out of a file on the user's computer, instead of a server's. */

import { type BlobSource, type Template, TemplateError } from "./template.ts";

const QCOW2_MAGIC = "QFI\xfb";
/** Any file could be a raw disk; these say that they are. */
const RAW_NAMES = /\.(raw|img|iso|bin|dd)$/i;

/**
 * Looks at the file's first bytes and name.
 *
 * @throws TemplateError if it is neither qcow2 nor by its name raw, or cannot be read
 */
export async function templateOfFile(file: File): Promise<Template> {
  if (file.size === 0) throw new TemplateError(`'${file.name}' is empty: there is no disk in it`);
  const format = (await magicOf(file)) === QCOW2_MAGIC ? "qcow2" : "raw";
  if (format === "raw" && !RAW_NAMES.test(file.name)) {
    throw new TemplateError(
      `'${file.name}' is not a qcow2 image. Other formats have to be converted first: ` +
        `qemu-img convert -O qcow2 '${file.name}' disk.qcow2. A raw disk must be called .raw or .img`,
    );
  }
  const { name, size, lastModified } = file;
  const source: BlobSource = { driver: "blob", name, size, lastModified };
  return { name, demo: false, chain: [{ name, format, source }] };
}

/** The files that a disk over this template needs; they are gone with the page that had them. */
export function blobSources(template: Template): BlobSource[] {
  return template.chain.flatMap(({ source }) => (source.driver === "blob" ? [source] : []));
}

/** @throws TemplateError if `file` is not the one that the disk was made from */
export function checkSameFile(source: BlobSource, file: File): void {
  const { name, size, lastModified } = source;
  if (file.name === name && file.size === size && file.lastModified === lastModified) return;
  throw new TemplateError(
    `The disk was made from '${name}' of ${size} bytes as it was on ` +
      `${new Date(lastModified).toLocaleString()}; this is another file, or it was changed since`,
  );
}

async function magicOf(file: File): Promise<string> {
  try {
    const head = new Uint8Array(await file.slice(0, 4).arrayBuffer());
    return String.fromCharCode(...head);
  } catch (error) {
    if (!(error instanceof DOMException)) throw error;
    throw new TemplateError(`'${file.name}' cannot be read: ${error.message}`);
  }
}
