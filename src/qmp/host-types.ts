/**
 * The types of arguments that depend on what an engine is made of: its block drivers, its ways to
 * export. Commands check against them, and query-qmp-schema tells them (QEMU: BlockdevOptions,
 * BlockdevRef, BlockdevCreateOptions, BlockdevAmendOptions, BlockExportOptions in qapi/).
 */

import * as v from "valibot";
import type { BlockDriver, OptionEntries } from "../block/driver.ts";
import { COMMON_OPTIONS, openEntries } from "../block/options.ts";
import { createEntries } from "../blockjob/create.ts";
import type { ExportList } from "../export/list.ts";
import { union } from "./union.ts";

export interface HostTypes {
  /** What blockdev-add takes. */
  readonly blockdevOptions: v.GenericSchema;
  /** `options` of blockdev-create. */
  readonly createOptions: v.GenericSchema;
  /** `options` of x-blockdev-amend. */
  readonly amendOptions: v.GenericSchema;
  /** Own members of each export type, by the type. */
  readonly exportOptions: Readonly<Record<string, v.ObjectEntries>>;
}

export function hostTypes(
  drivers: Iterable<BlockDriver>,
  exports: Pick<ExportList, "types">,
): HostTypes {
  const all = [...drivers];
  /** Every driver is a value of the tag; one that cannot do it takes no members. */
  const byDriver = (entriesOf: (driver: BlockDriver) => OptionEntries) =>
    Object.fromEntries(all.map((driver) => [driver.name, entriesOf(driver)]));

  const options: v.GenericSchema = union(
    "driver",
    COMMON_OPTIONS,
    byDriver((driver) =>
      openEntries(
        driver,
        v.lazy(() => ref),
      ),
    ),
  );
  const ref: v.GenericSchema = v.union([v.string(), options]);
  return {
    blockdevOptions: options,
    createOptions: union(
      "driver",
      {},
      byDriver((driver) => createEntries(driver, ref)),
    ),
    amendOptions: union(
      "driver",
      {},
      byDriver(({ amendOptions = {} }) => amendOptions),
    ),
    exportOptions: Object.fromEntries(exports.types.map(({ type, options }) => [type, options])),
  };
}
