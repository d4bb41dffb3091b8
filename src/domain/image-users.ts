/**
 * Which disks have an image in their chain: as they are open now, and as they are defined for their next start. A
 * file that one of them has is not removed for another.
 */

import { type DiskDefinition, type ImageLayer, layersOf } from "./definition.ts";
import type { DiskRecord, DriverRecord } from "./record.ts";
import { describeSource, pathOf, type Source } from "./source.ts";

/**
 * Is it the same disk, not another image that has been defined for its target? What a job changes in the chain of
 * one that is, it changes in its definition, too.
 *
 * @param top the image at the top of `disk`
 */
export function isDefinedAs(
  { target, source }: DiskDefinition,
  disk: Pick<DiskRecord, "target">,
  top: Pick<ImageLayer, "source">,
): boolean {
  return target === disk.target && describeSource(source) === describeSource(top.source);
}

/**
 * @param but a disk that is about to do without it
 * @returns for people: "disk 'vda' of domain 'demo'"; undefined: nobody has it
 */
export function userOf(
  { domains }: DriverRecord,
  image: Source,
  but?: DiskRecord,
): string | undefined {
  const path = pathOf(image);
  const isIt = (source: Source | undefined) => source !== undefined && pathOf(source) === path;
  for (const { definition, disks } of domains) {
    const isBut = (one: DiskDefinition) =>
      but !== undefined && disks.includes(but) && isDefinedAs(one, but, but.layers[0]!);
    const chains = [
      ...disks.filter((disk) => disk !== but),
      ...definition.disks
        .filter((disk) => !isBut(disk))
        .map((disk) => ({ target: disk.target, layers: layersOf(disk) })),
    ];
    const found = chains.find(({ layers }) =>
      layers.some(({ source, dataStore }) => isIt(source) || isIt(dataStore)),
    );
    if (found) return `disk '${found.target}' of domain '${definition.name}'`;
  }
  return undefined;
}
