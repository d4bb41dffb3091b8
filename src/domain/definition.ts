/**
 * What a domain is made of: libvirt's domain XML as plain JSON, as far as it is about disks.
 *
 *     { "name": "demo",
 *       "disks": [{
 *         "target": "vda",                               <target dev='vda'/>
 *         "format": "qcow2",                             <driver type='qcow2'/>, default raw
 *         "source": { "driver": "opfs", "filename": … }, <source …/>, see source.ts
 *         "dataStore": { "driver": "opfs", … },          <dataStore>: a qcow2's external data file
 *         "backingStore": { "format": …, "source": …,    <backingStore>…</backingStore>
 *                           "backingStore": null },      <backingStore/>: the end of the chain
 *         "readonly": false                              <readonly/>
 *       }] }
 *
 * Names inside images are never followed here, so a chain has to be written out: a backingStore that
 * is left out is the end, as is null.
 */

import * as v from "valibot";
import { check } from "../base/check.ts";
import { BlockError } from "../base/errors.ts";
import { DomainError } from "./errors.ts";
import { checkSource, describeSource, type Source, sourceSchema } from "./source.ts";

/** Deeper is taken for a mistake. */
const CHAIN_LAYERS_MAX = 200;
const DISKS_MAX = 64;

export const formatSchema = v.picklist(["raw", "qcow2"]);
export type Format = v.InferOutput<typeof formatSchema>;

export interface ImageDefinition {
  readonly format?: Format | undefined;
  readonly source: Source;
  readonly dataStore?: Source | undefined;
  readonly backingStore?: ImageDefinition | null | undefined;
}

export interface DiskDefinition extends ImageDefinition {
  readonly target: string;
  readonly readonly?: boolean | undefined;
}

export interface DomainDefinition {
  readonly name: string;
  readonly disks: readonly DiskDefinition[];
}

const image = {
  format: v.optional(formatSchema),
  source: sourceSchema,
  dataStore: v.optional(sourceSchema),
  backingStore: v.optional(v.nullable(v.lazy(() => imageSchema))),
};
const imageSchema: v.GenericSchema<ImageDefinition> = v.strictObject(image);

/** As in libvirt, where a name ends up in file names and on command lines. */
export const nameSchema = v.pipe(
  v.string(),
  v.check(
    (name) => /^[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}$/.test(name),
    "a name of 1 to 100 letters, digits, '_', '.', '+' and '-', beginning with none of '.+-'",
  ),
);
const targetSchema = v.pipe(
  v.string(),
  v.check(
    (target) => /^(?:hd|sd|vd|xvd|ubd|fd)[a-z0-9]{1,8}$/.test(target),
    "a device name such as 'vda' or 'sdb'",
  ),
);

export const definitionSchema: v.GenericSchema<DomainDefinition> = v.strictObject({
  name: nameSchema,
  disks: v.pipe(
    v.array(v.strictObject({ target: targetSchema, readonly: v.optional(v.boolean()), ...image })),
    v.maxLength(DISKS_MAX),
  ),
});

/** @throws DomainError of that code, which names what is wrong */
export function checked<Schema extends v.GenericSchema>(
  schema: Schema,
  value: unknown,
  code: "XML_ERROR" | "INVALID_ARG" = "XML_ERROR",
): v.InferOutput<Schema> {
  try {
    return check(schema, value);
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    throw new DomainError(code, error.message, error);
  }
}

/** @throws DomainError XML_ERROR */
export function checkDefinition(value: unknown): DomainDefinition {
  checkDepth(value);
  const definition = checked(definitionSchema, value);
  const targets = new Set<string>();
  for (const disk of definition.disks) {
    if (targets.has(disk.target)) {
      throw new DomainError("XML_ERROR", `The target '${disk.target}' is there twice`);
    }
    targets.add(disk.target);
    checkChain(disk, "XML_ERROR");
  }
  return definition;
}

/** @throws DomainError of that code */
export function checkChain(top: ImageDefinition, code: "XML_ERROR" | "INVALID_ARG"): void {
  const layers = layersOf(top);
  for (const { format, source, dataStore } of layers) {
    for (const one of dataStore ? [source, dataStore] : [source]) checkSource(one, code);
    if (dataStore && format !== "qcow2") {
      throw new DomainError(code, "A dataStore is for qcow2 only");
    }
  }
  // What is not named is raw: the bytes of a qcow2 would be taken for those of a disk.
  const raw = layers.slice(0, -1).find(({ format }) => format === "raw");
  if (!raw) return;
  const image = describeSource(raw.source);
  throw new DomainError(code, `'${image}' is raw, and has no backingStore: is its format missing?`);
}

/** One image of a chain. */
export interface ImageLayer {
  readonly format: Format;
  readonly source: Source;
  readonly dataStore?: Source | undefined;
}

/** A chain as a list, the top first. */
export function layersOf(top: ImageDefinition): ImageLayer[] {
  const layers: ImageLayer[] = [];
  for (let at: ImageDefinition | null | undefined = top; at; at = at.backingStore) {
    const { format = "raw", source, dataStore } = at;
    layers.push({ format, source, ...(dataStore && { dataStore }) });
  }
  return layers;
}

/** The other way round. @param layers at least one, the top first */
export function imageOf(layers: readonly ImageLayer[]): ImageDefinition {
  return layers.reduceRight<ImageDefinition | null>(
    (backingStore, { format, source, dataStore }) => ({
      format,
      source,
      ...(dataStore && { dataStore }),
      backingStore,
    }),
    null,
  )!;
}

/** @throws DomainError XML_ERROR */
export function checkImage(value: unknown): ImageDefinition {
  checkDepth(value);
  return checked(imageSchema, value);
}

/** Before a schema that goes down by calling itself. @throws DomainError XML_ERROR */
function checkDepth(value: unknown): void {
  let layer = [value];
  for (let depth = 0; layer.length > 0; depth++) {
    if (depth > CHAIN_LAYERS_MAX + 10) {
      throw new DomainError("XML_ERROR", `More than ${CHAIN_LAYERS_MAX} images in one chain`);
    }
    layer = layer.flatMap((item) =>
      typeof item === "object" && item !== null ? Object.values(item) : [],
    );
  }
}
