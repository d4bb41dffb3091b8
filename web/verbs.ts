/**
 * libvirt's calls on the page's disk, as data: what each is for, the arguments worth a field, and the call. What
 * a field leaves empty is as libvirt has it.
 */

import { type Domain, flags } from "../src/domain/client.ts";
import type { StoreDriver } from "./catalogue.ts";
import { TARGET } from "./define.ts";
import { parseSpeed } from "./format.ts";
import type { FieldValues } from "./job-forms.ts";
import { storeOf } from "./store.ts";

export interface VerbField {
  /** layer: an image of the chain below the top; file: a new one; checkpoint: one that is there. */
  readonly kind: "layer" | "file" | "checkpoint" | "text" | "speed" | "flag";
  readonly name: string;
  readonly required?: boolean;
  /** When nothing is chosen. */
  readonly none?: string;
}

export interface Verb {
  readonly name: string;
  readonly about: string;
  readonly fields: readonly VerbField[];
  call(domain: Domain, values: FieldValues, store: StoreDriver): Promise<unknown>;
}

const bandwidth: VerbField = { kind: "speed", name: "bandwidth" };
const newFile: VerbField = { kind: "file", name: "file", required: true };

export const VERBS: readonly Verb[] = [
  {
    name: "blockPull",
    about: "Copies all that the disk inherits into its top image, which then stands alone.",
    fields: [bandwidth],
    call: (domain, values) =>
      domain.blockPull(TARGET, bytesPerSecond(values), flags.BLOCK_PULL.BANDWIDTH_BYTES),
  },
  {
    name: "blockRebase",
    about: "Copies what lies between the top image and base into the top image; base stays.",
    fields: [{ kind: "layer", name: "base", required: true }, bandwidth],
    call: (domain, values) =>
      domain.blockRebase(
        TARGET,
        values["base"]!,
        bytesPerSecond(values),
        flags.BLOCK_REBASE.BANDWIDTH_BYTES,
      ),
  },
  {
    name: "blockCommit",
    about:
      "Moves what the images from top down hold into base. From the disk's top image on it gets ready and " +
      "waits: Pivot then moves the disk over to base.",
    fields: [
      { kind: "layer", name: "top", none: "the disk's top image" },
      { kind: "layer", name: "base", none: "the last one of the chain" },
      { kind: "flag", name: "delete" },
      bandwidth,
    ],
    call: (domain, values) => {
      const { ACTIVE, DELETE, BANDWIDTH_BYTES } = flags.BLOCK_COMMIT;
      const top = values["top"] || null;
      const own = (top === null ? ACTIVE : 0) | (values["delete"] ? DELETE : 0);
      const base = values["base"] || null;
      return domain.blockCommit(TARGET, base, top, bytesPerSecond(values), own | BANDWIDTH_BYTES);
    },
  },
  {
    name: "blockCopy",
    about:
      "Copies the disk to a new image, and keeps the two equal once it is ready. Pivot then moves the disk over " +
      "to the copy, Abort leaves the copy as it is at that moment.",
    fields: [newFile, { kind: "flag", name: "shallow" }, bandwidth],
    call: (domain, values, store) =>
      domain.blockCopy(
        TARGET,
        { format: "qcow2", source: storeOf(store, values["file"]!) },
        { bandwidth: bytesPerSecond(values) },
        values["shallow"] ? flags.BLOCK_COPY.SHALLOW : 0,
      ),
  },
  {
    name: "backupBegin",
    about:
      "Copies the disk as it is at this moment to a new image. With a checkpoint made along with it, the next " +
      "backup can be incremental: what has changed since.",
    fields: [
      newFile,
      { kind: "checkpoint", name: "incremental", none: "no: all of the disk" },
      { kind: "text", name: "checkpoint" },
    ],
    call: (domain, values, store) => {
      const { incremental, checkpoint, file } = values;
      const disk = { name: TARGET, target: storeOf(store, file!) };
      return domain.backupBegin(
        { disks: [disk], ...(incremental && { incremental }) },
        checkpoint ? { name: checkpoint } : null,
      );
    },
  },
  {
    name: "checkpointCreate",
    about: "Records from now on what is written, for an incremental backup. Done at once.",
    fields: [{ kind: "text", name: "name", required: true }],
    call: (domain, values) => domain.checkpointCreate({ name: values["name"]! }),
  },
];

/** @returns the names of the fields that keep the call from being made */
export function wrongVerbFields({ fields }: Verb, values: FieldValues): string[] {
  return fields
    .filter(({ kind, name, required }) => {
      const value = values[name] ?? "";
      if (kind === "speed") return value !== "" && parseSpeed(value) === undefined;
      return required === true && value === "";
    })
    .map(({ name }) => name);
}

/** 0: no limit. */
function bytesPerSecond(values: FieldValues): number {
  return parseSpeed(values["bandwidth"] ?? "") ?? 0;
}
