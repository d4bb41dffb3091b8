/** What backupBegin() takes: libvirt's domainbackup XML as plain JSON. */

import * as v from "valibot";
import { formatSchema, nameSchema } from "./definition.ts";
import { DomainError } from "./errors.ts";
import { checkSource, sourceSchema } from "./source.ts";

const diskEntries = {
  /** The disk's target. */
  name: v.string(),
  backup: v.optional(v.picklist(["yes", "no"])),
  backupmode: v.optional(v.picklist(["full", "incremental"])),
  /** A checkpoint of its own. */
  incremental: v.optional(nameSchema),
  /** Default qcow2. */
  format: v.optional(formatSchema),
  /** Where a push goes. */
  target: v.optional(sourceSchema),
  /** Where a pull keeps what is overwritten. */
  scratch: v.optional(sourceSchema),
  exportname: v.optional(v.string()),
};
const disk = v.strictObject(diskEntries);
export type BackupDiskDefinition = v.InferOutput<typeof disk>;

const port = v.pipe(v.number(), v.safeInteger(), v.minValue(1), v.maxValue(65535));

export const backupSchema = v.strictObject({
  /** Default push. */
  mode: v.optional(v.picklist(["push", "pull"])),
  /** What has changed since that checkpoint. Without it: everything. */
  incremental: v.optional(nameSchema),
  /** Of a pull: NBD, where there are sockets. Without it: devices for pages. */
  server: v.optional(
    v.variant("transport", [
      v.strictObject({ transport: v.literal("unix"), socket: v.string() }),
      v.strictObject({ transport: v.literal("tcp"), name: v.optional(v.string()), port }),
    ]),
  ),
  /** Those that are not listed are left out; without a list all are in. */
  disks: v.optional(v.array(disk)),
});
export type BackupDefinition = v.InferOutput<typeof backupSchema>;

/** @throws DomainError XML_ERROR what no schema says */
export function checkBackup(backup: BackupDefinition): void {
  const refuse = (text: string): never => {
    throw new DomainError("XML_ERROR", text);
  };
  const { mode = "push", server, disks = [] } = backup;
  if (mode === "push" && server) refuse("A server is for backups of mode pull");
  const names = new Set<string>();
  for (const { name, target, scratch, exportname, backupmode, incremental } of disks) {
    if (names.has(name)) refuse(`Disk '${name}' is there twice`);
    names.add(name);
    if (mode === "push" && (scratch || exportname !== undefined)) {
      refuse(`Disk '${name}': scratch and exportname are for backups of mode pull`);
    }
    if (mode === "pull" && target) refuse(`Disk '${name}': a target is for backups of mode push`);
    if (backupmode === "incremental" && (incremental ?? backup.incremental) === undefined) {
      refuse(`Disk '${name}': incremental since which checkpoint?`);
    }
    for (const source of [target, scratch]) if (source) checkSource(source, "XML_ERROR");
  }
}
