/**
 * What the disk is made from: a chain of images on a web server, or one local file.
 *
 * /template.json says what the server offers. From there on every URL is absolute, and once the
 * images were opened, each carries the identity that it had (`expect`): a template that changes
 * under an overlay would give a disk that is half one and half the other, so it is an error.
 */

import type { BlockdevOptions, NodeInfo } from "./wire.ts";

/** What the http driver tells and later expects of a resource. */
export interface Identity {
  readonly etag?: string;
  readonly "last-modified"?: string;
  readonly length?: number;
}

export interface HttpSource {
  readonly driver: "http";
  readonly url: string;
  readonly expect?: Identity;
}

/** A file that the user picked; name, size and time are what it is known by. */
export interface BlobSource {
  readonly driver: "blob";
  readonly name: string;
  readonly size: number;
  readonly lastModified: number;
}

export type Source = HttpSource | BlobSource;

export interface TemplateImage {
  readonly name: string;
  readonly format: "raw" | "qcow2";
  readonly source: Source;
  /** The external data file of a qcow2 image that has one. */
  readonly dataSource?: Source;
}

export interface Template {
  readonly name: string;
  /** Bytes of the disk, if the server tells: only for show. */
  readonly virtualSize?: number;
  /** Top first; each has the next one as its backing file. At least one. */
  readonly chain: readonly TemplateImage[];
  readonly demo: boolean;
}

/** Names of the nodes of the template's n-th image, 0 the top. */
export const templateNode = (n: number): string => (n === 0 ? "template" : `template${n}`);
export const templateFile = (n: number): string => `${templateNode(n)}-file`;
export const templateData = (n: number): string => `${templateNode(n)}-data`;

/** A template.json that is none of ours; the message says what is wrong with it. */
export class TemplateError extends Error {
  override readonly name = "TemplateError";
}

/**
 * What the page's own server offers.
 *
 * @throws TemplateError if there is nothing, or nothing of use
 */
export async function fetchTemplate(): Promise<Template> {
  const url = new URL("template.json", document.baseURI);
  let response: Response;
  try {
    response = await fetch(url, { cache: "no-store" });
  } catch (error) {
    if (error instanceof TypeError) throw new TemplateError("it does not answer");
    throw error;
  }
  // A static host without a template answers with a page of its own.
  const type = response.headers.get("Content-Type") ?? "";
  if (!response.ok || !type.includes("json")) {
    throw new TemplateError(`there is no ${url.pathname} (status ${response.status})`);
  }
  return parseTemplate(await response.json(), document.baseURI);
}

/**
 * @param json content of template.json
 * @param base URL that relative ones are relative to
 * @throws TemplateError naming the member
 */
export function parseTemplate(json: unknown, base: string): Template {
  const { name, chain, demo, "virtual-size": virtualSize } = object(json, "template.json");
  if (!Array.isArray(chain) || chain.length === 0) {
    throw new TemplateError("'chain' of template.json must list at least one image");
  }
  return {
    name: text(name, "name"),
    demo: demo === true,
    ...(typeof virtualSize === "number" && { virtualSize }),
    chain: chain.map((item: unknown, n) => {
      const image = object(item, `chain[${n}]`);
      const format = text(image["format"], `chain[${n}].format`);
      if (format !== "raw" && format !== "qcow2") {
        throw new TemplateError(`'chain[${n}].format' must be raw or qcow2; got '${format}'`);
      }
      const source = httpSource(image["url"], `chain[${n}].url`, base);
      const named = image["name"] ?? lastSegment(source.url);
      const dataFile = image["data-file"];
      if (format === "raw" && dataFile !== undefined) {
        throw new TemplateError(`'chain[${n}].data-file' is for qcow2 only`);
      }
      return {
        name: text(named, `chain[${n}].name`),
        format,
        source,
        ...(dataFile !== undefined && {
          dataSource: httpSource(
            object(dataFile, `chain[${n}].data-file`)["url"],
            `chain[${n}].data-file.url`,
            base,
          ),
        }),
      };
    }),
  };
}

