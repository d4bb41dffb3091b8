/**
 * Jobs that can be started by hand, as data: the QMP command, and the arguments worth a field. Those that change
 * the disk's chain are libvirt's verbs (verbs.ts), so that its chain is known by target, too.
 * What a field leaves empty is left out of the command, and the engine's default counts. One entry
 * is no job: the bitmap that an incremental backup needs.
 */

import type { CommandName } from "../src/engine/client.ts";
import { parseSpeed } from "./format.ts";

export type Field =
  | { readonly kind: "node"; readonly name: string; readonly required?: boolean }
  /** One node, sent as a list. */
  | { readonly kind: "nodes"; readonly name: string; readonly required?: boolean }
  | {
      readonly kind: "choice";
      readonly name: string;
      readonly choices: readonly string[];
      readonly required?: boolean;
    }
  | { readonly kind: "text"; readonly name: string; readonly required?: boolean }
  | { readonly kind: "speed"; readonly name: string }
  | { readonly kind: "flag"; readonly name: string };

export interface JobForm {
  /** The job's type, as queries call it. */
  readonly type: string;
  /** What it is for, in a sentence. */
  readonly about: string;
  readonly command: CommandName;
  readonly fields: readonly Field[];
  /** Arguments that are always the same. */
  readonly constant?: Readonly<Record<string, unknown>>;
  /** The command is done when it is answered. */
  readonly isNoJob?: true;
}

const onError = ["report", "ignore", "stop", "enospc"] as const;
const disk: Field = { kind: "node", name: "device", required: true };
const target: Field = { kind: "node", name: "target", required: true };
const tag: Field = { kind: "text", name: "tag", required: true };
const devices: Field = { kind: "nodes", name: "devices", required: true };
const speed: Field = { kind: "speed", name: "speed" };
/** So that how it ended can be read, however quick it was. */
const kept = { "auto-dismiss": false } as const;

export const JOB_FORMS: readonly JobForm[] = [
  {
    type: "backup",
    about:
      "Copies the disk as it is at this moment to another image, while it is written to. With a " +
      "bitmap: what has changed since that was made, over the last backup.",
    command: "blockdev-backup",
    fields: [
      disk,
      target,
      {
        kind: "choice",
        name: "sync",
        choices: ["full", "top", "none", "incremental", "bitmap"],
        required: true,
      },
      { kind: "text", name: "bitmap" },
      { kind: "choice", name: "bitmap-mode", choices: ["on-success", "never", "always"] },
      speed,
      { kind: "flag", name: "compress" },
      { kind: "choice", name: "on-target-error", choices: onError },
    ],
    constant: kept,
  },
  {
    type: "bitmap",
    about:
      "Records from now on what is written, for an incremental backup. Not a job: done at once.",
    command: "block-dirty-bitmap-add",
    fields: [
      { kind: "node", name: "node", required: true },
      { kind: "text", name: "name", required: true },
    ],
    isNoJob: true,
  },
  {
    type: "snapshot-save",
    about: "Keeps the disk's state inside its image, under a tag. No guest memory.",
    command: "snapshot-save",
    fields: [tag, { kind: "node", name: "vmstate", required: true }, devices],
  },
  {
    type: "snapshot-load",
    about: "Makes the disk what it was when the snapshot was saved.",
    command: "snapshot-load",
    fields: [tag, { kind: "node", name: "vmstate", required: true }, devices],
  },
  {
    type: "snapshot-delete",
    about: "Forgets a snapshot.",
    command: "snapshot-delete",
    fields: [tag, devices],
  },
  {
    type: "amend",
    about: "Changes an image's version, v2 to v3.",
    command: "x-blockdev-amend",
    fields: [{ kind: "node", name: "node-name", required: true }],
    constant: { options: { driver: "qcow2", version: "v3" } },
  },
];

/** What stands in the fields, by name; a flag is "on" or "". */
export type FieldValues = Readonly<Record<string, string>>;

/** @returns the names of the fields that keep the form from being sent */
export function wrongFields(form: JobForm, values: FieldValues): string[] {
  return form.fields
    .filter((field) => {
      const value = values[field.name] ?? "";
      if (field.kind === "speed") return value !== "" && parseSpeed(value) === undefined;
      return "required" in field && field.required === true && value === "";
    })
    .map(({ name }) => name);
}

/** The command's arguments. Look at wrongFields() first. */
export function argumentsOf(form: JobForm, jobId: string, values: FieldValues): object {
  const args: Record<string, unknown> = form.isNoJob ? {} : { "job-id": jobId, ...form.constant };
  for (const field of form.fields) {
    const value = values[field.name] ?? "";
    if (value === "") continue;
    args[field.name] = argumentOf(field, value);
  }
  return args;
}

function argumentOf(field: Field, value: string): unknown {
  switch (field.kind) {
    case "nodes":
      return [value];
    case "flag":
      return true;
    case "speed":
      return parseSpeed(value);
    default:
      return value;
  }
}

/** "mirror0", or the first number that is free. */
export function freeId(type: string, taken: ReadonlySet<string>): string {
  for (let n = 0; ; n++) if (!taken.has(`${type}${n}`)) return `${type}${n}`;
}
