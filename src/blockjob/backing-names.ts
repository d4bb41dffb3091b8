/**
 * Names of backing files, as images have them and as users type them. Names are labels: nothing is
 * ever opened by them here, they are only compared and handed on.
 *
 *     dir3/top.qcow2   header: ../dir2/mid.qcow2     relative to the image that has it
 *     dir2/mid.qcow2   header: ../dir1/base.raw
 *
 * Who comes to stand on another image gets the name made relative to itself: to top, base is called
 * ../dir1/base.raw, too. (QEMU: bdrv_find_backing_image() in block.c.)
 */

import type { BlockNode } from "../block/node.ts";
import { skipFilters } from "../block/status.ts";

/** What the store of an image calls it: a path, a URL; undefined if it has no name. */
export function fileNameOf(node: BlockNode): string | undefined {
  const image = skipFilters(node);
  const store = image.children.get("file")?.node ?? image;
  return store.state.info?.().filename ?? image.state.info?.().filename;
}

/**
 * The layer of a chain that the user means by a file name: as its store calls it, as the layer
 * above calls it in its header, or by a path relative to the layer above.
 *
 * @param layers from the top down; the first one is meant only by its own name
 */
export function findByFileName(layers: readonly BlockNode[], name: string): BlockNode | undefined {
  return layers.find((node, i) => {
    const own = fileNameOf(node);
    if (own === name) return true;
    const above = layers[i - 1];
    if (above === undefined) return false;
    if (labelOf(above) === name) return true;
    const path = resolve(above, name);
    const label = labelOf(above);
    if (own !== undefined && normalize(own) === path) return true;
    return label !== undefined && resolve(above, label) === path;
  });
}

/**
 * What an overlay's header shall call the image that it comes to stand on.
 *
 * @param lowest the layer that stood on it until now
 * @param base without filters
 */
export function nameFor(overlay: BlockNode, lowest: BlockNode, base: BlockNode): string {
  const label = labelOf(lowest);
  if (label === undefined) return fileNameOf(base) ?? base.name;
  const [from, to] = [fileNameOf(lowest), fileNameOf(overlay)];
  if (isAbsolute(label) || from === undefined || to === undefined) return label;
  return folderOf(from) === folderOf(to) ? label : relative(folderOf(to), resolve(lowest, label));
}

/** What a header calls the format of its backing file. */
export function formatFor(base: BlockNode, maskProtocol: boolean): string {
  return maskProtocol && base.driver.kind === "protocol" ? "raw" : base.driver.name;
}

function labelOf(node: BlockNode): string | undefined {
  return node.state.info?.()["backing-filename"];
}

/** A name in the header of `image`, as a path like that of the image itself. */
function resolve(image: BlockNode, name: string): string {
  const own = fileNameOf(image);
  return normalize(isAbsolute(name) || own === undefined ? name : `${folderOf(own)}/${name}`);
}

/** A path from the root, or something with a scheme, such as a URL. */
function isAbsolute(name: string): boolean {
  return name.startsWith("/") || /^[A-Za-z][A-Za-z0-9+.-]*:/.test(name);
}

function folderOf(path: string): string {
  const slash = path.lastIndexOf("/");
  if (slash === 0) return "/";
  return slash === -1 ? "." : normalize(path.slice(0, slash));
}

/** Without "." and "..", as far as the text alone can tell. */
function normalize(path: string): string {
  const [, root, rest] = /^([A-Za-z][A-Za-z0-9+.-]*:\/*|\/)?(.*)$/s.exec(path)!;
  const parts: string[] = [];
  for (const part of rest!.split("/")) {
    if (part === "" || part === ".") continue;
    if (part === ".." && parts.length > 0 && parts.at(-1) !== "..") parts.pop();
    else parts.push(part);
  }
  return `${root ?? ""}${parts.join("/")}` || ".";
}

/** How to get from a folder to a path, both normalized; the path itself if they have no way. */
function relative(folder: string, path: string): string {
  if (isAbsolute(folder) !== isAbsolute(path)) return path;
  const from = folder === "." ? [] : folder.split("/");
  const to = path.split("/");
  let same = 0;
  while (same < from.length && same < to.length - 1 && from[same] === to[same]) same++;
  if (from.slice(same).includes("..")) return path;
  return [...from.slice(same).map(() => ".."), ...to.slice(same)].join("/");
}