/** blockdev-add options of the whole chain, nested, so that it is opened and closed as one. */
export function templateOptions(chain: readonly TemplateImage[], n = 0): BlockdevOptions {
  const image = chain[n]!;
  const options = {
    "node-name": templateNode(n),
    "read-only": true,
    file: storeOptions(image.source, templateFile(n)),
  };
  if (image.format === "raw") return { driver: "raw", ...options };
  return {
    driver: "qcow2",
    ...options,
    ...(image.dataSource && { "data-file": storeOptions(image.dataSource, templateData(n)) }),
    // Said even if there is none, because the name in the header is a label.
    backing: n + 1 < chain.length ? templateOptions(chain, n + 1) : null,
  };
}

function storeOptions(source: Source, nodeName: string) {
  const own = source.driver === "blob" ? { driver: source.driver, name: source.name } : source;
  return { ...own, "node-name": nodeName, "read-only": true };
}

/**
 * Whether the opened chain is the one that its images speak of: each but the last has a backing
 * file. (Not which one: names in images are labels.)
 *
 * @throws TemplateError naming the image. Opened without its backing file the disk would read as
 *   zeroes where it is not zero, and with one that it does not have, the other way round
 */
export function checkComplete(chain: readonly TemplateImage[], nodes: readonly NodeInfo[]): void {
  for (const [n, { name }] of chain.entries()) {
    const node = nodes.find((candidate) => candidate["node-name"] === templateNode(n));
    const label = node?.image["backing-filename"];
    const next = chain[n + 1];
    if (label !== undefined && next === undefined) {
      throw new TemplateError(
        `'${name}' is not whole: it needs its backing file '${label}'. Serve both with ` +
          "npm start -- path/to/image, or make one image of them with qemu-img convert",
      );
    }
    if (label === undefined && next !== undefined) {
      throw new TemplateError(`'${name}' has no backing file, but '${next.name}' is listed as one`);
    }
  }
}

/** The same chain, each image with the identity that its node found. */
export function withIdentities(
  chain: readonly TemplateImage[],
  nodes: readonly NodeInfo[],
): TemplateImage[] {
  return chain.map((image, n) => ({
    ...image,
    source: identified(image.source, templateFile(n), nodes),
    ...(image.dataSource && {
      dataSource: identified(image.dataSource, templateData(n), nodes),
    }),
  }));
}

function identified(source: Source, nodeName: string, nodes: readonly NodeInfo[]): Source {
  if (source.driver !== "http") return source;
  const node = nodes.find((candidate) => candidate["node-name"] === nodeName);
  const data = node?.image["format-specific"]?.data as Record<string, unknown> | undefined;
  const { etag, length } = data ?? {};
  const lastModified = data?.["last-modified"];
  return {
    ...source,
    expect: {
      ...(typeof etag === "string" && { etag }),
      ...(typeof lastModified === "string" && { "last-modified": lastModified }),
      ...(typeof length === "number" && { length }),
    },
  };
}

function httpSource(url: unknown, where: string, base: string): HttpSource {
  const written = text(url, where);
  if (!URL.canParse(written, base)) throw new TemplateError(`'${where}' is no URL: '${written}'`);
  return { driver: "http", url: new URL(written, base).href };
}

function lastSegment(url: string): string {
  return decodeURIComponent(new URL(url).pathname.split("/").at(-1) ?? "");
}

function object(value: unknown, where: string): Record<string, unknown> {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) {
    return value as Record<string, unknown>;
  }
  throw new TemplateError(`'${where}' must be an object`);
}

function text(value: unknown, where: string): string {
  if (typeof value === "string" && value !== "") return value;
  throw new TemplateError(`'${where}' must be a text that is not empty`);
}
